"""`scannerjob run` on RabbitMQ: a broker that forgets what was sent to it."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from tests.support.rabbitmq import RabbitServer
from tests.support.site import Site
from tests.support.waiting import eventually


@pytest.fixture
def site(tmp_path: Path, postgres_url: str, amqp_url: str) -> Iterator[Site]:
    """Rows in PostgreSQL, tasks through RabbitMQ, the ledger in SQLite."""
    site = Site(tmp_path, postgres_url)
    site.put_secret("app-broker", amqp_url)
    with closing(site):
        yield site


def rows(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def kill_often(site: Site, file: Path, *, kills: int) -> None:
    """Start scanners one after another, and kill each while it launches, most slots free again."""
    for kill in range(kills):
        with site.scanner(file) as scanner:
            goal = len(site.done()) + random.Random(kill).randrange(1, 6)
            eventually(partial(_has_done, site, goal), timeout=60, interval=0.01)
            scanner.kill()


def _has_done(site: Site, count: int) -> bool:
    return len(site.done()) >= count


def held(site: Site) -> list[int]:
    """The rows that were claimed by somebody who died, sent or not."""
    return [int(item["key"].strip("[]")) for item in site.items() if item["phase"] == "Claimed"]


def _is_done_or_held(site: Site, last: int, *, cap: int) -> bool:
    """Whether nothing more will happen: each row is, or rows that are held have all slots."""
    waiting = held(site)
    return {*site.done(), *waiting} == {*rows(1, last)} or len(waiting) == cap


def test_every_row_is_done_once_by_workers_that_come_late(site: Site, amqp_url: str) -> None:
    site.add_rows(1, 20)
    with site.scanner(site.scanner_job()):
        # Nobody has declared the queue yet.
        eventually(lambda: len(site.items()) == 3, timeout=60, message="the cap is reached")
        with site.worker(amqp_url):
            eventually(lambda: site.done() == rows(1, 20), timeout=60)
            site.add_rows(21, 25)
            eventually(lambda: site.done() == rows(1, 25), timeout=60)
    assert site.executed() == rows(1, 25)


def test_a_broker_killed_in_the_middle_has_every_row_done(
    site: Site, rabbit_server: RabbitServer, amqp_url: str
) -> None:
    site.add_rows(1, 30)
    with (
        site.worker(amqp_url),
        site.scanner(site.scanner_job(celery__expires="20s", deadline="5s")),
    ):
        eventually(lambda: len(site.done()) >= 10, timeout=60)
        rabbit_server.kill()
        rabbit_server.start()
        eventually(lambda: site.done() == rows(1, 30), timeout=100)


def test_what_a_killed_scanner_may_have_sent_is_held_and_never_sent_twice(
    site: Site, amqp_url: str
) -> None:
    site.add_rows(1, 40)
    file = site.scanner_job(concurrency=8)
    with site.worker(amqp_url):
        kill_often(site, file, kills=4)
        with site.scanner(file):
            eventually(lambda: _is_done_or_held(site, 40, cap=8), timeout=100)
    assert max(Counter(site.executed()).values()) == 1
    assert site.executed() == site.done()


def test_republish_prefers_a_second_execution_to_holding_the_row(site: Site, amqp_url: str) -> None:
    site.add_rows(1, 40)
    file = site.scanner_job(concurrency=8, celery__onUncertainPublish="Republish")
    with site.worker(amqp_url):
        kill_often(site, file, kills=4)
        with site.scanner(file):
            eventually(lambda: site.done() == rows(1, 40), timeout=100)


def test_lives_that_end_free_what_was_held(site: Site, amqp_url: str) -> None:
    site.add_rows(1, 40)
    file = site.scanner_job(concurrency=8, celery__expires="3s", deadline="2s")
    with site.worker(amqp_url):
        kill_often(site, file, kills=4)
        with site.scanner(file):
            eventually(lambda: site.done() == rows(1, 40), timeout=100)
    assert max(Counter(site.executed()).values()) == 1
