"""Nothing is launched that was not written down before."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """Every launch stands in its ScannerJob's ledger before it is sent.

    Not judged where no ledger was watched: without a cluster there is none to be seen.
    """
    for launch in run.launches:
        if _must_have_been_seen(run, launch) and not _was_claimed(run, launch):
            sentence = f"{launch.id} is launched, and no ledger had claimed it"
            yield violation("recorded before it is launched", sentence, [launch.begin()])


def _must_have_been_seen(run: Run, launch: Launch) -> bool:
    begin = launch.begun - run.promised.send_deadline - run.promised.slack
    end = launch.begun + run.promised.slack
    versions = run.history.versions
    watched = bool(versions) and versions[0].time <= launch.begun and end <= run.history.end
    unseen = run.history.has_gap("scannerjobs", begin=begin, end=end)
    owned = not launch.jobs or launch.uid in run.history.versions_of
    return watched and owned and not unseen and launch.excused == inf


def _was_claimed(run: Run, launch: Launch) -> bool:
    claims = run.history.claims.get(launch.id, ())
    return any(each.time <= launch.begun + run.promised.slack for each in claims)
