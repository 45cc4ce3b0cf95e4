"""A row that is finished is not launched again."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.history import Execution
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """A row which left the query during an execution that succeeded is finished.

    It is not launched again unless it comes back. That its launch was still out when it left is
    part of it: what was given up before, a message delivered again after its end for instance, is
    no promise of the operator's.
    """
    for launches in run.rows.values():
        for position, launch in enumerate(launches):
            for former in launches[:position]:
                if (done := _finished(run, former, launch)) is not None:
                    yield _again(run, former, done, launch)
                    break


def _finished(run: Run, former: Launch, launch: Launch) -> Execution | None:
    """The execution of a former launch that had finished its row for good before this launch."""
    if former.excused <= launch.begun or not run.history.matches(former.uid, former.row):
        return None
    return next((each for each in former.finals if _finishes(run, former, each, launch)), None)


def _finishes(run: Run, former: Launch, done: Execution, launch: Launch) -> bool:
    if done.outcome != "succeeded" or done.ended is None:
        return False
    left = run.history.leaves(former.uid, former.row, done.started)
    back = run.history.returns(former.uid, former.row, left)
    in_work = done.started < left <= done.ended and left <= run.may_end[former.id]
    # A message that was claimed before may only come late.
    claims = run.history.claims.get(launch.id)
    claimed = claims[0].time if claims else launch.begun
    return in_work and left < min(claimed, launch.begun) and launch.begun < back


def _again(run: Run, former: Launch, done: Execution, launch: Launch) -> Violation:
    left = run.history.leaves(former.uid, former.row, done.started)
    match = next(m for m in run.history.matches(former.uid, former.row) if m.until == left)
    sentence = f"row {launch.row} is launched as {launch.id} though {former.id} had finished it"
    moments = [*match.moments(), former.begin(), *done.moments(), launch.begin()]
    return violation("no relaunch of finished rows", sentence, moments)
