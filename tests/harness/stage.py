"""The servers and workers that trials share, each started by the first trial that needs it."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Self

from celery import Celery

from tests.cluster.conftest import install_crd
from tests.harness.nursery import Nursery
from tests.harness.setting import Broker, Setting
from tests.harness.witnesses.application import TASKS
from tests.support.api import Api
from tests.support.celery_worker import CeleryWorker
from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE, rights
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually

_PLACEHOLDER = "the-namespace"
_SLOTS = 3


class Stage:
    """See the module. All that it starts ends with it; open it in the main thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ends = ExitStack()
        self._workers: dict[tuple[str, bool], CeleryWorker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    @cached_property
    def nursery(self) -> Nursery:
        """Makes the operators."""
        return self._ends.enter_context(Nursery())

    @cached_property
    def postgres(self) -> PostgresServer:
        """Has the application's database."""
        return self._ends.enter_context(PostgresServer())

    @cached_property
    def database_url(self) -> str:
        """The application's database, in which each trial has a schema of its own."""
        return self.postgres.create_database()

    @cached_property
    def redis(self) -> RedisServer:
        """Is broker and guard's store, and keeps what it was told over a restart."""
        return self._ends.enter_context(RedisServer(appendonly=True))

    @cached_property
    def rabbitmq(self) -> RabbitServer:
        """Is a broker."""
        return self._ends.enter_context(RabbitServer())

    @cached_property
    def plane(self) -> ControlPlane:
        """The control plane, which knows ScannerJobs."""
        plane = self._ends.enter_context(ControlPlane())
        install_crd(plane)
        return plane

    @cached_property
    def api(self) -> Api:
        """The control plane's API, for its administrator."""
        return Api(self.plane.kubeconfig())

    def new_broker(self, broker: Broker) -> str:
        """The URL of a broker for a trial; one in SQL is the trial's own."""
        match broker:
            case "redis":
                return self.redis.url
            case "rabbitmq":
                return self.rabbitmq.url
            case "sql":
                return f"sqla+{self.postgres.create_database()}"

    @contextmanager
    def consuming(self, setting: Setting, broker: str, queue: str) -> Iterator[CeleryWorker]:
        """Have a Celery worker take messages from a queue of this broker, for a trial."""
        if setting.broker == "sql":  # which has no means to tell a worker of another queue
            with self._new_worker(broker, setting, queue) as worker:
                yield worker
            return
        kind = (setting.broker, setting.guard)
        if kind not in self._workers:
            worker = self._new_worker(broker, setting, "of-no-trial")
            self._workers[kind] = self._ends.enter_context(worker)
        worker = self._workers[kind]
        here = {"destination": [f"{worker.name}@{socket.gethostname()}"]}
        with Celery(broker=broker, set_as_current=False) as app:
            add = partial(app.control.add_consumer, queue, reply=True, timeout=5, limit=1, **here)
            cancel = partial(app.control.cancel_consumer, queue, reply=True, limit=1, **here)
            # After the restart of a broker a connection of before is found to be closed.
            ask = partial(eventually, ignoring=Exception, message=f"{worker.name} answers")
            ask(add, timeout=60)
            yield worker
            try:
                ask(cancel, timeout=10)
            except AssertionError:
                # After such a restart a worker may go on with its work, and obey nobody any more.
                self._workers.pop(kind).kill()

    def _new_worker(self, broker: str, setting: Setting, queue: str) -> CeleryWorker:
        module = self.folder / "trial_tasks.py"
        module.write_text(TASKS)
        env = {"BROKER": broker, "DATABASE": self.database_url}
        env |= {"GUARD": self.redis.url} if setting.guard else {}
        return CeleryWorker(module, env=env, concurrency=_SLOTS, queues=[queue])

    def create_namespace(self, name: str) -> Path:
        """A namespace, and an operator's rights in it as the chart gives them; its kubeconfig."""
        self.api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        for manifest in self._rights:
            document = json.loads(json.dumps(manifest).replace(_PLACEHOLDER, name))
            self.api.create(_collection(document), document)
        account = f"/api/v1/namespaces/{name}/serviceaccounts"
        # Pods can be created once the default account is there.
        eventually(lambda: self.api.get(f"{account}/default"), ignoring=Exception)
        asked = {"spec": {"expirationSeconds": 86_400}}
        granted = self.api.create(f"{account}/{RELEASE}/token", asked)
        return self.plane.kubeconfig_with(f"{name}-operator", granted["status"]["token"], name)

    @cached_property
    def _rights(self) -> list[Any]:
        return list(rights(_PLACEHOLDER))


_PLURALS = {
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
}


def _collection(document: dict[str, Any]) -> str:
    version = document["apiVersion"]
    root = f"/api/{version}" if version == "v1" else f"/apis/{version}"
    namespace = document["metadata"].get("namespace")
    place = f"/namespaces/{namespace}" if namespace else ""
    return f"{root}{place}/{_PLURALS[document['kind']]}"
