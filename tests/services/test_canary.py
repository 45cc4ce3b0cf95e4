"""No password is shown anywhere, whatever fails: canaries in every URL, and a search for them."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.bad_urls import BadUrl, malformed, misread, refused, wrong_servers
from tests.support.canary import ODD, USER, userinfo
from tests.support.household import Household
from tests.support.impostors import Impostors
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer, Server
from tests.support.waiting import eventually


@pytest.fixture
def household(tmp_path: Path, redis_url: str) -> Iterator[Household]:
    with closing(Household(tmp_path, redis_url)) as household:
        yield household


@pytest.fixture
def impostors() -> Iterator[Impostors]:
    with Impostors() as impostors:
        yield impostors


@pytest.fixture
def locked_redis() -> Iterator[RedisServer]:
    """A Redis that wants a password."""
    with RedisServer(requirepass=True) as redis:
        yield redis


def test_no_url_is_shown_that_never_works(
    household: Household,
    impostors: Impostors,
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
    rabbit_server: RabbitServer,
    locked_redis: RedisServer,
) -> None:
    postgres, mariadb, redis, rabbit = map(
        _place, (postgres_server, mariadb_server, locked_redis, rabbit_server)
    )
    in_postgres = (postgres, f"app:{postgres_server.password}", "/app")
    in_mariadb = (mariadb, f"app:{mariadb_server.password}", "/app")
    in_redis = (redis, f":{locked_redis.password}", "/0")
    urls = [
        *wrong_servers("database", "postgresql://", "/app", impostors),
        *wrong_servers("database", "mysql://", "/app", impostors),
        *wrong_servers("broker", "redis://", "/0", impostors),
        *wrong_servers("broker", "amqp://", "/app", impostors),
        *wrong_servers("broker", "sqla+postgresql://", "/app", impostors),
        *wrong_servers("broker", "sqla+mysql://", "/app", impostors),
        *wrong_servers("results", "redis://", "/0", impostors),
        *wrong_servers("results", "db+postgresql://", "/app", impostors),
        *wrong_servers("results", "db+mysql://", "/app", impostors),
        *malformed("database", "postgresql"),
        *malformed("database", "mysql"),
        *malformed("database", "sqlite"),
        *malformed("broker", "redis"),
        *malformed("broker", "amqp"),
        *malformed("broker", "sqla+postgresql"),
        *malformed("results", "redis"),
        *malformed("results", "db+mysql"),
        *misread("database", "postgresql"),
        *misread("database", "mysql"),
        *misread("database", "sqlite"),
        *misread("broker", "redis"),
        *misread("broker", "amqp"),
        *misread("results", "db+postgresql"),
        *refused("database", "postgresql://", *in_postgres),
        *refused("database", "mysql://", *in_mariadb),
        *refused("broker", "redis://", *in_redis),
        *refused("broker", "amqp://", rabbit, f"app:{rabbit_server.password}", "/app"),
        *refused("broker", "sqla+postgresql://", *in_postgres),
        *refused("broker", "sqla+mysql://", *in_mariadb),
        *refused("results", "redis://", *in_redis),
        *refused("results", "db+postgresql://", *in_postgres),
        *refused("results", "db+mysql://", *in_mariadb),
        *_tls_where_there_is_none(postgres, mariadb, redis),
    ]
    with household.run([household.job(each) for each in urls]) as process:
        _wait(partial(_all_told, household, process, urls))
        household.assert_silent(process)
    household.assert_wrote_nothing(process)


def _tls_where_there_is_none(postgres: str, mariadb: str, redis: str) -> Iterator[BadUrl]:
    user = userinfo(USER, ODD)
    required = f"postgresql://{user}@{postgres}/app?sslmode=require"
    yield BadUrl("tls-postgresql", "database", required, postgres)
    missing = f"mysql://{user}@{mariadb}/app?ssl_ca=/no/such/ca.crt"
    yield BadUrl("tls-mysql", "database", missing, mariadb)
    yield BadUrl("tls-redis", "broker", f"rediss://{user}@{redis}/0", redis)


def _place(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def _wait(told: partial[bool]) -> None:
    # The state may not be there yet, or locked.
    eventually(told, timeout=100, interval=0.5, ignoring=sqlite3.OperationalError)


def _all_told(household: Household, process: Process, urls: Sequence[BadUrl]) -> bool:
    """Whether each ScannerJob says that it is not ready, and names the place."""
    if not process.running:
        pytest.fail(f"it has ended: {process.log()}")
    ready = household.ready()
    untold = {each.name: ready.get(each.name) for each in urls if not _is_told(each, ready)}
    assert not untold, f"{len(untold)} of {len(urls)} do not say what they should: {untold}"
    return True


def _is_told(url: BadUrl, ready: dict[str, Mapping[str, str]]) -> bool:
    said = ready.get(url.name, {})
    return said.get("status") == "False" and url.is_named(said["message"])


# Failures of what works: the canaries are the passwords of users whom servers let in.


def _let_in_postgres(server: PostgresServer) -> str:
    with server.connect() as admin:
        admin.execute(
            f"CREATE ROLE \"{USER}\" LOGIN PASSWORD '{ODD}'"  # type: ignore[arg-type]
        )
    return _login_to(server.create_database())


def _let_in_mariadb(server: MariaDBServer) -> str:
    with server.connect() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE USER %s@'%%' IDENTIFIED BY %s", (USER, ODD))
        cursor.execute("GRANT ALL ON *.* TO %s@'%%'", (USER,))
    return _login_to(server.create_database())


def _let_in_redis(server: RedisServer) -> str:
    with server.client() as admin:
        admin.acl_setuser(USER, enabled=True, passwords=[f"+{ODD}"], keys=["*"], channels=["*"], commands=["+@all"])
    return _login_to(server.url)


def _let_in_rabbit(server: RabbitServer) -> str:
    server.ask("PUT", f"users/{encoded(USER)}", {"password": ODD, "tags": ""})
    rights = {"configure": ".*", "write": ".*", "read": ".*"}
    server.ask("PUT", f"permissions/app/{encoded(USER)}", rights)
    return _login_to(server.url)


def _login_to(url: str) -> str:
    """The same place, for the user whose name and password are canaries."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{userinfo(USER, ODD)}@{rest.rpartition('@')[2]}"


@pytest.fixture
def own_servers() -> Iterator[list[Server]]:
    """A server of each kind, to be killed and frozen; with users whose passwords are canaries."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(server())
            for server in (PostgresServer, MariaDBServer, RedisServer, RabbitServer)
        ]
