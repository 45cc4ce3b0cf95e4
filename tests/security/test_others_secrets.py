"""Secrets of another namespace: no ScannerJob gets the operator to read one."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scannerjob.model.spec import SpecError, parse_spec
from tests.cluster.workload import secret
from tests.support.api import Api, ApiError, Json
from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.helm import RELEASE, rights
from tests.support.processes import Process
from tests.support.waiting import eventually

NAMES = [
    "../victim/app-db",
    "../../namespaces/VICTIM/secrets/app-db",
    "VICTIM/app-db",
    "VICTIM%2fapp-db",
    "%2e%2e%2f%2e%2e%2fVICTIM%2fsecrets%2fapp-db",
    "..%2fapp-db",
    "..",
    ".",
    "/app-db",
    "app-db/",
    "app-db?namespace=VICTIM",
    "app-db#",
    "app-db\n",
    "app-db\0",
    " app-db",
    "app-db\\..",
    "APP-DB",
    "app\u2215db",
    "*",
    "",
]
KEYS = ["../url", "url/..", "url\n", "url?x", "%2e%2e", "*", ""]
PARTS = ["database", "celery.broker", "celery.resultBackend", "celery.guard"]


class Listener:
    """A server of the victim's: it notes who comes, and lets nobody in."""

    def __init__(self) -> None:
        self.guests = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                guest, _ = self._socket.accept()
                self.guests += 1
                guest.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    listener = Listener()
    yield listener
    listener.close()


@pytest.fixture
def victim(cluster: ControlPlane, listener: Listener) -> str:
    """A namespace with Secrets that lead to the listener."""
    namespace = cluster.create_namespace("victim")
    cluster.apply(
        secret(namespace, "app-db", url=f"postgresql://app:secret@{listener.place}/app"),
        secret(namespace, "app-redis", url=f"redis://:secret@{listener.place}/0"),
    )
    return namespace


@pytest.fixture
def account(cluster: ControlPlane, namespace: str) -> Path:
    """The operator's, where it serves all namespaces: it may get every Secret by its name."""
    cluster.apply(*rights(None, release_namespace=namespace))
    return cluster.kubeconfig_for(RELEASE, namespace=namespace)


def scannerjob(name: str = "pages") -> Json:
    def reference(name: str) -> Json:
        return {"urlSecretRef": {"name": name, "key": "url"}}

    broker = reference("app-redis")
    celery = {"broker": broker, "resultBackend": deepcopy(broker), "guard": deepcopy(broker)}
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": name},
        "spec": {
            "database": reference("app-db"),
            "query": "SELECT 1 AS id",
            "celery": {**celery, "task": "docs.create"},
        },
    }


def part_of(document: Json, path: str) -> Json:
    part: Json = document["spec"]
    for name in path.split("."):
        part = part[name]
    return part


def attacks(victim: str) -> Iterator[Json]:
    """ScannerJobs with a name or key, in each place for one, that leads somewhere else."""
    for path in PARTS:
        for name in NAMES:
            written = scannerjob()
            part_of(written, path)["urlSecretRef"]["name"] = name.replace("VICTIM", victim)
            yield written
            written = scannerjob()
            part_of(written, path)["tlsSecretRef"] = {"name": name.replace("VICTIM", victim)}
            yield written
        for key in KEYS:
            written = scannerjob()
            part_of(written, path)["urlSecretRef"]["key"] = key
            yield written


def test_no_name_leads_out_of_the_namespace(
    cluster: ControlPlane, namespace: str, victim: str
) -> None:
    """Refused by the schema and, should an older one let it pass, by the operator."""
    api = Api(cluster.kubeconfig())
    path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{namespace}/scannerjobs"
    for written in attacks(victim):
        with pytest.raises(ApiError, match=r"422: .*spec\.(database|celery)"):
            api.create(f"{path}?fieldValidation=Ignore", written)
        with pytest.raises(SpecError, match=r"spec\.(database|celery)"):
            parse_spec(written["spec"])


def test_a_namespace_that_is_named_is_not_looked_into(
    cluster: ControlPlane,
    namespace: str,
    victim: str,
    listener: Listener,
    account: Path,
    tmp_path: Path,
) -> None:
    api = Api(cluster.kubeconfig())
    path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{namespace}/scannerjobs"
    named = {
        "in-the-reference": {"urlSecretRef": {**_reference(), "namespace": victim}},
        "in-the-connection": {"urlSecretRef": _reference(), "namespace": victim},
        "by-no-trick": {"urlSecretRef": _reference()},
        "as-a-key": {"urlSecretRef": {**_reference(), "key": ".."}},
        "for-certificates": {
            "urlSecretRef": _reference(),
            "tlsSecretRef": {"name": "app-db", "namespace": victim},
        },
    }
    for name, database in named.items():
        written = scannerjob(name)
        written["spec"]["database"] = database
        api.create(f"{path}?fieldValidation=Ignore", written)
        elsewhere = {**written, "metadata": {"name": name, "namespace": victim}}
        with pytest.raises(ApiError, match="400"):
            api.create(path, elsewhere)
    command = [sys.executable, "-m", "scannerjob", "operator", "--namespace", namespace]
    env = {**os.environ, "KUBECONFIG": str(account), "PYTHONPATH": str(Path("operator").absolute())}
    with Process([*command, "--no-leader-election"], log=tmp_path / "operator.log", env=env):
        eventually(partial(_all_miss_their_own, api, path, namespace, set(named)), timeout=60)
    assert listener.guests == 0


