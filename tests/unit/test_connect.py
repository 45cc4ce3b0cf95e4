"""What the Secrets of a spec hold becomes connections, which last until it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from scannerjob.connect import SecretConnector
from scannerjob.model.spec import parse_spec
from scannerjob.ports import ConfigurationError, Connections, Ref, Snapshot
from tests.support.certificates import Authority

REF = Ref("docs", "pages")
AUTHORITY = Authority()
CLIENT = AUTHORITY.secret(AUTHORITY.issue("client"))


class MemorySecrets:
    """Secrets in a dictionary, and which of them were forgotten."""

    def __init__(self, **contents: Mapping[str, bytes]) -> None:
        self.contents = dict(contents)
        self.forgotten: list[str] = []

    async def get(self, namespace: str, name: str) -> Mapping[str, bytes]:
        if name not in self.contents:
            raise ConfigurationError("SecretNotFound", f"Secret {name} is not there")
        return self.contents[name]

    def forget(self, namespace: str, name: str) -> None:
        self.forgotten.append(name)


def _connection(name: str) -> dict[str, Any]:
    reference = {"name": name.lower(), "key": "url"}
    return {"urlSecretRef": reference, "tlsSecretRef": {"name": f"{name.lower()}-tls"}}


SPEC = parse_spec(
    {
        "database": _connection("db"),
        "query": "SELECT id FROM pdf",
        "celery": {
            "broker": _connection("broker"),
            "resultBackend": _connection("results"),
            "task": "work",
        },
    }
)


@pytest.fixture
def secrets() -> MemorySecrets:
    urls = {
        "db": {"url": b"postgresql://app:pw@db.example/app"},
        "broker": {"url": b"rediss://:pw@redis.example/0"},
        "results": {"url": b"db+mysql://app:pw@db.example/results"},
    }
    return MemorySecrets(**urls, **{f"{name}-tls": dict(CLIENT) for name in urls})


@pytest.fixture
def connector(secrets: MemorySecrets) -> SecretConnector:
    return SecretConnector(secrets, in_cluster=True)


def _connect(connector: SecretConnector) -> Connections:
    snapshot = Snapshot(REF, "uid", 1, {}, {}, "1")
    return asyncio.run(connector.connect(snapshot, SPEC))


def test_what_is_open_stays_open_while_nothing_changes(
    secrets: MemorySecrets, connector: SecretConnector
) -> None:
    first = _connect(connector)
    secrets.contents = {name: dict(held) for name, held in secrets.contents.items()}
    assert _connect(connector) is first


@pytest.mark.parametrize("name", ["db-tls", "broker-tls", "results-tls"])
def test_new_certificates_are_used_and_change_no_identity(
    name: str, secrets: MemorySecrets, connector: SecretConnector
) -> None:
    first = _connect(connector)
    secrets.contents[name] = Authority().secret()
    second = _connect(connector)
    assert second is not first
    assert second.source.query_hash == first.source.query_hash
    assert second.target.endpoints == first.target.endpoints


def test_what_was_refused_is_read_anew(secrets: MemorySecrets, connector: SecretConnector) -> None:
    _connect(connector)
    connector.forget(REF)
    assert sorted(secrets.forgotten) == sorted(secrets.contents)


@pytest.mark.parametrize(
    ("name", "held", "expected"),
    [
        (
            "db-tls",
            {"ca.pem": b"x"},
            "spec.database.tlsSecretRef: Secret docs/db-tls has none of ca.crt, tls.crt, tls.key; "
            "it has ca.pem",
        ),
        (
            "broker-tls",
            {"tls.crt": CLIENT["tls.crt"]},
            "spec.celery.broker.tlsSecretRef: Secret docs/broker-tls has no tls.key",
        ),
        (
            "results-tls",
            {"ca.crt": b"x"},
            "spec.celery.resultBackend.tlsSecretRef: Secret docs/results-tls has a ca.crt that",
        ),
    ],
)
def test_a_secret_that_holds_no_certificates(
    name: str,
    held: dict[str, bytes],
    expected: str,
    secrets: MemorySecrets,
    connector: SecretConnector,
) -> None:
    secrets.contents[name] = held
    with pytest.raises(ConfigurationError) as refused:
        _connect(connector)
    assert refused.value.reason == "InvalidCertificate"
    assert str(refused.value).startswith(expected)
    # It may be half of a rotation.
    assert secrets.forgotten == [name]
    secrets.contents[name] = dict(CLIENT)
    _connect(connector)


def test_a_secret_that_is_not_there(secrets: MemorySecrets, connector: SecretConnector) -> None:
    del secrets.contents["broker-tls"]
    with pytest.raises(ConfigurationError) as refused:
        _connect(connector)
    assert str(refused.value) == ("spec.celery.broker.tlsSecretRef: Secret broker-tls is not there")


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("broker", "redis://:pw@redis.example/0", "begins with redis://, which is not encrypted"),
        ("broker", "amqp://app:pw@mq.example/v", "begins with amqp://, which is not encrypted"),
        ("broker", "pyamqp://app:pw@mq.example/v", "write amqps://"),
        ("results", "redis://:pw@redis.example/0", "write rediss://"),
        ("broker", "rediss://redis.example?ssl_ca_certs=/ca", "operator's machine: use tlsSecretR"),
        ("db", "postgresql://db/app?sslrootcert=/ca", "operator's machine: use tlsSecretRef"),
        ("results", "db+mysql://db/app?ssl_ca=/ca", "operator's machine: use tlsSecretRef"),
        ("db", "postgresql://db/app?sslmode=disable", "which need not encrypt"),
    ],
)
def test_a_url_that_does_not_go_with_a_secret_or_with_a_cluster(
    name: str, url: str, expected: str, secrets: MemorySecrets, connector: SecretConnector
) -> None:
    secrets.contents[name] = {"url": url.encode()}
    fields = {"db": "spec.database", "broker": "spec.celery.broker"}
    with pytest.raises(ConfigurationError) as refused:
        _connect(connector)
    assert refused.value.reason == "InvalidURL"
    assert str(refused.value).startswith(fields.get(name, "spec.celery.resultBackend") + ": ")
    assert expected in str(refused.value)
