"""No password is shown anywhere, whatever fails: canaries in every URL, and a search for them."""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.canary import (
    LONG,
    MARK,
    ODD,
    PLAIN,
    QUOTED,
    encoded,
    songs,
    songs_in_files,
    songs_in_processes,
    userinfo,
)
from tests.support.impostors import Impostors
from tests.support.processes import Process
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer
from tests.support.site import Site
from tests.support.waiting import eventually

USER = f"{MARK}@{MARK}"
_STATE = "SCANNERJOB_STATE"
_FIELDS = {
    "database": "spec.database",
    "broker": "spec.celery.broker",
    "results": "spec.celery.resultBackend",
}


@dataclass(frozen=True)
class Failure:
    """A URL that cannot work, in one of a ScannerJob's Secrets, and the place to be named."""

    what: str
    part: str
    url: str | bytes
    place: str = ""

    @property
    def name(self) -> str:
        return f"{self.part}-{self.what}"

    def is_named(self, said: str) -> bool:
        """Whether a message names the host or, where the URL cannot be read, the field."""
        return any(place in said for place in (self.place, _FIELDS[self.part]) if place)


class Household:
    """`scannerjob run` in a directory of its own, and all that can be seen of it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        (folder / "site").mkdir()
        for each in ("work", "tmp"):
            (folder / each).mkdir()
        self.folder = folder
        self.site = Site(folder / "site", f"sqlite:///{folder / 'app.sqlite'}")
        self.site.put_secret("app-broker", redis_url)
        self.site.add_rows(1, 1)
        self.file = folder / "work" / "state.sqlite"

    def job(self, failure: Failure) -> Path:
        """The ScannerJob that has this URL, all else being right."""
        self.put(failure)
        reference = {"urlSecretRef": {"name": failure.name, "key": "url"}}
        field = {
            "database": "database",
            "broker": "celery__broker",
            "results": "celery__resultBackend",
        }[failure.part]
        changes: dict[str, Any] = {field: reference}
        return self.site.scanner_job(failure.name, queryTimeout="3s", **changes)

    def put(self, failure: Failure) -> None:
        """Write its Secret."""
        folder = self.site.secrets / failure.name
        folder.mkdir(exist_ok=True)
        url = failure.url
        (folder / "url").write_bytes(url.encode() if isinstance(url, str) else url)

    def run(self, files: Sequence[Path], state: str | None = None, log: str = "run") -> Process:
        """The process, which is told of its state in the environment alone; not yet started."""
        arguments = [argument for file in files for argument in ("-f", str(file))]
        environment = {
            **os.environ,
            _STATE: state or f"sqlite:///{self.file}",
            "TMPDIR": str(self.folder / "tmp"),
            "PYTHONPATH": str(Path("operator").absolute()),
        }
        return Process(
            [
                *(sys.executable, "-m", "scannerjob", "run", *arguments),
                *("--secrets", str(self.site.secrets)),
            ],
            log=self.folder / f"{log}.log",
            cwd=self.folder / "work",
            env=environment,
        )

    def statuses(self) -> dict[str, Any]:
        """The status of each ScannerJob in the SQLite state, as far as there is one."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as state:
            rows = state.execute("SELECT name, status FROM scannerjob_ledger")
            return {name: json.loads(status) for name, status in rows}

    def assert_silent(self, process: Process) -> None:
        """Nothing of a canary is in what the process says, writes and shows of itself."""
        assert process.running, process.log()
        assert songs_in_processes(process.pid, given=_STATE) == []
        assert songs(process.log()) == []
        assert songs_in_files(self.folder / "work") == []
        assert songs_in_files(self.folder / "tmp") == []
        assert "Traceback" not in process.log()


@pytest.fixture
def household(tmp_path: Path, redis_url: str) -> Iterator[Household]:
    household = Household(tmp_path, redis_url)
    with closing(household.site):
        yield household


@pytest.fixture
def impostors() -> Iterator[Impostors]:
    with Impostors() as impostors:
        yield impostors


