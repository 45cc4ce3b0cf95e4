"""The Job target of one ScannerJob."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from scannerjob.clock import boottime
from scannerjob.model.facts import (
    Fact,
    Hold,
    Observation,
    Send,
    Sightings,
    Stray,
    TargetTraits,
)
from scannerjob.model.ledger import Item
from scannerjob.model.row import UnusableRow
from scannerjob.model.spec import JobTarget as JobSpec
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import PortError, RefusedError, TargetError, UnreachedError
from scannerjob.targets.job.api import JobsApi
from scannerjob.targets.job.history import ended, removable, surplus
from scannerjob.targets.job.manifest import Owner, manifest, specimen, ttl_seconds
from scannerjob.targets.job.names import NAME, UID, label_value
from scannerjob.targets.job.outcomes import alive, causes, observation
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.view import JobView, view

log = logging.getLogger(__name__)

# Jobs that are created or removed at a time. The API server serves some hundred calls at once, and
# others need it too.
_AT_A_TIME = 32
# Watches get lost without a word.
_LIST_EVERY = 60.0
# The rest is removed after the next cycle.
_REMOVED_PER_CYCLE = 100
_MAX_NAMED = 5
# What the API server answers to a Job that it does not take as it is written.
_NOT_AS_WRITTEN = (400, 413, 422)


class JobTarget:
    """Launches each row as one Kubernetes Job whose name is its launch's; a `ports.Target`.

    The name is the record: as long as the Job is there, the same launch cannot be created again.
    """

    def __init__(
        self, api: JobsApi, seen: SeenJobs, owner: Owner, spec: ScannerJobSpec, job: JobSpec
    ) -> None:
        self._api = api
        self._seen = seen
        self._owner = owner
        self._spec = spec
        self._job = job
        self._place = (owner.namespace, label_value(owner.name))
        self._listed_at: float | None = None
        self._alone = False
        self._cleaning: asyncio.Task[None] | None = None
        self._gate = asyncio.Semaphore(_AT_A_TIME)

    @property
    def traits(self) -> TargetTraits:
        """A Job can be created again for ever: one that is there, is found by its name."""
        return TargetTraits(tells_outcomes=True, resend_within=timedelta.max, sees_all=True)

    @property
    def endpoints(self) -> Mapping[str, str]:
        """Jobs are where their ScannerJob is: there is no other endpoint."""
        return {"kubernetes": "jobs"}

    async def check(self) -> None:
        """Have the API server check the template by a dry run. Raises TargetError.

        InvalidTemplate names the fields that the API server does not take, misspelt ones included.
        """
        try:
            await self._api.try_out(specimen(self._owner, self._spec))
        except RefusedError as error:
            raise _unusable(error) from None
        except PortError as error:
            raise TargetError(error.reason, str(error)) from None

    # What is there.

    async def observe(self, ids: Collection[str]) -> Sightings:
        """What the watch told of these Jobs; those it did not tell of are looked for live.

        Raises TargetError where the API server does not answer.
        """
        try:
            return await self._observe(set(ids))
        except PortError as error:
            # What happened meanwhile, no watch may have told.
            self._listed_at = None
            raise TargetError(error.reason, str(error)) from None

    async def _observe(self, ids: set[str]) -> Sightings:
        there = await self._list() if self._should_list(ids) else set()
        jobs = {job.launch: job for job in self._mine() if job.launch in ids}
        await self._find_causes([job for job in jobs.values() if job.end == "Failed"])
        now = datetime.now(UTC)
        seen = {
            launch: observation(job, self._seen.cause(job), self._seen.ending_for(job), now)
            for launch, job in jobs.items()
        }
        missing = await self._missing(ids - jobs.keys())
        # A watch that is late may tell of one that ended, was counted and removed since.
        strays = tuple(_stray(job) for job in self._strays(ids) if job.uid in there)
        return Sightings({**seen, **missing}, strays, await self._predecessors())

    def _should_list(self, ids: set[str]) -> bool:
        """Whether what was seen does not answer the question, or may have become too old."""
        if self._listed_at is None:
            return True
        known = {job.launch for job in self._mine()}
        too_old = time.monotonic() - self._listed_at > _LIST_EVERY
        waited_for = ids or not self._alone
        return bool(ids - known or self._strays(ids) or (waited_for and too_old))

    async def _list(self) -> set[str]:
        """Ask what is there; gives the UIDs of what is."""
        namespace, label = self._place
        began = time.monotonic()
        found = await self._api.find(namespace, f"{NAME}={label},{UID}")
        jobs = [view(job) for job in found]
        self._seen.listed(self._place, jobs, began)
        self._listed_at = began
        return {job.uid for job in jobs}

    def _mine(self) -> list[JobView]:
        return [job for job in self._seen.of(self._place) if job.owner == self._owner.uid]

    async def _find_causes(self, failed: Sequence[JobView]) -> None:
        unknown = [job for job in failed if self._seen.cause(job) is None]
        if not unknown:
            return
        launches = [job.launch for job in unknown]
        found = causes(await self._api.pods_of(self._owner.namespace, launches))
        for job in unknown:
            self._seen.note_cause(job, found.get(job.launch, ""))

    async def _missing(self, ids: set[str]) -> dict[str, Observation]:
        """Of Jobs that a live list did not show: a pod of a deleted Job may go on for a while."""
        if not ids:
            return {}
        running = alive(await self._api.pods_of(self._owner.namespace, ids))
        return {
            launch: Observation(
                Fact.ACCEPTED, f"its Job was deleted, but pod {running[launch]} runs"
            )
            if launch in running
            else Observation(Fact.GONE, "JobDeleted")
            for launch in ids
        }

    def _strays(self, ids: set[str]) -> list[JobView]:
        return [job for job in self._mine() if not job.end and job.launch not in ids]

    async def _predecessors(self) -> Hold | None:
        """Whether Jobs of an earlier ScannerJob of this name may be at work on the same rows.

        Once there are none, there will be none: nobody is left to create them. The garbage
        collector removes a Job before its pods have ended.
        """
        if self._alone:
            return None
        names = [f"Job {job.name}" for job in self._others() if not job.end]
        if not names:
            _, label = self._place
            selector = f"{NAME}={label},{UID},{UID}!={self._owner.uid}"
            pods = await self._api.pods(self._owner.namespace, selector)
            names = [f"pod {name}" for name in alive(pods).values()]
        self._alone = not names
        return _predecessor_runs(sorted(names)) if names else None

    def _others(self) -> list[JobView]:
        uid = self._owner.uid
        return [job for job in self._seen.of(self._place) if job.labelled_owner != uid]

    # Launching.

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        """Create one Job per send, none after `deadline`; says of each what is known."""
        seen = await asyncio.gather(*(self._launch(send, deadline) for send in sends))
        outcomes = {send.item.id: each for send, each in zip(sends, seen, strict=True)}
        return await self._blamed(outcomes)

    async def _launch(self, send: Send, deadline: float) -> Observation:
        try:
            job = manifest(self._owner, self._spec, send)
        except UnusableRow as error:
            return Observation(Fact.REFUSED, str(error))
        except TargetError as error:
            return Observation(Fact.NOT_SENT, str(error))
        async with self._gate:
            try:
                if send.item.sends > 1 and await self._runs_on(send.item.id):
                    return Observation(Fact.UNCERTAIN, "a pod of its deleted Job runs")
                if boottime() >= deadline:
                    return Observation(Fact.NOT_SENT, "it was too late to send it")
                return await self._create(job, send.item)
            except UnreachedError as error:
                return Observation(Fact.NOT_SENT, str(error))
            except PortError as error:
                return Observation(Fact.UNCERTAIN, str(error))

    async def _runs_on(self, launch: str) -> bool:
        """Whether a Job that was created before, and deleted, has left a pod at work."""
        return launch in alive(await self._api.pods_of(self._owner.namespace, [launch]))

    async def _create(self, job: Mapping[str, Any], item: Item) -> Observation:
        # A crash here, or a lost reply: the Job is there or not. The next look finds it by its
        # label, and a second create stumbles over its name.
        try:
            created = view(await self._api.create(job))
        except RefusedError as error:
            if error.status == 409:
                return await self._existing(job["metadata"]["name"], item, error)
            fact = Fact.REFUSED if error.status in _NOT_AS_WRITTEN else Fact.NOT_SENT
            return Observation(fact, str(error))
        self._seen.put(created)
        return Observation(Fact.ACCEPTED)

    async def _existing(self, name: str, item: Item, conflict: RefusedError) -> Observation:
        """There is a Job of this name: an earlier send of the same launch, or somebody else's."""
        try:
            job = view(await self._api.get(self._owner.namespace, name))
        except RefusedError as error:
            if error.status == 404:
                # The conflict was over something else: a quota that changed meanwhile, mostly.
                return Observation(Fact.NOT_SENT, str(conflict))
            return Observation(Fact.UNCERTAIN, str(error))
        if job.owner != self._owner.uid or job.launch != item.id:
            # To send it again would only put off when its slot is free: 15 minutes after the last.
            fact = Fact.NOT_SENT if item.sends == 1 else Fact.REFUSED
            return Observation(fact, f"NameConflict: Job {name} is not of this launch")
        self._seen.put(job)
        return Observation(Fact.ACCEPTED)

    async def _blamed(self, outcomes: dict[str, Observation]) -> Mapping[str, Observation]:
        """A refusal is the row's own only where a Job without a row would be taken."""
        refused = [i for i, seen in outcomes.items() if seen.fact is Fact.REFUSED]
        try:
            if refused:
                await self.check()
            return outcomes
        except TargetError as error:
            others = dict.fromkeys(refused, Observation(Fact.NOT_SENT, str(error)))
            return {**outcomes, **others}

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        """Nothing can be done about a late create: such a claim is kept until none can come."""
        return {}

    # What is left.

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        """Remove Jobs beyond the history limits, in the background; see `history`."""
        mine = self._mine()
        # A resend may be on its way still, though the Job is there: its name stays.
        sent_once = {item.id for item in settled if item.sends == 1}
        self._seen.count([job for job in mine if job.end and job.launch in sent_once])
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = self._begin_cleaning(ended(mine, outstanding))

    def _begin_cleaning(self, jobs: Sequence[JobView]) -> asyncio.Task[None] | None:
        free = {job.name: job for job in removable(jobs, self._seen)}
        gone = [job for job in surplus(jobs, self._job) if job.name in free]
        calls: list[Awaitable[None]] = [self._remove(job) for job in gone[:_REMOVED_PER_CYCLE]]
        if (seconds := ttl_seconds(self._spec)) is not None:
            kept = free.keys() - {job.name for job in gone}
            calls += [
                self._let_expire(free[name], seconds) for name in kept if free[name].ttl is None
            ]
        return asyncio.create_task(_all(calls)) if calls else None

    async def _remove(self, job: JobView) -> None:
        async with self._gate:
            if await _tried(self._api.delete(job)):
                self._seen.drop(job)

    async def _let_expire(self, job: JobView, seconds: int) -> None:
        async with self._gate:
            await _tried(self._api.let_expire(job, seconds))


