"""What is not known never leads to a launch."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.history import Fault
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

KINDS = frozenset({"database", "broker", "guard", "backend", "api"})


def check(run: Run) -> Iterator[Violation]:
    """Nothing is launched while a source of what must be known cannot be asked.

    What was claimed before may still be sent: a launch counts from the send deadline on.
    """
    for fault in run.history.faults:
        if fault.kind in KINDS:
            for launch in run.launches:
                yield from _launched_in(run, fault, launch)


def _launched_in(run: Run, fault: Fault, launch: Launch) -> Iterator[Violation]:
    if fault.uid not in (None, launch.uid):
        return
    begin = fault.begin + run.promised.send_deadline + run.promised.slack
    sends = [message.moment() for message in launch.messages]
    sends += [next(job.moments()) for job in launch.jobs]
    for send in sends:
        if begin < send.time < fault.end and send.time < launch.excused:
            sentence = f"{launch.id} is launched though nothing is known from the {fault.kind}"
            yield violation("unknown never launches", sentence, [*fault.moments(), send])
