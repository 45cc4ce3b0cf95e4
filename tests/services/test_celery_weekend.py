"""A weekend without workers, on a compressed clock: nothing piles up, and no row is blamed."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import pytest
import redis
from celery import Celery
from kombu.connection import Connection

from scannerjob.model.ledger import Ledger, ledger_from_status
from tests.support.site import Site
from tests.support.waiting import eventually

ROWS = list(range(1, 13))
CAP = 4
LIVES = 8


class Queue:
    """Counts the live messages of a queue, over and over; `most` there were at one moment."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.most = 0

    def live(self) -> int:
        """How many messages a worker would run now."""
        return self._count()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._count())


def _in_redis(url: str) -> Callable[[], int]:
    """Expired messages stay until a worker drops them: what has not expired counts."""
    client = redis.Redis.from_url(url)

    def count() -> int:
        messages: Any = client.lrange("celery", 0, -1)
        return sum(_is_live(json.loads(message)["headers"]["expires"]) for message in messages)

    return count


def _is_live(expires: str | None) -> bool:
    return expires is None or datetime.fromisoformat(expires) > datetime.now(UTC)


def _in_rabbitmq(url: str) -> Callable[[], int]:
    """RabbitMQ drops by itself what has expired."""

    def count() -> int:
        with Connection(url) as connection, connection.channel() as channel:
            try:
                return int(channel.queue_declare("celery", passive=True).message_count)
            except connection.channel_errors:
                return 0

    return count


@pytest.fixture(params=["redis", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> str:
    """The URL of a broker."""
    names = {"redis": "redis_url", "rabbitmq": "amqp_url"}
    return str(request.getfixturevalue(names[request.param]))


@pytest.fixture
def queue(broker: str) -> Iterator[Queue]:
    """An independent witness of what is in the broker."""
    count = _in_redis(broker) if broker.startswith("redis") else _in_rabbitmq(broker)
    with Queue(count) as queue:
        yield queue


@pytest.fixture
def site(tmp_path: Path, postgres_url: str, broker: str) -> Iterator[Site]:
    """Rows in PostgreSQL, tasks through either broker, no result backend."""
    site = Site(tmp_path, postgres_url)
    site.put_secret("app-broker", broker)
    site.add_rows(ROWS[0], ROWS[-1])
    with closing(site):
        yield site


def _ledger(site: Site) -> Ledger:
    ledger = ledger_from_status(site.snapshot().status)
    assert ledger is not None
    return ledger


@pytest.mark.timeout(300)
def test_a_weekend_without_workers_costs_nobody_an_attempt(
    site: Site, broker: str, queue: Queue
) -> None:
    file = site.scanner_job(concurrency=CAP, deadline="1s", celery__expires="2s")
    with site.worker(broker, concurrency=CAP, queues=("idle",)), site.scanner(file) as scanner:
        eventually(lambda: _ledger(site).lost >= CAP * LIVES, timeout=180, ignoring=AssertionError)
        assert {item.attempt for item in _ledger(site).items} == {1}
        eventually(lambda: queue.live() == CAP, message="they are launched once more")
        Celery(broker=broker, set_as_current=False).control.add_consumer("celery")
        eventually(lambda: site.done() == ROWS, timeout=60)
        eventually(lambda: not _ledger(site).items)
        ledger = _ledger(site)
    assert site.executed() == ROWS
    assert queue.most == CAP
    assert (ledger.succeeded, ledger.failed) == (len(ROWS), 0)
    assert ledger.launched == ledger.succeeded + ledger.lost
    assert scanner.log().count(": NeverStarted; ") == ledger.lost
    assert "out of attempts" not in scanner.log()


def test_messages_that_never_expire_just_wait(site: Site, broker: str, queue: Queue) -> None:
    file = site.scanner_job(concurrency=CAP)
    for _ in range(3):
        with site.scanner(file) as scanner:
            eventually(lambda: queue.live() == CAP, message="the cap is launched")
            eventually(lambda: "scanning" in scanner.log(), message="it looks")
    with site.scanner(file), site.worker(broker, concurrency=CAP):
        eventually(lambda: site.done() == ROWS, timeout=60)
        eventually(lambda: not _ledger(site).items)
    assert site.executed() == ROWS
    assert queue.most == CAP
    assert (_ledger(site).succeeded, _ledger(site).lost) == (len(ROWS), 0)
