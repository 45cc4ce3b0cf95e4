"""A row is never launched while a launch of it is outstanding."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """A row key is never launched anew while a launch for it is outstanding."""
    for (_, row), launches in run.rows.items():
        for position, launch in enumerate(launches):
            out = [each for each in launches[:position] if run.may_end[each.id] > launch.begun]
            if out and run.may_end[launch.id] > launch.begun:
                sentence = f"row {row} is launched as {launch.id} while {out[0].id} is out"
                yield violation(
                    "once while outstanding", sentence, [*out[0].moments(), launch.begin()]
                )
