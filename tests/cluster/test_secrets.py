from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from scannerjob import apiserver
from scannerjob.apisecrets import KubernetesSecrets
from scannerjob.ports import ConfigurationError
from tests.cluster.workload import secret
from tests.support.controlplane import ControlPlane

RIGHTS = [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]


@pytest.fixture
def rights(cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    kubeconfig = cluster.service_account("reader", RIGHTS, namespace=namespace)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    return kubeconfig


def ask(questions: Callable[[KubernetesSecrets], Awaitable[None]]) -> None:
    async def run() -> None:
        api = await apiserver.connect()
        try:
            await questions(KubernetesSecrets(api))
        finally:
            await api.close()  # type: ignore[no-untyped-call]

    asyncio.run(run())


@pytest.mark.usefixtures("rights")
def test_a_secret_is_kept_until_it_is_refused(cluster: ControlPlane, namespace: str) -> None:
    async def questions(secrets: KubernetesSecrets) -> None:
        cluster.apply(secret(namespace, "app-db", url="one", user="ü"))
        first = await secrets.get(namespace, "app-db")
        assert first == {"url": b"one", "user": "ü".encode()}
        cluster.apply(secret(namespace, "app-db", url="two"))
        assert await secrets.get(namespace, "app-db") == first
        secrets.forget(namespace, "app-db")
        assert (await secrets.get(namespace, "app-db"))["url"] == b"two"

    ask(questions)


@pytest.mark.usefixtures("rights")
def test_one_that_is_missing_is_named_and_found_once_it_is_there(
    cluster: ControlPlane, namespace: str
) -> None:
    async def questions(secrets: KubernetesSecrets) -> None:
        with pytest.raises(ConfigurationError, match=f"Secret {namespace}/app-db") as error:
            await secrets.get(namespace, "app-db")
        assert error.value.reason == "SecretNotFound"
        cluster.apply(secret(namespace, "app-db", url="one"))
        assert await secrets.get(namespace, "app-db") == {"url": b"one"}

    ask(questions)


@pytest.mark.usefixtures("rights")
def test_one_of_a_namespace_without_rights_is_refused_by_name() -> None:
    async def questions(secrets: KubernetesSecrets) -> None:
        with pytest.raises(ConfigurationError, match="grant `get`") as error:
            await secrets.get("kube-system", "app-db")
        assert error.value.reason == "SecretUnreadable"

    ask(questions)
