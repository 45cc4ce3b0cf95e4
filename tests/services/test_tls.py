"""Encrypted connections to real servers, each of which demands a client certificate.

What is wrong is said in words, and leads to nothing: no row is read and nothing is sent.
"""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from scannerjob.ports import ConfigurationError, PortError, TargetError
from scannerjob.sources import Databases
from scannerjob.targets.celery import Brokers
from scannerjob.tls import Certificates, files_of
from tests.support.celery_target import (
    ACCEPTED,
    celery_spec,
    facts,
    ids_of,
    launch,
    make_sends,
    told,
)
from tests.support.certificates import HOST, Authority
from tests.support.servers import DatabaseServer, RedisServer, Server
from tests.support.sources import spec
from tests.support.tls_servers import TlsMariaDB, TlsPostgres, TlsRabbit, TlsRedis, TlsServer
from tests.support.waiting import eventually

AUTHORITY, OTHER = Authority(), Authority("another authority")
RIGHT = AUTHORITY.secret(AUTHORITY.issue("scanner"))
SERVERS = {"redis": TlsRedis, "rabbitmq": TlsRabbit, "postgres": TlsPostgres, "mariadb": TlsMariaDB}

Secret = Mapping[str, bytes]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[TlsServer]:
    with SERVERS[request.param](AUTHORITY) as server:
        yield server


def _contact(server: Server, url: str, secret: Secret) -> None:
    """Ask it something, as a ScannerJob would. Raises PortError."""
    files = files_of(Certificates.from_secret(secret)) if secret else None
    if isinstance(server, DatabaseServer):
        databases = Databases()
        asyncio.run(databases.open(url, spec("SELECT 1 AS id"), files).scan(1))
        databases.close()
    else:
        brokers = Brokers()
        target = brokers.open(url, None, celery_spec(), broker_files=files)
        asyncio.run(target.check())
        brokers.close()


def _failure(server: Server, url: str, secret: Secret) -> PortError:
    with pytest.raises(PortError) as failed:
        _contact(server, url, secret)
    assert server.password not in str(failed.value)
    assert "scannerjob-" not in str(failed.value)
    return failed.value


def test_the_right_certificates_are_let_in(server: TlsServer) -> None:
    _contact(server, server.tls_url, RIGHT)


@pytest.mark.parametrize(
    ("host", "secret", "words"),
    [
        (HOST, OTHER.secret(AUTHORITY.issue("scanner")), "its certificate is not trusted"),
        ("localhost", RIGHT, "its certificate is for another host"),
        (HOST, AUTHORITY.secret(), "client certificate"),
        (HOST, AUTHORITY.secret(OTHER.issue("scanner")), "refuse"),
        (HOST, AUTHORITY.secret(AUTHORITY.issue("scanner", expired=True)), "refuse"),
    ],
    ids=["other authority", "other host", "no client", "client of another", "expired client"],
)
def test_the_wrong_ones_are_not(server: TlsServer, host: str, secret: Secret, words: str) -> None:
    failure = _failure(server, server.tls_url.replace(HOST, host), secret)
    assert words in str(failure)
    # MariaDB tells no more than that access is denied.
    silent = isinstance(server, TlsMariaDB) and secret.keys() == {"ca.crt"}
    assert failure.reason == ("AuthenticationFailed" if silent else "TLSFailed")


def test_an_expired_certificate_is_not_trusted_until_it_is_renewed(server: TlsServer) -> None:
    server.show(AUTHORITY.issue(expired=True))
    try:
        failure = eventually(lambda: _trouble(server), message="the expired one is shown")
    finally:
        server.show(AUTHORITY.issue())
    assert failure
    assert failure.reason == "TLSFailed"
    assert "expired" in str(failure)
    assert eventually(lambda: _trouble(server) is None, message="the new one is shown")


def test_a_server_that_was_restarted_is_connected_to_anew(server: TlsServer) -> None:
    files = files_of(Certificates.from_secret(RIGHT))
    databases, brokers = Databases(), Brokers()

    async def run() -> None:
        if isinstance(server, DatabaseServer):
            source = databases.open(server.tls_url, spec("SELECT 1 AS id"), files)
            await source.scan(1)
            server.restart()
            await source.scan(1)
        else:
            target = brokers.open(server.tls_url, None, celery_spec(), broker_files=files)
            await target.check()
            server.restart()
            await target.check()

    asyncio.run(run())
    databases.close()
    brokers.close()


def test_without_a_secret_nobody_is_let_in(server: TlsServer) -> None:
    failure = _failure(server, _plain(server.tls_url), {})
    if isinstance(server, TlsPostgres):
        assert failure.reason == "TLSFailed"
        assert "with TLS only" in str(failure)


