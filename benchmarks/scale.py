"""Many ScannerJobs at once: when each is polled, as the database itself logs it, and what it takes.

None of them has any rows: what is measured is the looking. The polls are read from PostgreSQL's own
log, memory from the operator's process, connections from PostgreSQL.
"""

import re
import socket
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise

import psutil
import psycopg
from kubernetes import client

from benchmarks.cluster import admin, cluster, create_scannerjobs, database, job, operator, secret
from benchmarks.table import Table, percentile
from tests.cluster.operators import operator_account
from tests.support.processes import Process
from tests.support.servers import PostgresServer

INTERVAL = 30.0
INTERVALS = 2
HUNG = 20
ALL_WITHIN = 300.0
_POLL = re.compile(r"^(\d+\.\d+) .*DECLARE .*FROM pdf AS poll_(\w+)", re.M)


@dataclass
class Measured:
    """What one run showed."""

    scannerjobs: int
    first: list[float] = field(default_factory=list)
    skews: list[float] = field(default_factory=list)
    skews_beside_hung: list[float] = field(default_factory=list)
    new_one: float = 0.0
    rss: float = 0.0
    connections: int = 0


def run() -> Table:
    """1,000 ScannerJobs, which have to reach the bars, and 5,000, which are only told of."""
    small, large = _measure(1000, beside_hung=True), _measure(5000, beside_hung=False)
    header = ["ScannerJobs", "all polled after, s", "skew p50, s", "p99", "p99 beside hung ones"]
    table = Table(
        f"Many ScannerJobs, interval {INTERVAL:g} s", [*header, "RSS, MiB", "connections"]
    )
    table.rows += [_row(small), _row(large)]
    p99, hung = percentile(small.skews, 0.99), percentile(small.skews_beside_hung, 0.99)
    table.bars += [
        (
            f"1,000 are all polled {max(small.first):.1f} s after the start (bar: 35)",
            len(small.first) == 1000 and max(small.first) <= 35,
        ),
        (f"p99 of the skew is {p99:.3f} s (bar: 1)", p99 < 1),
        (f"with {HUNG} more on a database that hangs it is {hung:.3f} s", hung < 1),
        (
            f"one that is applied then is polled after {small.new_one:.2f} s (bar: 2)",
            small.new_one <= 2,
        ),
        (f"the operator takes {small.rss:.0f} MiB (bar: 256)", small.rss <= 256),
        (f"{small.connections} connections to the database (bar: 10)", small.connections <= 10),
    ]
    return table


def _row(seen: Measured) -> Sequence[str]:
    beside = seen.skews_beside_hung
    return [
        f"{seen.scannerjobs:,}",
        f"{max(seen.first):.1f}",
        f"{percentile(seen.skews, 0.5):.3f}",
        f"{percentile(seen.skews, 0.99):.3f}",
        f"{percentile(beside, 0.99):.3f}" if beside else "",
        f"{seen.rss:.0f}",
        str(seen.connections),
    ]


def _measure(count: int, *, beside_hung: bool) -> Measured:
    with cluster() as plane, PostgresServer() as postgres, _black_hole() as hole:
        namespace = plane.create_namespace("bench")
        url = _logged_database(postgres)
        plane.apply(secret(namespace, "db", url), secret(namespace, "hole", hole))
        api = admin(plane)
        specs = {f"scan-{number}": _spec(str(number)) for number in range(count)}
        create_scannerjobs(api, namespace, specs)
        seen = Measured(count)
        process = operator(plane, namespace, operator_account(plane, namespace))
        started = time.time()
        with process:
            while len(_polls(postgres)) < count and time.time() < started + ALL_WITHIN:
                _wait(process, 5)
            settled = time.time()
            _wait(process, (INTERVALS + 1) * INTERVAL)
            polls = _polls(postgres)
            seen.first = [each[0] - started for each in polls.values()]
            seen.skews = _skews(polls, after=settled)
            seen.rss = psutil.Process(process.pid).memory_info().rss / 2**20
            seen.connections = _connections(postgres, url)
            if beside_hung:
                _beside_hung(api, namespace, postgres, process, seen)
        api.close()  # type: ignore[no-untyped-call]  # the client has no types there
    return seen


def _beside_hung(
    api: client.ApiClient,
    namespace: str,
    postgres: PostgresServer,
    process: Process,
    seen: Measured,
) -> None:
    hung = {f"hung-{number}": _spec(f"hung_{number}", "hole") for number in range(HUNG)}
    create_scannerjobs(api, namespace, hung)
    began = time.time()
    _wait(process, INTERVALS * INTERVAL)
    seen.skews_beside_hung = _skews(_polls(postgres), after=began)
    applied = time.time()
    create_scannerjobs(api, namespace, {"new": _spec("new")})
    while "new" not in (polls := _polls(postgres)) and time.time() < applied + 60:
        time.sleep(0.1)
    seen.new_one = polls["new"][0] - applied if "new" in polls else 60.0


def _spec(name: str, secret_name: str = "db") -> Mapping[str, object]:
    return {
        "database": database(secret_name),
        "query": f"SELECT id FROM pdf AS poll_{name} WHERE NOT done",
        "interval": f"{INTERVAL:g}s",
        "job": job("work", "$(ID)"),
    }


def _wait(process: Process, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.running, process.log()
        time.sleep(1)


def _logged_database(postgres: PostgresServer) -> str:
    """A new database all of whose statements are logged, with the time of each."""
    url = postgres.create_database()
    with _connected(postgres.as_admin(url)) as connection:
        connection.execute("ALTER SYSTEM SET log_line_prefix = '%n '")
        connection.execute("ALTER SYSTEM SET log_statement = 'all'")
        connection.execute("SELECT pg_reload_conf()")
    with _connected(url) as connection:
        connection.execute("CREATE TABLE pdf (id serial PRIMARY KEY, done bool)")
        connection.execute("CREATE INDEX ON pdf (id) WHERE NOT done")
    return url


def _connected(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True)


def _polls(postgres: PostgresServer) -> Mapping[str, list[float]]:
    """When each ScannerJob's query ran."""
    times: dict[str, list[float]] = defaultdict(list)
    for moment, name in _POLL.findall(postgres.log()):
        if "EXPLAIN" not in name:
            times[name].append(float(moment))
    return times


def _skews(polls: Mapping[str, list[float]], after: float) -> list[float]:
    """How far the time between two polls is from the interval."""
    return [
        abs(second - first - INTERVAL)
        for times in polls.values()
        for first, second in pairwise(times)
        if first > after
    ]


def _connections(postgres: PostgresServer, url: str) -> int:
    with _connected(postgres.as_admin(url)) as connection:
        found = connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'")
        row = found.fetchone()
    assert row
    return int(str(row[0]))


@contextmanager
def _black_hole() -> Iterator[str]:
    """The URL of a database that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1024)
        yield f"postgresql://app:secret@127.0.0.1:{server.getsockname()[1]}/app"
