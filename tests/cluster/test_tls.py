"""The operator with TLS alone: certificates from Secrets as cert-manager writes them."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from tempfile import gettempdir
from typing import Any

import pytest

from tests.cluster.operators import Operators
from tests.cluster.workload import condition, scannerjob
from tests.support.certificates import Authority
from tests.support.controlplane import ControlPlane
from tests.support.sources import execute
from tests.support.tls_servers import TlsPostgres, TlsRedis, TlsServer
from tests.support.waiting import eventually


@pytest.fixture
def authority() -> Authority:
    return Authority("old")


@pytest.fixture
def database(authority: Authority) -> Iterator[TlsPostgres]:
    with TlsPostgres(authority) as server:
        execute(
            server.as_admin(server.url),
            "CREATE TABLE pdf (id serial PRIMARY KEY, pages_created bool DEFAULT false)",
            "GRANT SELECT ON pdf TO app",
        )
        yield server


@pytest.fixture
def broker(authority: Authority) -> Iterator[TlsRedis]:
    with TlsRedis(authority, requirepass=True) as server:
        yield server


def _secrets(namespace: str, name: str, server: TlsServer) -> list[dict[str, Any]]:
    """Its URL, and what to show it, in two Secrets."""
    certificates = server.authority.secret(server.authority.issue("scanner"))
    encoded = {key: base64.b64encode(held).decode() for key, held in certificates.items()}
    kind = {"apiVersion": "v1", "kind": "Secret"}
    url = {
        "metadata": {"name": name, "namespace": namespace},
        "stringData": {"url": server.tls_url},
    }
    tls = {"metadata": {"name": f"{name}-tls", "namespace": namespace}, "data": encoded}
    return [{**kind, **url}, {**kind, **tls, "type": "kubernetes.io/tls"}]


def _connection(name: str) -> dict[str, Any]:
    return {
        "urlSecretRef": {"name": name, "key": "url"},
        "tlsSecretRef": {"name": f"{name}-tls"},
    }


def _queued(broker: TlsRedis) -> int:
    with broker.client() as client:
        return int(client.llen("celery"))


def test_new_certificates_are_fetched_as_soon_as_the_old_ones_are_refused(
    cluster: ControlPlane,
    namespace: str,
    operators: Operators,
    database: TlsPostgres,
    broker: TlsRedis,
) -> None:
    def insert(rows: int) -> None:
        execute(database.as_admin(database.url), *["INSERT INTO pdf DEFAULT VALUES"] * rows)

    def refused() -> bool:
        told = condition(cluster, namespace, "pdf-pages", "DatabaseReachable")
        return told.get("reason") == "TLSFailed" and "tlsSecretRef" in told["message"]

    cluster.apply(
        *_secrets(namespace, "app-db", database),
        *_secrets(namespace, "app-broker", broker),
        scannerjob(
            namespace,
            concurrency=20,
            database=_connection("app-db"),
            query="SELECT id AS pdf_id FROM pdf WHERE NOT pages_created ORDER BY id",
            celery={"broker": _connection("app-broker"), "task": "docs.tasks.create_pages"},
        ),
    )
    insert(3)
    operator = operators.start()
    eventually(lambda: _queued(broker) == 3, 60, "three rows are launched")

    new = Authority("new")
    database.show(new.issue(), new)
    insert(3)
    eventually(refused, 60, "the new certificate is not trusted")
    assert _queued(broker) == 3
    cluster.apply(*_secrets(namespace, "app-db", database))
    # Sooner than a Secret is read that nobody has refused: once a minute.
    eventually(lambda: _queued(broker) == 6, 50, "six rows are launched")

    said = operator.log() + str(cluster.get("-n", namespace, "scj", "pdf-pages"))
    for secret in (database.password, broker.password, "PRIVATE KEY", f"{gettempdir()}/"):
        assert secret not in said
