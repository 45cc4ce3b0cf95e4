"""What the operator is made of: a client, a store, a connector and the engine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob import apiserver
from scannerjob.apisecrets import KubernetesSecrets
from scannerjob.apiserver import TIMEOUT, asking
from scannerjob.connect import SecretConnector
from scannerjob.controller.elector import CALL_WITHIN, LEASE_SECONDS, Elector
from scannerjob.controller.events import EventRecorder
from scannerjob.controller.lease import LeaseStore, own_namespace
from scannerjob.controller.options import Options
from scannerjob.controller.resync import Resync
from scannerjob.controller.watched import WatchedStore
from scannerjob.engine import Engine
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import ConfigurationError, Ref, RefusedError
from scannerjob.stores.kubernetes import KubernetesStore
from scannerjob.targets.job import JobTargets

log = logging.getLogger(__name__)

# How long a stop waits for cycles under way before it gives the Lease back.
_HAND_OVER_WITHIN = 2.0


@dataclass(frozen=True)
class Operator:
    """One operator process; it is told what the watches see by kopf's handlers.

    Without an elector it always works.
    """

    engine: Engine
    jobs: JobTargets
    resync: Resync
    resync_runs: bool
    elector: Elector | None
    _events: EventRecorder
    _store: WatchedStore
    _apis: Sequence[ApiClient]
    _connector: SecretConnector
    _background: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def open(cls, options: Options) -> Operator:
        """Connect to the API server, and begin.

        Raises ConfigurationError if it knows no ScannerJobs.
        """
        api = await apiserver.connect()
        try:
            await require_crd(api)
        except BaseException:
            await close(api)
            raise
        jobs = JobTargets(api)
        store = WatchedStore(KubernetesStore(api))
        connector = SecretConnector(KubernetesSecrets(api), in_cluster=True, jobs=jobs)
        events = EventRecorder(api)
        engine = Engine(store, connector, recorder=events)
        connector.wake = engine.wake_from_thread
        resync = Resync(api, store, engine.wake, options.namespaces or ())
        # Connections of its own: when all others are busy, the Lease must not wait for one.
        apis = [api, await apiserver.connect()]
        elector = _elector(apis[1], engine, options) if options.leader_election else None
        # Where it is not known which namespaces are watched, a lost watch cannot be told.
        known = options.namespaces is not None
        operator = cls(engine, jobs, resync, known, elector, events, store, apis, connector)
        operator._begin()
        return operator

    def seen(self, document: Mapping[str, Any]) -> None:
        """The watch has shown this ScannerJob."""
        self._store.seen(document)
        self.resync.shown(_ref(document), document["metadata"]["resourceVersion"])

    def gone(self, document: Mapping[str, Any]) -> None:
        """The watch has shown that this ScannerJob was deleted."""
        self._store.gone(document)
        self.resync.gone(_ref(document))
        self.engine.forget(_ref(document))

    def has_seen_all(self) -> bool:
        """Whether the watch has shown all there is, as far as that can be known."""
        return self.resync.complete() or not self.resync_runs

    async def close(self) -> None:
        """Stop launching, write down what is known of what was launched, and close everything.

        Most cycles under way end within a moment, and then whoever takes over finds no claim in
        doubt. One that hangs does not keep the Lease from them: a cycle that ends late has its
        compare-and-swap, as any other.
        """
        closing = asyncio.create_task(self.engine.close())
        await asyncio.wait([closing], timeout=_HAND_OVER_WITHIN)
        for task in self._background:
            task.cancel()
        if self.elector:
            await self.elector.release()
        await closing
        await self._events.close()
        await self._connector.close()
        for api in self._apis:
            await close(api)

    def _begin(self) -> None:
        runs = [self.resync.run()] if self.resync_runs else []
        if self.elector:
            self.engine.pause()
            self.engine.may_begin = self.elector.leading
            runs.append(self.elector.run())
        for each in runs:
            task = asyncio.create_task(each)
            task.add_done_callback(_tell_bug)
            self._background.append(task)


def _tell_bug(task: asyncio.Task[None]) -> None:
    """These run for ever; what ends one is a bug, and would otherwise not be told."""
    if not task.cancelled():
        log.error("a background task has ended", exc_info=task.exception())


def _elector(api: ApiClient, engine: Engine, options: Options) -> Elector:
    name = Ref(options.lease_namespace or own_namespace(), options.lease_name)
    lease = LeaseStore(api, name, CALL_WITHIN, LEASE_SECONDS)
    return Elector(lease, engine.resume, engine.pause)


def _ref(document: Mapping[str, Any]) -> Ref:
    metadata = document["metadata"]
    return Ref(metadata["namespace"], metadata["name"])


async def require_crd(api: ApiClient) -> None:
    """Raises ConfigurationError without the CRD, where kopf would only warn and wait for ever."""
    version = API_VERSION.removeprefix(f"{API_GROUP}/")
    try:
        with asking(f"find {API_VERSION} on the API server"):
            await CustomObjectsApi(api).get_api_resources(
                API_GROUP, version, _request_timeout=TIMEOUT
            )
    except RefusedError as error:
        if error.status != 404:
            raise
        message = f"{error}: install the CRD first (kubectl apply -f crds/)"
        raise ConfigurationError("NoCRD", message) from None


async def close(api: ApiClient) -> None:
    """Close a client's connections."""
    await api.close()  # type: ignore[no-untyped-call]
