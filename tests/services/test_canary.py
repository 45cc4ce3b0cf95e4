"""No password is shown anywhere, whatever fails: canaries in every URL, and a search for them."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.bad_urls import (
    SecretUrl,
    malformed,
    misread,
    refused,
    tls_where_there_is_none,
    wrong_servers,
)
from tests.support.canary import ODD, USER, assert_none, encoded, songs, userinfo
from tests.support.household import Household, dump
from tests.support.impostors import Impostors
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import (
    DatabaseServer,
    MariaDBServer,
    PostgresServer,
    RedisServer,
    Server,
)
from tests.support.waiting import eventually


@pytest.fixture
def household(tmp_path: Path, redis_url: str) -> Iterator[Household]:
    with closing(Household(tmp_path, redis_url)) as household:
        yield household


@pytest.mark.timeout(300)
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
        *wrong_servers("broker", "rediss://", "/0", impostors),
        *wrong_servers("broker", "amqps://", "/app", impostors),
        *wrong_servers("broker", "sqla+postgresql://", "/app", impostors),
        *wrong_servers("broker", "sqla+mysql://", "/app", impostors),
        *wrong_servers("results", "redis://", "/0", impostors),
        *wrong_servers("results", "db+postgresql://", "/app", impostors),
        *wrong_servers("results", "db+mysql://", "/app", impostors),
        *_some(wrong_servers("guard", "redis://", "/0", impostors), "hole", "tattler"),
        *_some(wrong_servers("guard", "postgresql://", "/app", impostors), "tattler"),
        *malformed("database", "postgresql"),
        *malformed("database", "sqlite"),
        *malformed("guard", "redis"),
        *malformed("broker", "redis"),
        *malformed("broker", "amqp"),
        *malformed("broker", "amqps"),
        *malformed("results", "rediss"),
        *malformed("broker", "sqla+postgresql"),
        *malformed("results", "db+mysql"),
        *misread("database", "postgresql"),
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
        *_some(refused("guard", "redis://", *in_redis), "wrong-password"),
        *_some(refused("guard", "postgresql://", *in_postgres), "wrong-password"),
        *_some(refused("guard", "mysql://", *in_mariadb), "wrong-password"),
        *tls_where_there_is_none(postgres, mariadb, redis),
    ]
    with household.run([household.job(each) for each in urls]) as process:
        _wait(partial(_all_told, household, process, urls))
        household.assert_silent(process)
    household.assert_wrote_nothing(process)


def _place(server: Server) -> str:
    return f"127.0.0.1:{server.port}"


def _wait(told: partial[bool]) -> None:
    # The state may not be there yet, or locked.
    eventually(told, timeout=200, interval=0.5, ignoring=sqlite3.OperationalError)


def _all_told(household: Household, process: Process, urls: Sequence[SecretUrl]) -> bool:
    """Whether each ScannerJob says that it is not ready, and names the place."""
    if not process.running:
        pytest.fail(f"it has ended: {process.log()}")
    ready = household.ready()
    untold = {each.name: ready.get(each.name) for each in urls if not _is_told(each, ready)}
    assert not untold, f"{len(untold)} of {len(urls)} do not say what they should: {untold}"
    return True


def _is_told(url: SecretUrl, ready: dict[str, Mapping[str, str]]) -> bool:
    said = ready.get(url.name, {})
    return said.get("status") == "False" and url.is_named(said["message"])


# Failures of what works: the canaries are the passwords of users whom servers let in.


def _let_in_postgres(server: PostgresServer) -> str:
    with server.connect() as admin:
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (USER,)).fetchone():
            admin.execute(f"CREATE ROLE \"{USER}\" LOGIN PASSWORD '{ODD}' IN ROLE app")
    return _login_to(server.create_database())


def _let_in_mariadb(server: MariaDBServer) -> str:
    with server.connect() as admin, admin.cursor() as cursor:
        cursor.execute("CREATE USER IF NOT EXISTS %s@'%%' IDENTIFIED BY %s", (USER, ODD))
        cursor.execute("GRANT ALL ON *.* TO %s@'%%'", (USER,))
    return _login_to(server.create_database())


def _let_in_redis(server: RedisServer) -> str:
    with server.client() as admin:
        admin.acl_setuser(
            *(USER, True),
            passwords=[f"+{ODD}"],
            keys=["*"],
            channels=["*"],
            commands=["+@all"],
        )
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


@pytest.mark.timeout(300)
def test_no_password_is_shown_when_servers_freeze_and_die(
    household: Household,
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
    rabbit_server: RabbitServer,
    locked_redis: RedisServer,
) -> None:
    servers = (postgres_server, mariadb_server, rabbit_server, locked_redis)
    postgres, mariadb = _let_in_postgres(postgres_server), _let_in_mariadb(mariadb_server)
    rabbit, redis = _let_in_rabbit(rabbit_server), _let_in_redis(locked_redis)
    urls = [
        SecretUrl("postgresql", "database", postgres, _place(postgres_server)),
        SecretUrl("mysql", "database", mariadb, _place(mariadb_server)),
        SecretUrl("amqp", "broker", rabbit, _place(rabbit_server)),
        SecretUrl("redis", "broker", redis, _place(locked_redis)),
        SecretUrl("sqla", "broker", f"sqla+{postgres}", _place(postgres_server)),
        SecretUrl("redis", "results", redis, _place(locked_redis)),
        SecretUrl("postgresql", "results", f"db+{postgres}", _place(postgres_server)),
        SecretUrl("mysql", "results", f"db+{mariadb}", _place(mariadb_server)),
        SecretUrl("redis", "guard", redis, _place(locked_redis)),
        SecretUrl("postgresql", "guard", postgres, _place(postgres_server)),
        SecretUrl("mysql", "guard", mariadb, _place(mariadb_server)),
    ]
    with household.run([_job_that_works(household, each) for each in urls]) as process:
        _wait(partial(_all_ready, household, process, urls))
        household.assert_silent(process)
        for server in servers:
            server.pause()
        household.site.add_rows(2, 2)
        _wait(partial(_all_told, household, process, urls))
        household.assert_silent(process)
        for server in servers:
            server.resume()
        _wait(partial(_all_ready, household, process, urls))
        for server in servers:
            server.kill()
        household.site.add_rows(3, 3)
        _wait(partial(_all_told, household, process, urls))
        household.assert_silent(process)
    household.assert_wrote_nothing(process)


def _job_that_works(household: Household, url: SecretUrl) -> Path:
    if url.part == "database":
        return household.job(url, query="SELECT 1 AS pdf_id")
    return household.job(url)


def _all_ready(household: Household, process: Process, urls: Sequence[SecretUrl]) -> bool:
    if not process.running:
        pytest.fail(f"it has ended: {process.log()}")
    ready = household.ready()
    waiting = {u.name: ready.get(u.name) for u in urls if not _is_ready(u, ready)}
    assert not waiting, waiting
    return True


def _is_ready(url: SecretUrl, ready: Mapping[str, Mapping[str, str]]) -> bool:
    return ready.get(url.name, {}).get("status") == "True"


# The state's own URL.


def test_no_url_of_a_state_is_shown(
    household: Household,
    impostors: Impostors,
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
) -> None:
    postgres, mariadb = _place(postgres_server), _place(mariadb_server)
    good = [
        SecretUrl("good-postgresql", "database", _let_in_postgres(postgres_server), postgres),
        SecretUrl("good-mysql", "database", _let_in_mariadb(mariadb_server), mariadb),
    ]
    bad = [
        *_some(wrong_servers("database", "postgresql://", "/app", impostors), "hole", "tattler"),
        *_some(wrong_servers("database", "mysql://", "/app", impostors), "noise"),
        *_some(refused("database", "postgresql://", postgres, "", "/app"), "wrong-password"),
        *_some(refused("database", "mysql://", mariadb, "", "/app"), "wrong-password"),
        *_some(tls_where_there_is_none(postgres, mariadb, ""), "postgresql"),
    ]
    file = household.site.scanner_job()
    with ExitStack() as stack:
        runs = {each: household.run([file], str(each.url), each.name) for each in (*good, *bad)}
        for process in runs.values():
            stack.callback(process.start().kill)
        for each in good:
            eventually(partial(_says, runs[each], "default/pages: scanning"), timeout=60)
            assert_none(songs(dump(_as_admin(each, postgres_server, mariadb_server))))
        postgres_server.pause()
        mariadb_server.kill()
        for each, process in runs.items():
            eventually(partial(_says, process, "LedgerUnreachable", each.place), timeout=60)
            household.assert_silent(process)


def _as_admin(url: SecretUrl, *servers: DatabaseServer) -> str:
    (server,) = (each for each in servers if _place(each) == url.place)
    return server.as_admin(str(url.url))


def _some(urls: Iterator[SecretUrl], *ends: str) -> list[SecretUrl]:
    return [each for each in urls if each.what.endswith(ends)]


def _says(process: Process, *words: str) -> bool:
    return all(word in process.log() for word in words)


# A bug, which quotes what it was given.

_BUG = """
from scannerjob.sources.engines import Server
from scannerjob.stores.sql import SqlStore

async def fail(self, *_):
    raise ValueError(f"what is {self._url if hasattr(self, '_url') else self._database._text!r}?")

NAME.METHOD = fail
"""


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("Server.run", "a bug ended its cycle"),
        ("SqlStore.apply", "a bug has ended this process"),
    ],
)
def test_no_url_is_shown_by_a_bug(
    where: str, told: str, household: Household, postgres_server: PostgresServer
) -> None:
    (household.folder / "sitecustomize.py").write_text(_BUG.replace("NAME.METHOD", where))
    url = _let_in_postgres(postgres_server)
    file = household.job(SecretUrl("postgresql", "database", url))
    with household.run([file], url, path=household.folder) as process:
        eventually(partial(_says, process, told, "ValueError: what is ", "***"), timeout=60)
    assert_none(songs(process.log()))
