"""The real Job target in the world: its API server, its clocks and its tasks are the world's."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from scannerjob.model.facts import Observation, Send
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import RefusedError, Snapshot, UnknownOutcomeError, UnreachedError
from scannerjob.targets.job import history, seen, target, targets
from scannerjob.targets.job.names import LAUNCH
from scannerjob.targets.job.target import JobTarget
from scannerjob.targets.job.targets import JobTargets
from scannerjob.targets.job.view import JobView, view
from tests.model.basics import NETWORK_DELAY, Fault, Pause
from tests.model.cluster import PREDECESSOR, Cluster, Document, Watch

if TYPE_CHECKING:
    from tests.model.world import World


class Task:
    """What an operator does beside its cycle, one step at a time."""

    def __init__(self, work: Coroutine[str, Fault, None]) -> None:
        self._work = work
        self._done = False
        self.step(None)

    def done(self) -> bool:
        return self._done

    def step(self, fault: Fault | None) -> None:
        """Go on to the next point where it waits for something."""
        try:
            self._work.send(fault)  # type: ignore[arg-type]  # None starts it
        except StopIteration:
            self._done = True

    def close(self) -> None:
        self._work.close()


class Process:
    """What one operator's process sees of Jobs, and does about them in the background."""

    def __init__(self, world: World) -> None:
        self.watch = Watch()
        world.cluster.watches.append(self.watch)
        self._world = world
        self._targets = JobTargets(cast(Any, None))
        self._opened: tuple[str, ScannerJobSpec, JobTarget] | None = None
        self.tasks: list[Task] = []

    def open(self, snapshot: Snapshot, spec: ScannerJobSpec) -> JobTarget:
        """The target of this spec; the same one until it is forgotten."""
        if self._opened is None or self._opened[:2] != (snapshot.uid, spec):
            self._opened = (snapshot.uid, spec, self._targets.open(snapshot, spec))
        return self._opened[2]

    def forget(self) -> None:
        self._opened = None

    def be_told(self, events: int) -> None:
        """The watch tells of what happened."""
        told, self.watch.events[:] = self.watch.events[:events], self.watch.events[events:]
        for event, job in told:
            self._world.note(f"... it is told: {event} {job['metadata']['labels'][LAUNCH]}")
            self._targets.seen(event, job)

    def step(self, fault: Fault = Fault.NONE) -> None:
        """Let the oldest task go on."""
        self.tasks = [task for task in self.tasks if not task.done()]
        if self.tasks:
            self.tasks[0].step(fault)

    def finish(self) -> None:
        """Let all tasks end."""
        while self.tasks:
            self.step()

    def close(self) -> None:
        """It is killed."""
        self._world.cluster.watches.remove(self.watch)
        for task in self.tasks:
            task.close()


