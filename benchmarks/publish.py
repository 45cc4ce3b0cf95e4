"""Publishing 1,000 tasks: through the Celery target, and by Celery's own `send_task` in a loop.

To Redis and RabbitMQ, right beside them and a millisecond away.
"""

# kombu is typed in part only.
# mypy: allow-untyped-calls

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median
from uuid import uuid4

from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from benchmarks.distance import away, own_round_trip, ping
from benchmarks.table import Table
from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Send
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.row import Row
from scannerjob.model.spec import parse_spec
from scannerjob.targets.celery import Brokers
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

TASKS = 1000
ROUNDS = 5
ADDED = 0.001
OURS = "ScannerJob"


@dataclass
class Race:
    """Ways to publish to one broker, each giving tasks per second; ours is to beat `rival`."""

    broker: str
    added: float
    url: str
    ways: Mapping[str, Callable[[str], float]]
    rival: str
    bar: float
    speeds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def go(self) -> None:
        """Each way once."""
        for name, publish in self.ways.items():
            self.speeds[name].append(publish(self.url))
            _take_out(self.url)


def run() -> Table:
    """All ways in turn, so that a machine which slows down slows all."""
    header = ["broker", "added round trip", "way", "tasks/s, median", "min", "max"]
    table = Table("Publishing 1,000 tasks", header)
    with _races() as (races, near, far):
        waits = []
        for _ in range(ROUNDS):
            waits.append((ping(near), ping(far)))
            for race in races:
                race.go()
    for race in races:
        _tell(table, race)
    table.bars.append(_distance(*map(median, zip(*waits, strict=True))))
    return table


@contextmanager
def _races() -> Iterator[tuple[Sequence[Race], int, int]]:
    """The races, and the ports of Redis: its own, and the one that is further away."""
    with RedisServer() as redis, RabbitServer() as rabbit, ExitStack() as stack:
        added = ADDED - own_round_trip(redis.port)
        far = {each: stack.enter_context(away(each.port, added)) for each in (redis, rabbit)}
        races = []
        for server, race in ((redis, _redis), (rabbit, _rabbit)):
            far_url = server.url.replace(f":{server.port}", f":{far[server]}")
            races += [race(0.0, server.url), race(ADDED, far_url)]
            _declare(server.url)
        yield races, redis.port, far[redis]


def _redis(added: float, url: str) -> Race:
    naive = "send_task, one by one"
    bar = 12.0 if added else 2.4
    return Race("Redis", added, url, {OURS: _ours, naive: _send_task}, naive, bar)


def _rabbit(added: float, url: str) -> Race:
    confirmed = "send_task, each confirmed"
    ways = {OURS: _ours, confirmed: _confirmed, "send_task, none confirmed": _send_task}
    return Race("RabbitMQ", added, url, ways, confirmed, 2.5)


def _ours(url: str) -> float:
    return asyncio.run(_launch(url))


async def _launch(url: str) -> float:
    brokers = Brokers()
    target = brokers.open(url, None, parse_spec(_SPEC))
    try:
        await target.launch(_sends(1), _deadline())  # connects
        sends = _sends(TASKS - 1)
        started = time.perf_counter()
        seen = await target.launch(sends, _deadline())
        seconds = time.perf_counter() - started
    finally:
        brokers.close()
    assert all(each.fact is Fact.ACCEPTED for each in seen.values()), seen
    return len(sends) / seconds


def _send_task(url: str) -> float:
    return _send_all(Celery("naive", broker=url, set_as_current=False))


def _confirmed(url: str) -> float:
    app = Celery("confirmed", broker=url, set_as_current=False)
    app.conf.broker_transport_options = {"confirm_publish": True}
    return _send_all(app)


def _send_all(app: Celery) -> float:
    with app:
        _send(app, 0)  # connects
        started = time.perf_counter()
        for number in range(1, TASKS):
            _send(app, number)
        return (TASKS - 1) / (time.perf_counter() - started)


def _send(app: Celery, number: int) -> None:
    app.send_task("tasks.work", kwargs=_values(number), task_id=str(uuid4()))


def _declare(url: str) -> None:
    with Connection(url) as connection:
        Queue("celery", Exchange("celery"), "celery")(connection.default_channel).declare()


def _take_out(url: str) -> None:
    """Empty the queue, once all that was published is there."""
    with Connection(url) as connection:
        channel = connection.default_channel
        eventually(lambda: channel.queue_declare("celery", passive=True).message_count >= TASKS)
        assert channel.queue_purge("celery") == TASKS


def _sends(count: int) -> list[Send]:
    now = datetime.now(UTC)
    items = (Item(f"[{n}]", str(uuid4()), Phase.CLAIMED, 1, 1, now) for n in range(count))
    return [Send(item, Row(item.key, _values(n)), None, None) for n, item in enumerate(items)]


def _values(number: int) -> dict[str, str | int]:
    return {"pdf_id": number, "title": "A title of the usual length"}


def _deadline() -> float:
    return boottime() + 30


def _tell(table: Table, race: Race) -> None:
    place = f"{race.added * 1000:g} ms"
    for name, samples in race.speeds.items():
        figures = (median(samples), min(samples), max(samples))
        table.rows.append([race.broker, place, name, *(f"{each:,.0f}" for each in figures)])
    ratio = median(a / b for a, b in zip(race.speeds[OURS], race.speeds[race.rival], strict=True))
    said = f"{race.broker} at {place}: {ratio:.1f} times {race.rival} (bar: {race.bar:g})"
    table.bars.append((said, ratio >= race.bar))


def _distance(near: float, far: float) -> tuple[str, bool]:
    """Whether the way to the broker that is further away was as long as it should be."""
    added = far - near
    said = (
        f"a PING took {near * 1000:.2f} ms, and {far * 1000:.2f} ms where {ADDED * 1000:g} ms were "
        "to be added (20% more or less)"
    )
    return said, abs(added / ADDED - 1) <= 0.2


_SECRET = {"urlSecretRef": {"name": "any", "key": "url"}}
_SPEC = {
    "database": _SECRET,
    "query": "SELECT 1",
    "celery": {"broker": _SECRET, "task": "tasks.work"},
}
