"""What the operator is made of: a client, a store, a connector and the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob import apiserver
from scannerjob.apiserver import TIMEOUT, RefusedError, asking
from scannerjob.connect import SecretConnector
from scannerjob.controller.resync import Resync
from scannerjob.controller.secrets import KubernetesSecrets
from scannerjob.controller.watched import WatchedStore
from scannerjob.engine import Engine
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import ConfigurationError, Ref
from scannerjob.stores.kubernetes import KubernetesStore
from scannerjob.targets.job import JobTargets


@dataclass(frozen=True)
class Operator:
    """One operator process; it is told what the watches see by kopf's handlers."""

    engine: Engine
    jobs: JobTargets
    resync: Resync
    _store: WatchedStore
    _api: ApiClient
    _connector: SecretConnector
    _looking: asyncio.Task[None] | None

    @classmethod
    async def open(cls, namespaces: Collection[str] | None = ()) -> Operator:
        """Connect to the API server, and begin.

        `namespaces` are those that are watched; none means all, and None that it is not known: then
        a lost watch is not looked for. Raises ConfigurationError if the API server knows no
        ScannerJobs.
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
        engine = Engine(store, connector)
        resync = Resync(api, store, engine.wake, namespaces or ())
        looking = None if namespaces is None else asyncio.create_task(resync.run())
        return cls(engine, jobs, resync, store, api, connector, looking)

    def seen(self, document: Mapping[str, Any]) -> None:
        """The watch has shown this ScannerJob."""
        metadata = document["metadata"]
        self._store.seen(document)
        self.resync.shown(_ref(document), metadata["resourceVersion"])

    def gone(self, document: Mapping[str, Any]) -> None:
        """The watch has shown that this ScannerJob was deleted."""
        self._store.gone(document)
        self.resync.gone(_ref(document))
        self.engine.forget(_ref(document))

    async def close(self) -> None:
        """Stop launching, write down what is known of what was launched, and close everything."""
        if self._looking:
            self._looking.cancel()
        await self.engine.close()
        await self._connector.close()
        await close(self._api)


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