def _wrong_servers(part: str, begin: str, end: str, impostors: Impostors) -> list[Failure]:
    """A host that is not there, and those that are not what they should be."""
    places = {
        "unknown-host": "canary-test.invalid",
        "refused": impostors.refused,
        "hole": impostors.hole,
        "closes": impostors.closes,
        "http": impostors.http,
        "noise": impostors.noise,
        "echo": impostors.echo,
        "tattler": impostors.pg_tattler if "postgresql" in begin else impostors.tattler,
        "gossip": impostors.gossip,
    }
    passwords = dict.fromkeys(places, ODD) | {"tattler": QUOTED, "gossip": LONG, "hole": PLAIN}
    return [
        Failure(
            f"{begin.partition(':')[0].replace('+', '-')}-{what}",
            part,
            f"{begin}{userinfo(USER, passwords[what])}@{place}{end}",
            place,
        )
        for what, place in places.items()
    ]


def _malformed(part: str, scheme: str) -> list[Failure]:
    """URLs that no parser should take, or takes for another one."""
    good = f"{MARK}:{PLAIN}@127.0.0.1:1"
    urls: Mapping[str, str | bytes] = {
        "empty": "",
        "blank": " \n",
        "password-alone": PLAIN,
        "password-and-at": f":{PLAIN}@",
        "no-scheme": f"{good}/app",
        "one-slash": f"{scheme}:/{good}/app",
        "no-colon": f"{scheme}//{good}/app",
        "password-as-scheme": f"{PLAIN}://127.0.0.1:1/app",
        "unknown-scheme": f"oracle://{good}/app",
        "unknown-driver": f"{scheme}+{MARK}://{good}/app",
        "not-encoded": f"{scheme}://app:{ODD}@127.0.0.1:1/app",
        "slash": f"{scheme}://app:{MARK}/{PLAIN}@127.0.0.1:1/1",
        "hash": f"{scheme}://app:{MARK}#{PLAIN}@127.0.0.1:1/1",
        "question-mark": f"{scheme}://app:{MARK}?{PLAIN}@127.0.0.1:1/1",
        "two-at": f"{scheme}://app:{PLAIN}@{MARK}@127.0.0.1:1/1",
        "colon-and-slash": f"{scheme}://app:6379/{PLAIN}@127.0.0.1/1",
        "port-of-letters": f"{scheme}://app:{PLAIN}@127.0.0.1:port/1",
        "port-is-password": f"{scheme}://app@127.0.0.1:{PLAIN}/1",
        "no-at": f"{scheme}://app:{PLAIN}",
        "large-port": f"{scheme}://app:{PLAIN}@127.0.0.1:99999/1",
        "bracket": f"{scheme}://app:[{PLAIN}@127.0.0.1/1",
        "two-lines": f"{scheme}://app:{MARK}\n{PLAIN}@127.0.0.1:1/1",
        "nul": f"{scheme}://app:{MARK}\0{PLAIN}@127.0.0.1:1/1",
        "option": f"{scheme}://{good}/1?{PLAIN}={PLAIN}",
        "password-option": f"{scheme}://127.0.0.1:1/1?password={PLAIN}",
        "latin-1": f"{scheme}://app:{MARK}ü{PLAIN}@127.0.0.1:1/1".encode("latin-1"),
        "utf-16": f"{scheme}://{good}/1".encode("utf-16"),
        "two-urls": f"{scheme}://{good}/1;{scheme}://{good}/2",
        "yaml": f"url: {scheme}://{good}/1",
        "quotes": f"'{scheme}://{good}/1'",
    }
    label = scheme.replace("+", "-")
    # Some may be read after all; then the host is named, which does not answer.
    return [Failure(f"{label}-{what}", part, url, "127.0.0.1:") for what, url in urls.items()]


