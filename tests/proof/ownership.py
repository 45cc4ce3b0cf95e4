"""A ledger tells of its own ScannerJob's launches only."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.history import Job, Moment, Version
from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """A ledger item never refers to something of another uid.

    Neither to what another ledger has, nor to a Job that was another's before.
    """
    first: dict[str, Version] = {}
    told: set[tuple[str, str]] = set()
    for version in run.history.versions:
        for item in version.items:
            launch = item["id"]
            if (launch, version.uid) in told or run.is_excused(version.uid):
                continue
            told.add((launch, version.uid))
            owner = first.setdefault(launch, version)
            foreign = [
                job for job in run.history.jobs_of.get(launch, ()) if _is_foreign(job, version)
            ]
            if owner.uid != version.uid:
                yield _stolen(version, launch, owner.uid, owner.moment())
            elif foreign:
                yield _stolen(version, launch, foreign[0].owner or "", next(foreign[0].moments()))


def _is_foreign(job: Job, version: Version) -> bool:
    return job.owner not in (None, version.uid) and job.created <= version.time


def _stolen(version: Version, launch: str, owner: str, proof: Moment) -> Violation:
    sentence = f"the ledger of {version.uid} has {launch}, which is {owner}'s"
    return violation("a ledger is its own", sentence, [proof, version.moment()])
