"""Reading 1,000 outcomes from a result backend: through the Celery target, and one by one."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median
from uuid import uuid4

from celery import Celery
from celery.backends.database import DatabaseBackend

from benchmarks.table import Table
from scannerjob.model.facts import Fact
from scannerjob.model.spec import parse_spec
from scannerjob.targets.celery import Brokers
from tests.support.servers import PostgresServer, RedisServer

TASKS = 1000
ROUNDS = 7
BAR = 25.0


def run() -> Table:
    """Results that Celery itself has stored, read in the two ways in turn."""
    header = ["result backend", "way", "ms, median", "min", "max"]
    table = Table(f"Reading {TASKS:,} outcomes", header)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        postgres = stack.enter_context(PostgresServer())
        backends = {"Redis": redis.url, "PostgreSQL": f"db+{postgres.create_database()}"}
        for name, results in backends.items():
            _measure(table, name, redis.url, results)
    return table


def _measure(table: Table, name: str, broker: str, results: str) -> None:
    with Celery("naive", broker=broker, backend=results, set_as_current=False) as app:
        ids = [str(uuid4()) for _ in range(TASKS)]
        if isinstance(app.backend, DatabaseBackend):
            # As in a worker's child: elsewhere Celery connects anew for each result.
            app.backend.session_manager.forked = True
        for number, each in enumerate(ids):
            app.backend.store_result(each, {"pages": number}, "SUCCESS")
        ours, naive = asyncio.run(_in_turn(app, ids, broker, results))
    for way, samples in (("ScannerJob", ours), ("AsyncResult, one by one", naive)):
        figures = (median(samples), min(samples), max(samples))
        table.rows.append([name, way, *(f"{each * 1000:,.1f}" for each in figures)])
    ratio = median(a / b for a, b in zip(naive, ours, strict=True))
    table.bars.append((f"{name}: {ratio:.0f} times AsyncResult (bar: {BAR:g})", ratio >= BAR))


async def _in_turn(
    app: Celery, ids: Sequence[str], broker: str, results: str
) -> tuple[list[float], list[float]]:
    brokers = Brokers()
    target = brokers.open(broker, results, parse_spec(_SPEC))
    await target.observe(ids[:1])  # connects
    ours, naive = [], []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        seen = (await target.observe(ids)).observations
        ours.append(time.perf_counter() - started)
        assert [seen[each].fact for each in ids] == [Fact.SUCCEEDED] * TASKS
        # In this thread: another one would get a backend, and connections, of its own.
        naive.append(_one_by_one(app, ids))
    brokers.close()
    return ours, naive


def _one_by_one(app: Celery, ids: Sequence[str]) -> float:
    started = time.perf_counter()
    states = [app.AsyncResult(each).state for each in ids]
    seconds = time.perf_counter() - started
    assert states == ["SUCCESS"] * TASKS
    return seconds


_SECRET = {"urlSecretRef": {"name": "any", "key": "url"}}
_SPEC = {
    "database": _SECRET,
    "query": "SELECT 1",
    "celery": {"broker": _SECRET, "resultBackend": _SECRET, "task": "tasks.work"},
}
