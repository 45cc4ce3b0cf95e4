"""What is not known never leads to a launch."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.history import Fault, Moment
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "unknown never launches"
KINDS = frozenset({"database", "broker", "guard", "backend", "api"})


def check(run: Run) -> Iterator[Violation]:
    """Nothing is launched while a source of what must be known cannot be asked.

    Nor is anything claimed while the rows cannot be read. What was read just before that may be
    acted on still.
    """
    for fault in run.history.faults:
        if fault.kind in KINDS:
            for launch in run.launches:
                yield from _launched_in(run, fault, launch)
        if fault.kind == "database":
            yield from _claimed_in(run, fault)


def _launched_in(run: Run, fault: Fault, launch: Launch) -> Iterator[Violation]:
    if fault.uid not in (None, launch.uid):
        return
    sends = [message.moment() for message in launch.messages]
    sends += [next(job.moments()) for job in launch.jobs]
    for send in sends:
        if _is_amid(run, fault, send.time) and send.time < launch.excused:
            sentence = f"{launch.id} is launched though nothing is known from the {fault.kind}"
            yield _violation(sentence, fault, send)


def _claimed_in(run: Run, fault: Fault) -> Iterator[Violation]:
    for launch, versions in run.history.claims.items():
        claimed = versions[0]
        mine = fault.uid in (None, claimed.uid) and not run.is_excused(claimed.uid)
        if mine and _is_amid(run, fault, claimed.time):
            sentence = f"{launch} is claimed though nothing is known from the {fault.kind}"
            yield _violation(sentence, fault, claimed.moment())


def _violation(sentence: str, fault: Fault, moment: Moment) -> Violation:
    return violation(PROMISE, sentence, [*fault.moments(), moment])


def _is_amid(run: Run, fault: Fault, time: float) -> bool:
    return fault.begin + _late(run, fault) + run.promised.slack < time < fault.end


def _late(run: Run, fault: Fault) -> float:
    """How long after it was read something may be acted on.

    A cycle under way goes on; where other things go wrong, too, it may hang until its deadline.
    """
    within = run.promised.send_deadline
    others = (each for each in run.history.faults if each is not fault)
    alone = not any(each.begin < fault.end and fault.begin < each.end + within for each in others)
    return run.promised.cycle if alone else within