async def _all(calls: Sequence[Awaitable[None]]) -> None:
    await asyncio.gather(*calls)


async def _tried(call: Awaitable[None]) -> bool:
    """Whether it was done, or is not there any more; else it is tried again after another cycle."""
    try:
        await call
        return True
    except RefusedError as error:
        # Changed meanwhile, if it is a conflict: the watch will say so.
        if error.status not in (404, 409):
            log.warning("%s", error)
        return error.status == 404
    except (PortError, RuntimeError) as error:
        # At the end of all its client is closed, which aiohttp says by a RuntimeError.
        log.info("%s", error)
        return False


def _stray(job: JobView) -> Stray:
    return Stray(job.launch, job.key, job.attempt, job.created, f"Job {job.name}")


def _predecessor_runs(names: Sequence[str]) -> Hold:
    more = f" and {len(names) - _MAX_NAMED} more" if len(names) > _MAX_NAMED else ""
    return Hold(
        "PredecessorRuns",
        "work of an earlier ScannerJob of this name has not ended: "
        f"{', '.join(names[:_MAX_NAMED])}{more}; nothing is launched until it has, or is deleted",
    )


def _unusable(error: RefusedError) -> TargetError:
    if error.status not in _NOT_AS_WRITTEN:
        return TargetError("LaunchRefused", str(error))
    if not error.causes:
        return TargetError("InvalidTemplate", f"spec.job.template: {error.told}")
    told = "; ".join(f"spec.job.template.{field}: {why}" for field, why in error.causes)
    return TargetError("InvalidTemplate", told)