class Api:
    """Stands in for JobsApi: every call may fail, before or after it had its effect."""

    def __init__(self, world: World, cluster: Cluster) -> None:
        self._world = world
        self._cluster = cluster

    async def create(self, job: Document) -> Document:
        launch = job["metadata"]["labels"][LAUNCH]
        sent = self._world.now
        fault = await Pause(f"jobs.create {launch}")
        if fault is Fault.REFUSED:
            raise UnreachedError("APIServerUnreachable", "no connection")
        if self._world.now > sent + NETWORK_DELAY:
            _no_answer()
        pod = self._cluster.pod_of(job)
        invalid = self._is_invalid(pod.row)
        if fault is Fault.LATE and not invalid:
            self._cluster.delay(job, pod)
        if fault in (Fault.LOST, Fault.LATE):
            _no_answer()
        created = None if invalid else self._cluster.create(job, pod)
        await Pause("jobs.create: answered")
        if fault is Fault.LANDED:
            _no_answer()
        if invalid:
            raise RefusedError(422, "Invalid", "the value is not taken")
        if created is None:
            raise RefusedError(409, "Conflict", "it exists")
        return created

    def _is_invalid(self, row: str) -> bool:
        return row in list(self._world.rows)[: self._world.setup.refused]

    async def try_out(self, job: Document) -> None:
        await self._may_fail("jobs.try_out")

    async def get(self, namespace: str, name: str) -> Document:
        await self._may_fail("jobs.get")
        found = self._cluster.named(name)
        await Pause("jobs.get: answered")
        if found is None:
            raise RefusedError(404, "NotFound", "there is none")
        return found

    async def find(self, namespace: str, selector: str) -> list[Document]:
        await self._may_fail("jobs.find")
        found = self._cluster.found()
        await Pause("jobs.find: answered")
        return found

    async def pods(self, namespace: str, selector: str) -> list[Document]:
        """Asked for those of an earlier ScannerJob only."""
        return await self.pods_of(namespace, [PREDECESSOR])

    async def pods_of(self, namespace: str, launches: Collection[str]) -> list[Document]:
        await self._may_fail("jobs.pods")
        found = self._cluster.pods(launches)
        await Pause("jobs.pods: answered")
        return found

    async def delete(self, job: JobView) -> None:
        fault = await Pause("jobs.delete")
        if fault in (Fault.NONE, Fault.LANDED, Fault.STALE):
            self._cluster.remove(self._unchanged(job, job.version))
        await _answered(fault)

    async def let_expire(self, job: JobView, seconds: int) -> None:
        fault = await Pause("jobs.let_expire")
        if fault in (Fault.NONE, Fault.LANDED, Fault.STALE):
            self._cluster.expire(self._unchanged(job, None), seconds)
        await _answered(fault)

    def _unchanged(self, job: JobView, version: str | None) -> str:
        there = self._cluster.jobs.get(job.name)
        if there is None:
            raise RefusedError(404, "NotFound", "there is none")
        now = view(there.document)
        if now.uid != job.uid or version not in (None, now.version):
            raise RefusedError(409, "Conflict", "it has changed")
        return job.name

    async def _may_fail(self, where: str) -> None:
        if await Pause(where) not in (Fault.NONE, Fault.STALE):
            self._world.acting().failed = True
            _no_answer()


async def _answered(fault: Fault) -> None:
    await Pause("jobs: answered")
    if fault not in (Fault.NONE, Fault.STALE):
        _no_answer()


def _no_answer() -> NoReturn:
    raise UnknownOutcomeError("APIServerUnreachable", "no answer")


class _Target(JobTarget):
    """A Job target whose launches are judged."""

    def __init__(self, world: World, *of: Any) -> None:
        super().__init__(*of)
        self._world = world

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        self._world.judge_sends(sends)
        return await super().launch(sends, deadline)


def install(patch: pytest.MonkeyPatch, world: World) -> None:
    """Let Job targets live in this world, until that is undone: in one world at a time."""
    if target.asyncio is not asyncio:  # type: ignore[attr-defined]  # imported, not exported
        raise RuntimeError("another world was not closed")
    time = SimpleNamespace(monotonic=world.monotonic)
    tasks = SimpleNamespace(
        gather=_gather, Semaphore=asyncio.Semaphore, create_task=partial(_begin, world)
    )
    patch.setattr(targets, "JobsApi", lambda client: Api(world, world.cluster))
    patch.setattr(targets, "JobTarget", partial(_Target, world))
    patch.setattr(seen, "time", time)
    patch.setattr(target, "time", time)
    patch.setattr(target, "asyncio", tasks)
    # In modules that do not ask for it now, too: one that comes to do so lives by this clock.
    for module in (target, history):
        patch.setattr(module, "datetime", _Datetime(world), raising=False)
    patch.setattr(target, "boottime", lambda: world.boottime)


async def _gather(*calls: Coroutine[Any, Any, Any]) -> list[Any]:
    """One after another: the world's steps are all that happens at the same time."""
    try:
        return [await call for call in calls]
    finally:
        for call in calls:
            call.close()


def _begin(world: World, work: Coroutine[str, Fault, None]) -> Task:
    task = Task(work)
    world.acting().jobs.tasks.append(task)
    return task


class _Datetime:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self, zone: tzinfo) -> datetime:
        return (self._world.now + self._world.ahead).astimezone(zone)