@pytest.mark.parametrize("name", ["rabbit_server", "postgres_server", "mariadb_server"])
def test_a_server_without_tls_is_not_spoken_to(name: str, request: pytest.FixtureRequest) -> None:
    plain: Server = request.getfixturevalue(name)
    failure = _failure(plain, plain.url.replace("amqp:", "amqps:"), RIGHT)
    assert failure.reason == "TLSFailed"
    assert "does not speak TLS at this port" in str(failure)


def test_a_redis_without_tls_is_not_spoken_to(redis_server: RedisServer) -> None:
    """It waits for the rest of what it takes for a command."""
    failure = _failure(redis_server, redis_server.url.replace("redis:", "rediss:"), RIGHT)
    assert failure.reason == "BrokerUnreachable"


def test_without_an_authority_those_of_the_machine_are_trusted(
    server: TlsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = {key: value for key, value in RIGHT.items() if key != "ca.crt"}
    if isinstance(server, TlsPostgres):
        # libpq knows none of them by itself.
        with pytest.raises(ConfigurationError, match=r"no ca\.crt to check"):
            _contact(server, server.tls_url, client)
        return
    assert "not trusted" in str(_failure(server, server.tls_url, client))
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.crt"))
    _contact(server, server.tls_url, client)


# py-amqp knows no options in URLs, and RabbitMQ is no result backend.
not_rabbitmq = pytest.mark.parametrize(
    "server", [name for name in SERVERS if name != "rabbitmq"], indirect=True, scope="module"
)
FILES_IN_URLS = {
    TlsRedis: "ssl_ca_certs={0}&ssl_certfile={1}&ssl_keyfile={2}&ssl_cert_reqs=CERT_REQUIRED",
    TlsPostgres: "sslmode=verify-full&sslrootcert={0}&sslcert={1}&sslkey={2}",
    TlsMariaDB: "ssl_ca={0}&ssl_cert={1}&ssl_key={2}&ssl_check_hostname=true",
}
UNCHECKED_HOSTS = {
    TlsRedis: "ssl_check_hostname=false",
    TlsPostgres: "sslmode=verify-ca",
    TlsMariaDB: "ssl_check_hostname=false",
}


@not_rabbitmq
def test_a_url_may_name_the_files_outside_a_cluster(server: TlsServer, tmp_path: Path) -> None:
    for name, content in RIGHT.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    paths = [str(tmp_path / name) for name in RIGHT]
    url = f"{_bare(server.tls_url)}?{FILES_IN_URLS[type(server)].format(*paths)}"
    _contact(server, url, {})
    assert "another host" in str(_failure(server, url.replace(HOST, "localhost"), {}))


@not_rabbitmq
def test_a_url_may_ask_not_to_check_the_host(server: TlsServer) -> None:
    url = f"{_bare(server.tls_url)}?{UNCHECKED_HOSTS[type(server)]}".replace(HOST, "localhost")
    _contact(server, url, RIGHT)
    assert "not trusted" in str(_failure(server, url, OTHER.secret()))


@pytest.mark.parametrize("server", ["redis"], indirect=True, scope="module")
def test_a_url_may_ask_to_check_nothing(server: TlsServer) -> None:
    stranger = OTHER.secret(AUTHORITY.issue("scanner"))
    assert "not trusted" in str(_failure(server, server.tls_url, stranger))
    for spelling in ("none", "CERT_NONE"):
        _contact(server, f"{server.tls_url}?ssl_cert_reqs={spelling}", stranger)


@not_rabbitmq
def test_result_backends_and_brokers_in_databases_are_encrypted(server: TlsServer) -> None:
    prefixes = ("sqla+", "db+") if isinstance(server, DatabaseServer) else ("", "")
    broker, results = (f"{prefix}{server.tls_url}" for prefix in prefixes)
    files = files_of(Certificates.from_secret(RIGHT))
    target = Brokers().open(
        broker, results, celery_spec(), broker_files=files, result_backend_files=files
    )
    sends = make_sends(2)
    assert facts(launch(target, sends)) == ACCEPTED
    assert told(target, ids_of(sends)) == {}

    unknown = Brokers().open(broker, results, celery_spec(), broker_files=files)
    with pytest.raises(TargetError, match=r"^result backend "):
        told(unknown, ids_of(sends))


def _trouble(server: TlsServer) -> PortError | None:
    try:
        _contact(server, server.tls_url, RIGHT)
    except PortError as error:
        return error
    return None


def _plain(url: str) -> str:
    plain = url.replace("rediss:", "redis:").replace("amqps:", "amqp:")
    return f"{plain}?sslmode=disable" if "postgresql" in url else plain


def _bare(url: str) -> str:
    return url.partition("?")[0]
