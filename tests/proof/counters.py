"""Each outcome is counted exactly once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from math import inf

from tests.proof.history import Execution, Version
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "each outcome is counted once"
OUTCOMES = ("succeeded", "failed", "lost")
_ANY = frozenset(OUTCOMES)


def check(run: Run) -> Iterator[Violation]:
    """The final counters are what observers saw, and none ever goes down.

    Where an observer cannot tell how a launch was counted (it failed, and its row left), each of
    its possible outcomes is allowed, but one of them only.
    """
    for uid, versions in run.history.versions_of.items():
        if run.is_excused(uid):
            continue
        yield from _goes_down(uid, versions)
        if run.settled_by(uid) < inf:
            yield from _launched(run, uid, versions[-1])
            yield from _outcomes(run, uid, versions[-1])


def _goes_down(uid: str, versions: list[Version]) -> Iterator[Violation]:
    for before, after in pairwise(versions):
        down = [name for name, count in before.counters.items() if after.counters[name] < count]
        if down and not after.deleted:
            sentence = f"{', '.join(down)} of {uid} went down"
            yield violation(PROMISE, sentence, [before.moment(), after.moment()])


def _launched(run: Run, uid: str, final: Version) -> Iterator[Violation]:
    launches = run.launches_of[uid]
    claimed = {item["id"] for item in final.items if item["phase"] == "Claimed"}
    # A message that nobody executed may have been superseded, and its claim given back.
    surely = [each for each in launches if _was_there(each) and each.id not in claimed]
    launched = final.counters["launched"]
    if not len(surely) <= launched <= len(launches) + len(_counted_unseen(run, uid)):
        sentence = f"{uid} has launched {launched} by its counter; {len(launches)} were seen"
        moments = [final.moment(), *(launch.begin() for launch in launches)]
        yield violation(PROMISE, sentence, moments)


def _outcomes(run: Run, uid: str, final: Version) -> Iterator[Violation]:
    """For each set of outcomes: as many are counted as must have ended so, and no more than may."""
    possible = {each.id: _possible(run, each) for each in run.launches_of[uid]}
    ended = {each.id for each in run.launches_of[uid] if _has_ended(run, each, final)}
    unseen = len(_counted_unseen(run, uid))
    for size in range(1, len(OUTCOMES) + 1):
        for names in combinations(OUTCOMES, size):
            must = [i for i in ended if possible[i] and possible[i] <= set(names)]
            may = [i for i, outcomes in possible.items() if outcomes & set(names)]
            counted = sum(final.counters[name] for name in names)
            if not len(must) <= counted <= len(may) + unseen:
                yield _miscounted(run, final, names, counted, must if counted < len(must) else may)
                return


def _counted_unseen(run: Run, uid: str) -> set[str]:
    """Claims that were perhaps never sent, but counted: their lives were over, or their rows left.

    Of a Job the API server knows whether it was created.
    """
    return set() if run.promised.jobs else run.unseen(uid)


def _miscounted(
    run: Run, final: Version, names: tuple[str, ...], counted: int, seen: list[str]
) -> Violation:
    sentence = f"{counted} {' or '.join(names)} by the counters of {final.uid}; {len(seen)} seen"
    moments = [moment for each in seen for moment in run.launch[each].moments()]
    return violation(PROMISE, sentence, [final.moment(), *moments])


def _was_there(launch: Launch) -> bool:
    return bool(launch.jobs or launch.executions) and launch.excused == inf


def _has_ended(run: Run, launch: Launch, final: Version) -> bool:
    """Whether its outcome must have been counted."""
    settle = 2 * final.interval + run.promised.slack
    known = run.must_end[launch.id] <= run.history.end - settle
    return known and _was_there(launch) and launch.id not in final.outstanding


def _possible(run: Run, launch: Launch) -> frozenset[str]:
    """The outcomes that it may be counted as; none while it is out."""
    if launch.excused < inf:
        return _ANY
    if run.may_end[launch.id] > run.history.end:
        return frozenset()
    told = _possible_of_job(run, launch) if launch.jobs else _possible_of_task(run, launch)
    # Whatever is said of it, a row that left has done its work.
    left = run.history.leaves(launch.uid, launch.row, launch.begun) < inf
    return told | {"succeeded"} if left else told


def _possible_of_job(run: Run, launch: Launch) -> frozenset[str]:
    job = launch.jobs[0]
    outcomes = set()
    if job.finished is not None:
        outcomes.add("succeeded" if job.outcome == "Complete" else "failed")
    if job.deleted is not None and not _was_booked(run, launch, job.deleted):
        outcomes.add("lost")
    return frozenset(outcomes) or _ANY


def _was_booked(run: Run, launch: Launch, deleted: float) -> bool:
    """Whether its ledger held no slot for it any more when its Job was deleted."""
    versions = run.history.versions_of[launch.uid or ""]
    before = [each for each in versions if each.time <= deleted - run.promised.slack]
    return bool(before) and launch.id not in before[-1].outstanding


def _possible_of_task(run: Run, launch: Launch) -> frozenset[str]:
    if any(_finished_for_good(run, launch, each) for each in launch.finals):
        return frozenset({"succeeded"})
    telling = run.promised.guard or run.promised.backend
    if telling and not run.history.faults and _has_just_failed(run, launch):
        return frozenset({"failed"})
    outcomes = {"lost", "failed"} if telling else {"lost"}
    if any(each.outcome == "succeeded" for each in launch.finals):
        outcomes.add("succeeded")
    return frozenset(outcomes)


def _finished_for_good(run: Run, launch: Launch, done: Execution) -> bool:
    left = run.history.leaves(launch.uid, launch.row, done.started)
    in_work = done.ended is not None and done.started < left <= done.ended
    back = run.history.returns(launch.uid, launch.row, left)
    return done.outcome == "succeeded" and in_work and back == inf


def _has_just_failed(run: Run, launch: Launch) -> bool:
    """Whether its one execution failed, in a process that lived on."""
    if len(launch.finals) != 1 or launch.finals[0].outcome != "failed":
        return False
    (execution,) = launch.finals
    deaths = run.history.deaths_of.get(execution.worker, ())
    return execution.ended is not None and not any(each >= execution.started for each in deaths)
