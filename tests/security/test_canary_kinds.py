"""No kind of failure shows a password: how many are tried, and those that are tried nowhere else.

The others are in tests/services/test_canary.py (a scanner), tests/cluster/test_canary.py (an
operator: its log, status, Events and health) and tests/unit/test_cli_canary.py (what people type).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.operators import operator_account
from tests.cluster.workload import scannerjob, secret
from tests.support.bad_urls import (
    SecretUrl,
    malformed,
    misread,
    refused,
    tls_where_there_is_none,
    wrong_servers,
)
from tests.support.barred import (
    barred_from_mariadb,
    barred_from_postgres,
    barred_from_rabbit,
    barred_from_redis,
)
from tests.support.canary import MARK, ODD, assert_none, songs, songs_in_processes, userinfo
from tests.support.controlplane import ControlPlane
from tests.support.household import Household
from tests.support.impostors import Impostors
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer
from tests.support.waiting import eventually

# Beside those of bad URLs and users, by the tests that bring them about.
OTHERS = (
    # tests/services/test_canary.py
    "frozen",
    "killed",
    "state-refused",
    "state-frozen",
    "bug-in-a-cycle",
    "bug-in-the-state",
    # tests/cluster/test_secrets.py, tests/cluster/test_operator.py
    "no-right-to-the-secret",
    "secret-missing",
    # tests/unit/test_cli_canary.py
    "typed-in-a-wrong-place",
    "written-in-a-wrong-field",
    "name-of-a-thread",
    # here
    "debug-level",
    "bug-under-kopf-run",
)

_DEBUG = """
import logging
from scannerjob import logs

def set_up_logging(level=logging.INFO, set_up=logs.set_up_logging):
    set_up(logging.DEBUG)
    logging.getLogger().setLevel(logging.DEBUG)

logs.set_up_logging = set_up_logging
"""
_BUG = """
from scannerjob.sources.engines import Server

async def fail(self, *_):
    raise ValueError(f"what is {self._url!r}?")

Server.run = fail
"""


@pytest.fixture
def barred(
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
    rabbit_server: RabbitServer,
    locked_redis: RedisServer,
) -> list[SecretUrl]:
    return [
        *barred_from_postgres(postgres_server),
        *barred_from_mariadb(mariadb_server),
        *barred_from_redis(locked_redis),
        *barred_from_rabbit(rabbit_server),
    ]


@pytest.fixture
def household(tmp_path: Path, redis_url: str) -> Iterator[Household]:
    with closing(Household(tmp_path, redis_url)) as household:
        yield household


def test_there_are_more_than_fifty_kinds(
    impostors: Impostors, barred: list[SecretUrl], capsys: pytest.CaptureFixture[str]
) -> None:
    """However many databases, brokers and places in a spec each of them is tried with."""
    urls = [
        *wrong_servers("database", "postgresql://", "/app", impostors),
        *malformed("database", "postgresql"),
        *misread("database", "postgresql"),
        *refused("database", "postgresql://", "127.0.0.1:1", "app", "/app"),
        *tls_where_there_is_none("127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"),
        *barred,
    ]
    kinds = {*(each.failure for each in urls), *OTHERS}
    with capsys.disabled():
        print(f"\n{len(kinds)} kinds of failure show no password: {', '.join(sorted(kinds))}")
    assert "" not in kinds
    assert len(kinds) > 50


@pytest.mark.timeout(300)
def test_no_level_of_logging_shows_a_password(
    household: Household, impostors: Impostors, barred: list[SecretUrl]
) -> None:
    """All that ScannerJob and its libraries have to say, of users whom real servers refuse too."""
    (household.folder / "sitecustomize.py").write_text(_DEBUG)
    urls = [
        *barred,
        *wrong_servers("database", "postgresql://", "/app", impostors),
        *wrong_servers("database", "mysql://", "/app", impostors),
        *wrong_servers("broker", "redis://", "/0", impostors),
        *wrong_servers("broker", "amqp://", "/app", impostors),
    ]
    files = [household.job(each) for each in urls]
    with household.run(files, path=household.folder) as process:
        eventually(partial(_all_told, household, process, urls), timeout=200, interval=0.5)
        household.assert_silent(process)
    assert " DEBUG " in process.log()
    household.assert_wrote_nothing(process)


def _all_told(household: Household, process: Process, urls: Sequence[SecretUrl]) -> bool:
    """Whether each ScannerJob says that it is not ready."""
    assert process.running, process.log()
    ready = household.ready() if household.file.exists() else {}
    untold = {each.name: ready.get(each.name) for each in urls if not _is_told(each, ready)}
    assert not untold
    return True


def _is_told(url: SecretUrl, ready: dict[str, Mapping[str, str]]) -> bool:
    said = ready.get(url.name, {})
    return said.get("status") == "False" and url.is_named(said["message"])


def test_kopf_shows_no_password_at_its_most_talkative(
    cluster: ControlPlane, namespace: str, redis_url: str, tmp_path: Path
) -> None:
    """Under `kopf run` the log is kopf's: all libraries say all they can, a bug quotes a URL."""
    (tmp_path / "sitecustomize.py").write_text(_BUG)
    url = f"postgresql://{userinfo(MARK, ODD)}@127.0.0.1:1/app"
    cluster.apply(
        secret(namespace, "app-db", url=url),
        secret(namespace, "app-redis", url=redis_url),
        scannerjob(namespace),
    )
    module = [sys.executable, "-m", "kopf", "run", "--verbose", "--debug"]
    command = [*module, "-m", "scannerjob.controller", "-n", namespace]
    kubeconfig = str(operator_account(cluster, namespace))
    paths = os.pathsep.join((str(tmp_path), str(Path("operator").absolute())))
    env = {**os.environ, "KUBECONFIG": kubeconfig, "PYTHONPATH": paths}
    with Process(command, log=tmp_path / "kopf.log", env=env) as process:
        said = "ValueError: what is "
        eventually(lambda: said in process.log(), timeout=60, message="the bug is told")
        assert_none(songs_in_processes(process.pid, given=""))
    assert_none(songs(process.log()))
    assert "[DEBUG" in process.log()