def _refused_by_servers(
    postgres: PostgresServer, mariadb: MariaDBServer, redis: RedisServer
) -> list[Failure]:
    """What real servers say of a wrong password, an unknown user, a wrong database."""
    places = {server: f"127.0.0.1:{server.port}" for server in (postgres, mariadb, redis)}
    failures = []
    for kind, server in (("postgresql", postgres), ("mysql", mariadb)):
        place = places[server]
        known = f"app:{encoded(server.password)}@{place}"
        urls = {
            "wrong-password": f"app:{encoded(ODD)}@{place}/app",
            "quoted-password": f"app:{encoded(QUOTED)}@{place}/app",
            "long-password": f"app:{LONG}@{place}/app",
            "nul-in-password": f"app:{MARK}%00{PLAIN}@{place}/app",
            "no-utf-8-in-password": f"app:{MARK}%ff{PLAIN}@{place}/app",
            "unknown-user": f"{userinfo(USER, PLAIN)}@{place}/app",
            "wrong-database": f"{known}/nowhere",
        }
        for part, begin in (("database", ""), ("broker", "sqla+"), ("results", "db+")):
            failures += [
                Failure(f"{kind}-{what}", part, f"{begin}{kind}://{url}", place)
                for what, url in urls.items()
            ]
    for what, login in {
        "wrong-password": f":{encoded(ODD)}",
        "wrong-user": userinfo(USER, QUOTED),
        "long-password": f":{LONG}",
        "nul-in-password": f":{MARK}%00{PLAIN}",
        "no-utf-8-in-password": f":{MARK}%ff{PLAIN}",
    }.items():
        url = f"redis://{login}@{places[redis]}/0"
        failures += [
            Failure(f"redis-{what}", part, url, places[redis]) for part in ("broker", "results")
        ]
    return failures


def _tls_where_there_is_none(
    postgres: PostgresServer, mariadb: MariaDBServer, redis: RedisServer
) -> list[Failure]:
    place = f"127.0.0.1:{postgres.port}"
    url = f"postgresql://{userinfo(USER, ODD)}@{place}/app?sslmode=require"
    other = f"127.0.0.1:{mariadb.port}"
    missing = f"mysql://{userinfo(USER, ODD)}@{other}/app?ssl_ca=/nowhere/ca.crt"
    return [
        Failure("tls-postgresql", "database", url, place),
        Failure("tls-mysql", "database", missing, other),
        Failure("tls-redis", "broker", f"rediss://:{encoded(ODD)}@127.0.0.1:{redis.port}/0"),
    ]


def test_no_url_that_fails_is_shown(
    household: Household,
    impostors: Impostors,
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
) -> None:
    with RedisServer(requirepass=True) as redis:
        failures = [
            *_wrong_servers("database", "postgresql://", "/app", impostors),
            *_wrong_servers("database", "mysql://", "/app", impostors),
            *_wrong_servers("broker", "redis://", "/0", impostors),
            *_wrong_servers("broker", "sqla+postgresql://", "/app", impostors),
            *_wrong_servers("broker", "sqla+mysql://", "/app", impostors),
            *_wrong_servers("results", "redis://", "/0", impostors),
            *_wrong_servers("results", "db+postgresql://", "/app", impostors),
            *_wrong_servers("results", "db+mysql://", "/app", impostors),
            *_malformed("database", "postgresql"),
            *_malformed("database", "mysql"),
            *_malformed("database", "sqlite"),
            *_malformed("broker", "redis"),
            *_malformed("broker", "sqla+postgresql"),
            *_malformed("results", "redis"),
            *_malformed("results", "db+mysql"),
            *_refused_by_servers(postgres_server, mariadb_server, redis),
            *_tls_where_there_is_none(postgres_server, mariadb_server, redis),
        ]
        with household.run([household.job(each) for each in failures]) as process:
            eventually(
                lambda: _all_told(household, failures),
                timeout=100,
                interval=0.5,
                ignoring=sqlite3.OperationalError,
            )
            household.assert_silent(process)


def _all_told(household: Household, failures: Sequence[Failure]) -> bool:
    """Whether each ScannerJob says that it is not ready, and names the place."""
    statuses = household.statuses()
    said = {each: _trouble(statuses.get(each.name, {})) for each in failures}
    untold = {each.name: told for each, told in said.items() if not each.is_named(told)}
    assert not untold, f"{len(untold)} of {len(failures)} do not say what they should: {untold}"
    return True


def _trouble(status: Mapping[str, Any]) -> str:
    found = [each for each in status.get("conditions", ()) if each["type"] == "Ready"]
    return " ".join(
        f"{each['reason']}: {each['message']}" for each in found if each["status"] == "False"
    )
