"""A Job target on a real API server, without an operator: the test is its cycle and its watch."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Self, TypeVar

from scannerjob import apiserver
from scannerjob.clock import boottime
from scannerjob.model.facts import Observation, Send, Sightings
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.row import Json, Row
from scannerjob.ports import Ref, Snapshot
from scannerjob.targets.job import JobTargets
from scannerjob.targets.job.names import job_name
from tests.support.api import Api
from tests.support.controlplane import ControlPlane
from tests.unit.cases import NOW
from tests.unit.job_cases import job_spec

Document = Mapping[str, Any]
T = TypeVar("T")


def item(key: str, sends: int = 1, attempt: int = 1) -> Item:
    return Item(f"[{key}]", f"id-{key}", Phase.CLAIMED, attempt, sends, NOW)


def send(key: str, sends: int = 1, **values: Json) -> Send:
    """A send of the launch `id-KEY`."""
    claimed = item(key, sends)
    return Send(claimed, Row(claimed.key, {"pdf_id": key, **values}), None, None)


class Site:
    """A ScannerJob, its target, and the API server that both know. Use it as a context manager.

    Launches are named by the keys of their rows.
    """

    def __init__(
        self,
        plane: ControlPlane,
        namespace: str,
        template: Document | None = None,
        name: str = "pdf-pages",
        **fields: Any,
    ) -> None:
        self.plane = plane
        self.namespace = namespace
        self.name = name
        self._spec = job_spec(template, **fields)
        self._admin = Api(plane.kubeconfig())
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.uid = self._create_scannerjob()

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner()
        self._api = self._runner.run(apiserver.connect())
        self.reopen()
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._api.close())  # type: ignore[no-untyped-call]
        self._runner.close()

    def reopen(self) -> None:
        """As after a restart: nothing that was seen is known."""
        self.targets = JobTargets(self._api)
        snapshot = Snapshot(Ref(self.namespace, self.name), self.uid, 1, {}, {}, "1")
        self.target = self.targets.open(snapshot, self._spec)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    # What a cycle does.

    def check(self) -> None:
        self.run(self.target.check())

    def launch(self, *sends: Send, seconds: float = 30) -> dict[str, Observation]:
        """What is said of each launch."""
        return dict(self.run(self.target.launch(sends, boottime() + seconds)))

    def launch_one(self, key: str, **values: Any) -> Observation:
        return self.launch(send(key, **values))[f"id-{key}"]

    def observe(self, *keys: str) -> Sightings:
        return self.run(self.target.observe([f"id-{key}" for key in keys]))

    def observed(self, key: str, *, told: bool = True) -> Observation:
        """What is said of this launch, once the watch has told of all Jobs."""
        if told:
            self.tell()
        return self.observe(key).observations[f"id-{key}"]

    def clean_up(self, *outstanding: str, settled: Collection[str] = (), sends: int = 1) -> None:
        """Clean up, to its end."""
        items = [item(key, sends) for key in settled]

        async def work() -> None:
            await self.target.clean_up([f"id-{key}" for key in outstanding], items)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        self.run(work())

    # What a watch does.

    def tell(self) -> None:
        """The watch tells of all Jobs as they are, but not of those that are gone."""
        for job in self.jobs().values():
            self.targets.seen(None, job)

    # What is there.

    def jobs(self) -> dict[str, Any]:
        """All Jobs of the namespace, by name."""
        return {job["metadata"]["name"]: job for job in self._admin.get(self._path)["items"]}

    def job(self, key: str) -> Any:
        return self._admin.get(f"{self._path}/{self.job_name(key)}")

    def job_name(self, key: str) -> str:
        return job_name(self.name, f"id-{key}")

    def create_job(self, job: Document) -> None:
        """Create a Job as a person does who may do everything."""
        self._admin.create(self._path, job)

    def patch_job(self, key: str, patch: Document) -> None:
        self._admin.patch(f"{self._path}/{self.job_name(key)}", patch)

    def delete_job(self, key: str) -> None:
        """As `kubectl delete job` does it: in the background."""
        options = {"propagationPolicy": "Background"}
        self._admin.delete(f"{self._path}/{self.job_name(key)}", options)

    def _create_scannerjob(self) -> str:
        secret = {"urlSecretRef": {"name": "app-db", "key": "url"}}
        created = self._admin.create(
            f"/apis/scannerjob.dev/v1alpha1/namespaces/{self.namespace}/scannerjobs",
            {
                "apiVersion": "scannerjob.dev/v1alpha1",
                "kind": "ScannerJob",
                "metadata": {"name": self.name},
                "spec": {"database": secret, "query": "SELECT 1 AS id", "job": {"template": {}}},
            },
        )
        return str(created["metadata"]["uid"])
