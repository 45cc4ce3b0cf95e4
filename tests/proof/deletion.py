"""Deleting a ScannerJob stops its launches."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """Nothing is launched for a ScannerJob that was deleted, but for what it had claimed before."""
    for uid, launches in run.launches_of.items():
        deleted = next(
            (each for each in run.history.versions_of.get(uid, ()) if each.deleted), None
        )
        for launch in launches if deleted else ():
            last = [message.moment() for message in launch.messages][-1:] or [launch.begin()]
            grace = run.promised.send_deadline + run.promised.slack
            if deleted and last[0].time > deleted.time + grace and last[0].time < launch.excused:
                sentence = f"{launch.id} is launched after its ScannerJob was deleted"
                yield violation("deletion stops launching", sentence, [deleted.moment(), *last])
