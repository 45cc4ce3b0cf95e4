"""From a spec's references to what they stand for: what Secrets hold becomes connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scannerjob.access import Access, access_to
from scannerjob.logs import hide
from scannerjob.model.spec import Connection, ScannerJobSpec
from scannerjob.ports import ConfigurationError, Connections, Ref, Snapshot, naming
from scannerjob.secrets import Secrets
from scannerjob.sources import Databases, SqlSource
from scannerjob.targets.job import JobTargets

if TYPE_CHECKING:
    from scannerjob.targets.celery import Brokers, CeleryTarget


@dataclass(frozen=True)
class _Accesses:
    """What the Secrets of a spec hold; no broker for Jobs."""

    database: Access
    broker: Access | None
    results: Access | None
    guard: Access | None

    @property
    def urls(self) -> list[str]:
        places = (self.database, self.broker, self.results, self.guard)
        return [each.url for each in places if each]


@dataclass(frozen=True)
class _Opened:
    """What was opened, and for which object, spec and contents of Secrets."""

    uid: str
    spec: ScannerJobSpec
    accesses: _Accesses
    connections: Connections

    @property
    def made_from(self) -> tuple[str, ScannerJobSpec, _Accesses]:
        return self.uid, self.spec, self.accesses


def _nobody(ref: Ref) -> None:
    pass


class SecretConnector:
    """Connects every ScannerJob to what its Secrets name; equal ones share their pools.

    Secrets are asked for at each `connect`, so that a rotated one is used without a restart; what
    is open stays open as long as the spec and what they hold are the same. `in_cluster` refuses
    what belongs to one machine (files) or is too powerful (a superuser's role). Without `jobs`
    there is no cluster to launch Jobs in.

    `wake` is called, in any thread, for a ScannerJob of which a launch may have ended.
    """

    def __init__(
        self, secrets: Secrets, *, in_cluster: bool, jobs: JobTargets | None = None
    ) -> None:
        self.wake: Callable[[Ref], None] = _nobody
        self._secrets = secrets
        self._in_cluster = in_cluster
        self._jobs = jobs
        self._databases = Databases(in_cluster=in_cluster)
        self._brokers: Brokers | None = None
        self._opened: dict[Ref, _Opened] = {}

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        """The source and target of this spec. Raises ConfigurationError naming field and Secret."""
        accesses = await self._accesses(snapshot.ref, spec)
        hide(snapshot.ref, *accesses.urls)
        opened = self._opened.get(snapshot.ref)
        made_from = (snapshot.uid, spec, accesses)
        if opened is None or opened.made_from != made_from:
            opened = _Opened(*made_from, self._open(snapshot, spec, accesses))
            self._opened[snapshot.ref] = opened
        return opened.connections

    def forget(self, ref: Ref) -> None:
        """Close what is open for this ScannerJob, and keep nothing that its Secrets held."""
        self.reread(ref)
        self._opened.pop(ref, None)
        hide(ref)

    def reread(self, ref: Ref) -> None:
        """Read its Secrets anew. What is open stays open, if they hold the same."""
        if opened := self._opened.get(ref):
            for name in _secrets_of(opened.spec):
                self._secrets.forget(ref.namespace, name)

    async def close(self) -> None:
        """Close all pools and threads."""
        self._opened.clear()
        if self._brokers:
            self._brokers.close()
        self._databases.close()

    def _open(self, snapshot: Snapshot, spec: ScannerJobSpec, accesses: _Accesses) -> Connections:
        source = self._open_database(accesses.database, spec)
        if accesses.broker:
            wake = partial(self._wake, snapshot.ref)
            target = self._open_broker(accesses.broker, accesses, spec, wake)
            return Connections(source, target)
        if self._jobs is None:
            raise ConfigurationError(
                "NotSupported", "spec.job: Kubernetes Jobs are launched by the operator only"
            )
        return Connections(source, self._jobs.open(snapshot, spec))

    def _wake(self, ref: Ref) -> None:
        self.wake(ref)

    def _open_database(self, database: Access, spec: ScannerJobSpec) -> SqlSource:
        with naming("spec.database"):
            return self._databases.open(database.url, spec, database.files)

    def _open_broker(
        self,
        broker: Access,
        accesses: _Accesses,
        spec: ScannerJobSpec,
        wake: Callable[[], None],
    ) -> CeleryTarget:
        if self._brokers is None:
            # Who launches Jobs alone does not wait for Celery's import at each start.
            from scannerjob.targets.celery import Brokers

            self._brokers = Brokers(local_files=not self._in_cluster)
        results, guard = accesses.results, accesses.guard
        return self._brokers.open(
            broker.url,
            results.url if results else None,
            spec,
            wake,
            guard_url=guard.url if guard else None,
            broker_files=broker.files,
            result_backend_files=results.files if results else None,
            guard_files=guard.files if guard else None,
        )

    async def _accesses(self, ref: Ref, spec: ScannerJobSpec) -> _Accesses:
        celery = spec.celery
        database = await self._access(ref, "spec.database", spec.database)
        if celery is None:
            return _Accesses(database, None, None, None)
        return _Accesses(
            database,
            await self._access(ref, "spec.celery.broker", celery.broker),
            await self._access_if(ref, "spec.celery.resultBackend", celery.result_backend),
            await self._access_if(ref, "spec.celery.guard", celery.guard),
        )

    async def _access_if(
        self, ref: Ref, field: str, connection: Connection | None
    ) -> Access | None:
        return await self._access(ref, field, connection) if connection else None

    async def _access(self, ref: Ref, field: str, connection: Connection) -> Access:
        return await access_to(connection, field, ref, self._secrets)


def _secrets_of(spec: ScannerJobSpec) -> Iterator[str]:
    celery = spec.celery
    of_celery = [celery.broker, celery.result_backend, celery.guard] if celery else []
    for connection in filter(None, (spec.database, *of_celery)):
        yield connection.url_secret_ref.name
        if connection.tls_secret_ref:
            yield connection.tls_secret_ref.name