def _reference() -> Json:
    return {"name": "app-db", "key": "url"}


def _all_miss_their_own(api: Api, path: str, namespace: str, names: set[str]) -> bool:
    told = {each["metadata"]["name"]: _ready(each) for each in api.get(path)["items"]}
    assert told.keys() == names
    for ready in told.values():
        assert ready["reason"] == "SecretNotFound", told
        assert f"Secret {namespace}/app-db is not there" in ready["message"], told
    return True


def _ready(document: Json) -> Json:
    conditions = document.get("status", {}).get("conditions", ())
    found = [dict(each) for each in conditions if each["type"] == "Ready"]
    return found[0] if found else {"reason": None}


class TestTheOperatorsOwnToken:
    """What somebody can do who has stolen it."""

    @pytest.fixture
    def api(self, account: Path) -> Api:
        return Api(account)

    def test_lists_no_secrets(self, api: Api, victim: str) -> None:
        secrets = f"/api/v1/namespaces/{victim}/secrets"
        assert api.get(f"{secrets}/app-db")["metadata"]["name"] == "app-db"
        for path in (
            "/api/v1/secrets",
            secrets,
            f"{secrets}?watch=true",
            f"{secrets}?fieldSelector=metadata.name%3Dapp-db",
            f"{secrets}?watch=true&fieldSelector=metadata.name%3Dapp-db",
            f"/api/v1/watch/namespaces/{victim}/secrets/app-db",
            f"/api/v1/namespaces/{victim}/configmaps",
            "/api/v1/namespaces",
            "/api/v1/nodes",
        ):
            with pytest.raises(ApiError, match="403"):
                api.get(path)

    def test_writes_nothing_that_gives_more(
        self, api: Api, cluster: ControlPlane, account: Path, victim: str
    ) -> None:
        name = {"metadata": {"name": "app-db"}}
        pods = f"/api/v1/namespaces/{victim}/pods"
        accounts = f"/api/v1/namespaces/{victim}/serviceaccounts"
        roles = "/apis/rbac.authorization.k8s.io/v1"
        requests: list[tuple[str, str, Any]] = [
            ("PUT", f"/api/v1/namespaces/{victim}/secrets/app-db", name),
            ("DELETE", f"/api/v1/namespaces/{victim}/secrets/app-db", None),
            ("POST", f"/api/v1/namespaces/{victim}/secrets", name),
            ("POST", pods, name),
            ("POST", f"{pods}/any/exec?command=sh", None),
            ("POST", f"{accounts}/default/token", {"spec": {}}),
            ("POST", f"{roles}/clusterroles", name),
            ("POST", f"{roles}/clusterrolebindings", name),
            ("POST", f"{roles}/namespaces/{victim}/rolebindings", name),
            ("POST", "/apis/scannerjob.dev/v1alpha1/namespaces/default/scannerjobs", scannerjob()),
            ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", name),
        ]
        for method, path, body in requests:
            with pytest.raises(ApiError, match="403"):
                api.request(method, path, body)
        with pytest.raises(KubectlError, match="cannot impersonate"):
            cluster.kubectl("get", "secrets", "--as=system:admin", kubeconfig=account)

    def test_gets_nothing_outside_of_the_namespaces_that_are_watched(
        self, cluster: ControlPlane, victim: str
    ) -> None:
        watched = cluster.create_namespace()
        cluster.apply(*rights(watched))
        cluster.apply(secret(watched, "app-db", url="x"))
        api = Api(cluster.kubeconfig_for(RELEASE, namespace=watched))
        assert api.get(f"/api/v1/namespaces/{watched}/secrets/app-db")["data"]
        for path in (
            f"/api/v1/namespaces/{victim}/secrets/app-db",
            f"/api/v1/namespaces/{watched}/../{victim}/secrets/app-db",
            f"/apis/batch/v1/namespaces/{victim}/jobs",
            f"/apis/scannerjob.dev/v1alpha1/namespaces/{victim}/scannerjobs",
            "/apis/scannerjob.dev/v1alpha1/scannerjobs",
        ):
            with pytest.raises(ApiError, match=r"40[34]"):
                api.get(path)
