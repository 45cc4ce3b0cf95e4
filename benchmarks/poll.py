"""One look at 1,000 and at 1,000,000 matching rows: how long it takes, and what memory it needs.

Each is measured in a process of its own, so that the peak memory the kernel reports is that look's.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from sqlalchemy import create_engine, text

from benchmarks.table import Table, percentile
from scannerjob.model.spec import ScannerJobSpec, parse_spec
from scannerjob.sources import Databases
from scannerjob.urls import parse_database_url
from tests.support.servers import MariaDBServer, PostgresServer

SMALL, LARGE = 1_000, 1_000_000
CAP = 100
LOOKS = 400
ROUNDS = 3
SLOWER, GROWTH_MIB = 2.0, 5.0
MIB = 1024

_CREATE = {
    "postgresql": (
        "CREATE TABLE {table} (id int PRIMARY KEY, title text NOT NULL, done bool NOT NULL)",
        "INSERT INTO {table} SELECT n, 'A title of the usual length ' || n, false "
        "FROM generate_series(1, {rows}) n",
        "CREATE INDEX ON {table} (id) WHERE NOT done",
        "ANALYZE {table}",
    ),
    "mysql": (
        "CREATE TABLE {table} (id int PRIMARY KEY, title text NOT NULL, done bool NOT NULL, "
        "INDEX (done, id))",
        "INSERT INTO {table} SELECT seq, concat('A title of the usual length ', seq), false "
        "FROM seq_1_to_{rows}",
        "ANALYZE TABLE {table}",
    ),
    "sqlite": (
        "CREATE TABLE {table} (id integer PRIMARY KEY, title text NOT NULL, done bool NOT NULL)",
        "INSERT INTO {table} WITH RECURSIVE series(n) AS "
        "(SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < {rows}) "
        "SELECT n, 'A title of the usual length ' || n, false FROM series",
        "CREATE INDEX {table}_open ON {table} (id) WHERE NOT done",
        "ANALYZE",
    ),
}


def run() -> Table:
    """All three databases, ours and the naive way, at both sizes."""
    header = ["database", "way", "rows", "p50, ms", "p95, ms", "peak memory, MiB"]
    table = Table(f"One look at the database, cap {CAP}", header)
    with _databases() as urls:
        for name, url in urls.items():
            _create(url)
            _measure_ours(table, name, url)
            _measure_naive(table, name, url)
    return table


def _measure_ours(table: Table, name: str, url: str) -> None:
    # In turn, so that a machine which slows down slows both.
    rounds = [[_in_a_process("ours", url, rows) for rows in (SMALL, LARGE)] for _ in range(ROUNDS)]
    small, large = (_medians(each) for each in zip(*rounds, strict=True))
    for rows, figures in ((SMALL, small), (LARGE, large)):
        _add(table, name, "ScannerJob", rows, figures)
    ratio, growth = large["p95"] / small["p95"], large["mib"] - small["mib"]
    slower = f"{name}: p95 at {LARGE:,} rows is {ratio:.2f} times that at {SMALL:,}"
    table.bars.append((f"{slower} (bar: {SLOWER:g})", ratio <= SLOWER))
    grows = f"{name}: {LARGE:,} rows need {growth:.1f} MiB more than {SMALL:,}"
    table.bars.append((f"{grows} (bar: {GROWTH_MIB:g})", growth <= GROWTH_MIB))


def _measure_naive(table: Table, name: str, url: str) -> None:
    for rows in (SMALL, LARGE):
        way = f"all rows, the first {CAP} used"
        _add(table, name, way, rows, _in_a_process("naive", url, rows))


def _medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: median(run[name] for run in runs) for name in runs[0]}


def _add(table: Table, name: str, way: str, rows: int, figures: dict[str, float]) -> None:
    cells = (f"{figures['p50']:.2f}", f"{figures['p95']:.2f}", f"{figures['mib']:.1f}")
    table.rows.append([name, way, f"{rows:,}", *cells])


@contextmanager
def _databases() -> Iterator[dict[str, str]]:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        yield {
            "PostgreSQL": stack.enter_context(PostgresServer()).create_database(),
            "MariaDB": stack.enter_context(MariaDBServer()).create_database(),
            "SQLite": f"sqlite:///{Path(directory) / 'bench.db'}",
        }


def _create(url: str) -> None:
    parsed = parse_database_url(url)
    engine = create_engine(parsed)
    with engine.begin() as connection:
        for rows in (SMALL, LARGE):
            for statement in _CREATE[parsed.get_backend_name()]:
                connection.execute(text(statement.format(table=_table_of(rows), rows=rows)))
    engine.dispose()


def _table_of(rows: int) -> str:
    return f"pdf_{rows}"


def _in_a_process(way: str, url: str, rows: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.poll", way, url, str(rows)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def _main(way: str, url: str, rows: int) -> None:
    figures = asyncio.run(_look_often(url, rows)) if way == "ours" else _fetch_all(url, rows)
    print(json.dumps(figures))


async def _look_often(url: str, rows: int) -> dict[str, float]:
    databases = Databases()
    source = databases.open(url, _spec(rows))
    for _ in range(10):  # connects, and lets the server warm its cache
        await source.scan(1)
    samples = []
    for _ in range(LOOKS):
        started = time.perf_counter()
        found = await source.scan(CAP)
        samples.append(time.perf_counter() - started)
        assert len(found.rows) == CAP
    databases.close()
    return _figures(samples)


def _fetch_all(url: str, rows: int) -> dict[str, float]:
    engine = create_engine(parse_database_url(url))
    samples = []
    for _ in range(3):
        started = time.perf_counter()
        with engine.connect() as connection:
            found = connection.execute(text(_spec(rows).query)).fetchall()[:CAP]
        samples.append(time.perf_counter() - started)
        assert len(found) == CAP
    return _figures(samples)


def _figures(samples: list[float]) -> dict[str, float]:
    return {
        "p50": median(samples) * 1000,
        "p95": percentile(samples, 0.95) * 1000,
        "mib": _peak(),
    }


def _peak() -> float:
    """Of this program alone: getrusage would count what its parent took before it began."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (kib,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return kib / MIB


def _spec(rows: int) -> ScannerJobSpec:
    secret = {"urlSecretRef": {"name": "any", "key": "url"}}
    return parse_spec(
        {
            "database": secret,
            "query": f"SELECT id, title FROM {_table_of(rows)} WHERE NOT done ORDER BY id",
            "celery": {"broker": secret, "task": "tasks.work"},
        }
    )


if __name__ == "__main__":
    _main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
