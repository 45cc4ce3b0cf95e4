from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from scannerjob import apiserver
from scannerjob.ports import Ref, RefusedError
from scannerjob.stores.kubernetes import KubernetesStore
from tests.conformance.ledger_store import (
    LedgerStoreSuite,
    PausableWorld,
    UnansweredReadSuite,
    document,
    read,
    scenario,
    status,
)
from tests.support.controlplane import ControlPlane

RIGHTS = [
    {"apiGroups": ["scannerjob.dev"], "resources": ["scannerjobs"], "verbs": ["get", "patch"]},
    {"apiGroups": ["scannerjob.dev"], "resources": ["scannerjobs/status"], "verbs": ["update"]},
]


class ClusterWorld(PausableWorld):
    """ScannerJobs on an API server; its owner is the administrator, a store has few rights."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        self._clients: list[ApiClient] = []

    async def store(self, deadline: float = 10) -> KubernetesStore:
        self._clients.append(await apiserver.connect())
        return KubernetesStore(self._clients[-1], deadline)

    async def apply(self, document: Mapping[str, Any]) -> None:
        await asyncio.to_thread(self.cluster.apply, document)

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        annotation = f"scannerjob.dev/requested-{name}={nonce}"
        await self._kubectl("annotate", "--overwrite", "scj", ref.name, annotation)

    async def delete(self, ref: Ref) -> None:
        await self._kubectl("delete", "scj", ref.name)

    async def wipe(self, ref: Ref) -> None:
        found = await asyncio.to_thread(self.cluster.get, "scj", ref.name)
        wiped = json.dumps({**found, "status": {}})
        replace = ("replace", "--subresource=status", "-f", "-")
        await asyncio.to_thread(self.cluster.kubectl, *replace, input=wiped)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()  # type: ignore[no-untyped-call]

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.cluster.pause_apiserver()
        try:
            yield
        finally:
            self.cluster.resume_apiserver()

    async def _kubectl(self, *args: str) -> None:
        await asyncio.to_thread(self.cluster.kubectl, *args)


@pytest.fixture(scope="module")
def few_rights(_scannerjobs: ControlPlane) -> Path:
    return _scannerjobs.service_account("store", RIGHTS)


class TestKubernetesStore(LedgerStoreSuite, UnansweredReadSuite):
    @pytest.fixture
    def world(
        self, cluster: ControlPlane, few_rights: Path, monkeypatch: pytest.MonkeyPatch
    ) -> ClusterWorld:
        monkeypatch.setenv("KUBECONFIG", str(few_rights))
        cluster.kubectl("delete", "scannerjobs", "--all", "-n", "default")
        return ClusterWorld(cluster)

    @scenario
    async def test_a_copy_under_another_name_is_not_marked(self, world: ClusterWorld) -> None:
        store, snapshot = await self.applied(world)
        await store.mark(snapshot)
        copy = await asyncio.to_thread(world.cluster.get, "scj", "pdf-pages")
        annotations = copy["metadata"]["annotations"]
        assert annotations["scannerjob.dev/ledger"] == "default/pdf-pages"
        other = document(name="other")
        other["metadata"]["annotations"] = annotations
        await world.apply(other)
        assert not (await read(store, Ref("default", "other"))).marked

    @scenario
    async def test_a_status_that_the_schema_refuses_is_named(self, world: ClusterWorld) -> None:
        store, snapshot = await self.applied(world)
        with pytest.raises(RefusedError, match=r"status\.launched") as error:
            await store.write(snapshot, {"launched": -1})
        assert error.value.reason == "Invalid"
        assert await read(store, self.REF) == snapshot

    @scenario
    async def test_a_status_that_is_too_large_is_refused(self, world: ClusterWorld) -> None:
        store, snapshot = await self.applied(world)
        huge = status() | {"conditions": [_condition(n) for n in range(16)] * 20}
        with pytest.raises(RefusedError, match="write the status"):
            await store.write(snapshot, huge)

    @scenario
    async def test_missing_rights_are_named(self, world: ClusterWorld) -> None:
        store = await world.store()
        with pytest.raises(RefusedError, match="cannot get resource") as error:
            await store.read(Ref("kube-system", "pdf-pages"))
        assert error.value.reason == "Forbidden"

    @scenario
    async def test_a_nonce_that_is_too_long_is_cut_to_what_the_status_takes(
        self, world: ClusterWorld
    ) -> None:
        store, _ = await self.applied(world)
        await world.request(self.REF, "retry", "x" * 1000)
        requests = (await read(store, self.REF)).requests
        written = await store.write(
            await read(store, self.REF), {**status(), "handledRequests": dict(requests)}
        )
        assert written.status["handledRequests"] == {"retry": "x" * 253}


def _condition(number: int) -> dict[str, Any]:
    return {
        "type": f"Type{number}",
        "status": "True",
        "reason": "Because",
        "message": "x" * 32768,
        "lastTransitionTime": "2026-11-23T10:00:00Z",
    }
