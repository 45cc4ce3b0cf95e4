"""Which Jobs that ended may be removed, and which are kept for people to look at."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta

from scannerjob.model.limits import LATEST_SEND, RESEND_AFTER_LOOK
from scannerjob.model.spec import JobTarget
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.view import JobView

# A Job's name is what a late create of the same launch stumbles over. A resend is claimed soon
# after the look that did not find the Job, and on its way for LATEST_SEND at most.
_KEEP_NAME = LATEST_SEND + RESEND_AFTER_LOOK + timedelta(minutes=1)


def ended(jobs: Iterable[JobView], outstanding: Collection[str]) -> list[JobView]:
    """The Jobs whose end is in the ledger: they ended, and their launches hold no slot any more."""
    return [job for job in jobs if job.end and job.launch not in outstanding]


def removable(jobs: Iterable[JobView], seen: SeenJobs) -> list[JobView]:
    """Those of them whose name need not stand in the way of a late create.

    A launch that was sent once and is there has arrived: nothing of it is on its way. Of others,
    and of those that a process before this one counted, that is known after a while: by this
    process, since its wall clock and the one that dated the end may be hours apart.
    """
    return [job for job in jobs if seen.is_counted(job) or seen.ended_for(job) > _KEEP_NAME]


def surplus(jobs: Collection[JobView], job: JobTarget) -> Iterator[JobView]:
    """The Jobs beyond those that are to be kept: the last ones to end, of either outcome."""
    limits = {
        "Complete": job.successful_jobs_history_limit,
        "Failed": job.failed_jobs_history_limit,
    }
    for end, limit in limits.items():
        found = [each for each in jobs if each.end == end]
        yield from sorted(found, key=lambda each: (each.changed, each.name), reverse=True)[limit:]
