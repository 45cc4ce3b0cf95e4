"""No row is executed twice at once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from tests.proof.history import Execution
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """There are never two executions of one row at once.

    Two of the same launch count only where one is promised; the pods of one Job are Kubernetes'.
    """
    for (_, row), launches in run.rows.items():
        runs = [(each, launch) for launch in launches for each in launch.executions]
        runs.sort(key=lambda pair: pair[0].started)
        for (first, former), (second, latter) in combinations(runs, 2):
            same = former.id == latter.id and not run.promised.executes_once
            if not same and _overlap(run, first, former, second, latter):
                moments = [*first.moments(), *second.moments()]
                yield violation("one at a time", f"row {row} is executed twice at once", moments)


def _overlap(run: Run, first: Execution, former: Launch, second: Execution, latter: Launch) -> bool:
    excused = min(former.excused, latter.excused) <= second.started
    return not excused and second.started < run.endings.over(former, first)
