"""All Jobs that were seen, by whatever way: the watch, a list, or our own create."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import timedelta

from scannerjob.targets.job.view import JobView

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A Job, when this state of it was seen, and since when it is ending, or has ended."""

    job: JobView
    at: float
    ending_since: float | None
    ended_since: float | None


class SeenJobs:
    """The newest state seen of each Job of ours, filed by namespace and ScannerJob.

    What stands here may be late, never early: a Job that ended has ended. That one is *not* here
    proves nothing before a list that was made live has said so too.
    """

    def __init__(self) -> None:
        self._places: dict[Place, dict[str, _Entry]] = {}
        self._causes: dict[str, str] = {}
        self._counted: set[str] = set()

    def of(self, place: Place) -> list[JobView]:
        """The Jobs of one ScannerJob's name, those of its predecessors included."""
        return [entry.job for entry in self._places.get(place, {}).values()]

    def put(self, job: JobView) -> JobView | None:
        """Note this state unless a later one is known; gives the one that it takes the place of."""
        entries = self._places.setdefault(job.place, {})
        before = entries.get(job.name)
        if before is not None and not job.is_newer_than(before.job):
            return job
        if before is not None and before.job.uid != job.uid:
            self._forget(before.job.uid)
        entries[job.name] = _entry(job, before)
        return before.job if before else None

    def drop(self, job: JobView) -> None:
        """It is deleted. One of the same name that was created since stays."""
        entries = self._places.get(job.place, {})
        known = entries.get(job.name)
        if known is not None and known.job.uid == job.uid:
            del entries[job.name]
            self._forget(job.uid)
        if not entries:
            self._places.pop(job.place, None)

    def listed(self, place: Place, jobs: Iterable[JobView], began: float) -> None:
        """Note a live list that began at this time (time.monotonic): what it lacks is gone."""
        names = set()
        for job in jobs:
            self.put(job)
            names.add(job.name)
        for name, entry in list(self._places.get(place, {}).items()):
            if name not in names and entry.at < began:
                self.drop(entry.job)

    def ending_for(self, job: JobView) -> timedelta:
        """How long it has been seen to be ending; nothing where it is not."""
        entry = self._places.get(job.place, {}).get(job.name)
        return _time_since(entry.ending_since if entry else None)

    def ended_for(self, job: JobView) -> timedelta:
        """How long its end has been known here: what its status says of it is another's clock."""
        entry = self._places.get(job.place, {}).get(job.name)
        return _time_since(entry.ended_since if entry else None)

    def cause(self, job: JobView) -> str | None:
        """Why it failed, as was once told by its pods; empty if they told nothing."""
        return self._causes.get(job.uid)

    def note_cause(self, job: JobView, cause: str) -> None:
        """Remember why it failed as long as it is there."""
        entry = self._places.get(job.place, {}).get(job.name)
        if entry is not None and entry.job.uid == job.uid:
            self._causes[job.uid] = cause

    def count(self, jobs: Collection[JobView]) -> None:
        """Their end is in the ledger, and no send of them can still be on its way."""
        self._counted |= {job.uid for job in jobs}

    def is_counted(self, job: JobView) -> bool:
        """Whether that is known of it; not after a restart."""
        return job.uid in self._counted

    def _forget(self, uid: str) -> None:
        self._causes.pop(uid, None)
        self._counted.discard(uid)


def _entry(job: JobView, before: _Entry | None) -> _Entry:
    now = time.monotonic()
    ending_since = ended_since = None
    if before is not None and before.job.uid == job.uid:
        ending_since, ended_since = before.ending_since, before.ended_since
    return _Entry(
        job,
        at=now,
        ending_since=(ending_since or now) if job.ending else None,
        ended_since=(ended_since or now) if job.end else None,
    )


def _time_since(begin: float | None) -> timedelta:
    return timedelta(0) if begin is None else timedelta(seconds=time.monotonic() - begin)
