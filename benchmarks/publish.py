"""Publishing 1,000 tasks to Redis: through the Celery target, and by `send_task` in a loop."""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from celery import Celery

from benchmarks.table import Table
from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Send
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.row import Row
from scannerjob.model.spec import parse_spec
from scannerjob.targets.celery import Brokers
from tests.support.servers import RedisServer

TASKS = 1000
ROUNDS = 7
BAR = 2.0


def run() -> Table:
    """The two ways in turn, so that a machine which slows down slows both."""
    with RedisServer() as redis:
        ours: list[float] = []
        naive: list[float] = []
        for _ in range(ROUNDS):
            for samples, way in ((ours, _ours), (naive, _naive)):
                redis.flush()
                samples.append(TASKS / asyncio.run(way(redis.url)))
                assert _messages(redis) == TASKS
    return _table(ours, naive)


async def _ours(url: str) -> float:
    spec = parse_spec(_SPEC)
    brokers = Brokers()
    target = brokers.open(url, None, spec)
    try:
        await target.launch(_sends(1), _deadline())  # connects
        sends = _sends(TASKS - 1)
        started = time.perf_counter()
        seen = await target.launch(sends, _deadline())
        seconds = time.perf_counter() - started
    finally:
        brokers.close()
    assert all(each.fact is Fact.ACCEPTED for each in seen.values())
    return seconds


async def _naive(url: str) -> float:
    app = Celery("naive", broker=url, set_as_current=False)
    app.send_task("tasks.work", kwargs=_values(0), task_id=str(uuid4()))  # connects
    return await asyncio.to_thread(_timed, lambda: _send_all(app))


def _send_all(app: Celery) -> None:
    for number in range(TASKS - 1):
        app.send_task("tasks.work", kwargs=_values(number), task_id=str(uuid4()))


def _timed(work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _messages(redis: RedisServer) -> int:
    with redis.client() as client:
        length = client.llen("celery")
    assert isinstance(length, int)
    return length


def _sends(count: int) -> list[Send]:
    now = datetime.now(UTC)
    items = (Item(f"[{n}]", str(uuid4()), Phase.CLAIMED, 1, 1, now) for n in range(count))
    return [Send(item, Row(item.key, _values(n)), None, None) for n, item in enumerate(items)]


def _values(number: int) -> dict[str, str | int]:
    return {"pdf_id": number, "title": "A title of the usual length"}


def _deadline() -> float:
    return boottime() + 30


def _table(ours: Sequence[float], naive: Sequence[float]) -> Table:
    ratio = statistics.median(a / b for a, b in zip(ours, naive, strict=True))
    table = Table("Publishing 1,000 tasks to Redis", ["way", "tasks/s, median", "min", "max"])
    for name, samples in (("ScannerJob (idempotent)", ours), ("send_task, one by one", naive)):
        figures = (statistics.median(samples), min(samples), max(samples))
        table.rows.append([name, *(f"{figure:,.0f}" for figure in figures)])
    table.bars.append((f"at least {BAR:g} times send_task: {ratio:.1f} times", ratio >= BAR))
    return table


_SECRET = {"urlSecretRef": {"name": "any", "key": "url"}}
_SPEC = {
    "database": _SECRET,
    "query": "SELECT 1",
    "celery": {"broker": _SECRET, "task": "tasks.work"},
}
