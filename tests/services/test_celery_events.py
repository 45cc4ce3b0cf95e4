"""Celery's events on real brokers, from real workers: hints to look sooner, and nothing else."""

# celery, kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import base64
import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu.connection import Connection

from scannerjob.targets.celery import Brokers, event_streams
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.event_streams import AmqpEvents, RedisEvents
from scannerjob.targets.celery.events import Listener, Watch
from tests.support.celery_target import (
    ACCEPTED,
    BlackHole,
    celery_spec,
    facts,
    launch,
    make_sends,
    told,
)
from tests.support.celery_worker import CeleryWorker
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import RedisServer
from tests.support.site import Site
from tests.support.waiting import eventually

EVENTS = ("-E", "--without-gossip", "--without-mingle")


class Broker:
    """A broker, and what it knows of those who listen to its events."""

    def __init__(self, server: RedisServer | RabbitServer, url: str) -> None:
        self.server = server
        self.url = url
        self.silent: set[str] = set()

    def listener(self) -> Listener:
        stream = RedisEvents if self.url.startswith("redis") else AmqpEvents
        endpoint = Endpoint("broker", self.url)
        return Listener(endpoint, partial(stream, endpoint), self.silent)

    def ears(self) -> set[str]:
        """Those who listen."""
        if isinstance(self.server, RedisServer):
            with self.server.client() as client:
                return {each["id"] for each in client.client_list(_type="pubsub")}
        queues = self.server.ask("GET", "queues")
        return {each["name"] for each in queues if each["name"].startswith("celeryev.")}

    def tell(self, kind: str, task_id: str) -> None:
        """What a worker tells of a task."""
        app = Celery(broker=self.url, set_as_current=False)
        with app.connection_for_write() as connection, app.events.Dispatcher(connection) as events:
            events.send(kind, uuid=task_id)

    def say(self, body: Any) -> None:
        """Publish this in place of an event."""
        content = json.dumps(body)
        if isinstance(self.server, RedisServer):
            wrapped = json.dumps({"body": base64.b64encode(content.encode()).decode()})
            with self.server.client() as client:
                for each in (content, wrapped, "no JSON", b"\xff"):
                    client.publish("/0.celeryev/task.multi", each)
            return
        with Connection(self.url) as connection:
            for each in (content, "no JSON", b"\xff"):
                connection.Producer().publish(each, exchange="celeryev", routing_key="task.multi")


@pytest.fixture(params=["redis", "rabbit"])
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """At which nothing is left of a listener after the test."""
    server = request.getfixturevalue(f"{request.param}_server")
    url = request.getfixturevalue("redis_url" if request.param == "redis" else "amqp_url")
    broker = Broker(server, url)
    yield broker
    gc.collect()
    eventually(lambda: not broker.ears(), message="nobody listens any more")


class Hearer:
    """One who waits for a launch to end; counts how often it was woken."""

    def __init__(self, listener: Listener) -> None:
        self.id = str(uuid4())
        self.woken = 0
        self.watch: Watch = listener.watch(self._wake)
        self.watch.take([])
        self.watch.expect([self.id])

    def _wake(self) -> None:
        self.woken += 1

    def hinted(self) -> bool:
        return self.watch.take([self.id])

    def hears(self, tell: Callable[[str], None]) -> None:
        """Sooner or later, if it is told again and again."""

        def heard() -> bool:
            tell(self.id)
            return self.hinted()

        eventually(heard, timeout=60, interval=0.5, ignoring=Exception, message="a hint")


def test_an_event_that_a_task_has_ended_is_a_hint(broker: Broker) -> None:
    hearer = Hearer(broker.listener())
    other = Hearer(broker.listener())

    # What ended before they listened was not heard: that they do is a hint in itself.
    eventually(hearer.hinted, message="it listens")
    eventually(other.hinted, message="the other listens")
    for kind in ("task-received", "task-started", "task-retried", "worker-heartbeat"):
        broker.tell(kind, hearer.id)
    broker.tell("task-succeeded", str(uuid4()))
    broker.tell("task-failed", other.id)

    eventually(other.hinted, message="the other has heard of its task")
    assert not hearer.hinted()
    broker.tell("task-succeeded", hearer.id)
    eventually(hearer.hinted, message="it has heard of its task")
    assert hearer.woken == 2
    assert not other.hinted()


def test_garbage_is_dropped_and_the_connection_stays(broker: Broker) -> None:
    hearer = Hearer(broker.listener())
    eventually(hearer.hinted, message="it listens")
    before = broker.ears()

    all_garbage: tuple[Any, ...] = (
        *(None, 7, "task-succeeded", [], {}, [[[]]], [None, {"type": []}]),
        *({"body": body} for body in (None, 7, "!", "bm8ganNvbg==", {"type": "task-failed"})),
        {"type": "task-succeeded"},
        {"type": "task-succeeded", "uuid": {"a": hearer.id}},
        {"type": "task-succeeded", "uuid": hearer.id, "result": "x" * 2_000_000},
    )
    for garbage in all_garbage:
        broker.say(garbage)

    broker.tell("task-succeeded", str(uuid4()))
    assert not hearer.hinted()
    broker.tell("task-succeeded", hearer.id)
    eventually(hearer.hinted, message="it hears what is true")
    assert broker.ears() == before


def test_hints_come_back_with_a_broker_that_was_restarted(broker: Broker) -> None:
    hearer = Hearer(broker.listener())
    eventually(hearer.hinted, message="it listens")

    broker.server.restart()

    eventually(hearer.hinted, timeout=60, message="it listens again, and may have missed something")
    hearer.hears(partial(broker.tell, "task-succeeded"))


def test_a_broker_that_hangs_is_given_up_and_heard_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With less, RabbitMQ itself gives up those who are a little late.
    monkeypatch.setattr(event_streams, "_SIGN_OF_LIFE", 3)
    monkeypatch.setattr(event_streams, "_PATIENCE", 1.0)
    hearer = Hearer(broker.listener())
    eventually(hearer.hinted, message="it listens")
    broker.server.pause()
    (ear,) = ears_of(broker.url)
    eventually(lambda: broker.silent, timeout=60, message="it is given up")

    broker.server.resume()

    eventually(hearer.hinted, timeout=60, message="it listens again")
    assert ears_of(broker.url) == [ear]


def ears_of(url: str) -> list[threading.Thread]:
    name = f"events of {Endpoint('broker', url)}"
    return [thread for thread in threading.enumerate() if thread.name == name]


def test_a_broker_with_nothing_to_tell_is_not_given_up(
    redis_server: RedisServer, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_streams, "_SIGN_OF_LIFE", 1)
    broker = Broker(redis_server, redis_url)
    hearer = Hearer(broker.listener())
    eventually(hearer.hinted, message="it listens")
    before = broker.ears()

    with redis_server.client() as client:

        def pings() -> int:
            return int(client.info("commandstats").get("cmdstat_ping", {"calls": 0})["calls"])

        goal = pings() + 5
        eventually(lambda: pings() >= goal, message="it has asked for signs of life")

    assert broker.ears() == before
    assert not broker.silent
    del hearer
    gc.collect()
    eventually(lambda: not broker.ears(), message="nobody listens any more")


def test_nothing_is_left_at_the_broker_when_nobody_waits_any_more(broker: Broker) -> None:
    listener = broker.listener()
    one, two = Hearer(listener), Hearer(listener)
    del listener
    eventually(lambda: len(broker.ears()) == 1, message="both share one connection")

    del one
    gc.collect()
    two.hears(partial(broker.tell, "task-succeeded"))
    assert len(broker.ears()) == 1

    del two
    gc.collect()
    eventually(lambda: not broker.ears(), message="the broker has nothing left")
    eventually(lambda: not ears_of(broker.url), message="the thread has ended")


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_says_nothing_keeps_no_thread(scheme: str) -> None:
    with BlackHole() as place:
        hearer = Hearer(Broker(None, f"{scheme}://{place}/0").listener())  # type: ignore[arg-type]
        assert len(ears_of(f"{scheme}://{place}/0")) == 1

        del hearer
        gc.collect()
        eventually(lambda: not ears_of(f"{scheme}://{place}/0"), message="the thread has ended")


# Targets


def test_scannerjobs_of_one_broker_share_a_connection_that_goes_with_the_last(
    broker: Broker,
) -> None:
    brokers, woken = Brokers(), list[str]()
    targets = {
        name: brokers.open(broker.url, None, celery_spec(), partial(woken.append, name))
        for name in ("one", "two")
    }
    assert not broker.ears()
    sends = make_sends(2)
    for target, send in zip(targets.values(), sends, strict=True):
        told(target, [])
        launch(target, [send])
    eventually(lambda: woken, message="they listen")
    assert len(broker.ears()) == 1
    for target, send in zip(targets.values(), sends, strict=True):
        told(target, [send.item.id])
    woken.clear()

    broker.tell("task-succeeded", sends[1].item.id)
    eventually(lambda: woken, message="a hint")
    assert woken == ["two"]

    targets.clear()
    del target
    gc.collect()
    eventually(lambda: not broker.ears(), message="the connection is closed")


def test_who_may_not_listen_launches_all_the_same_and_is_told_of_it_once(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server.client() as client:
        client.acl_setuser(
            "deaf", enabled=True, passwords=["+pw"], keys=["*"], commands=["+@all"], reset=True
        )
    caplog.set_level(logging.DEBUG, "scannerjob")
    url, brokers = redis_url.replace("//", "//deaf:pw@"), Brokers()

    def refusals() -> list[int]:
        return [each.levelno for each in caplog.records if "no permission" in each.getMessage()]

    def launch_and_listen() -> None:
        before = len(refusals())
        target = brokers.open(url, None, celery_spec())
        assert facts(launch(target, make_sends(1))) == ACCEPTED
        eventually(lambda: len(refusals()) > before, message="it was refused")

    # Opened anew, as after each failure.
    for _ in range(2):
        launch_and_listen()
        gc.collect()
        eventually(lambda: not ears_of(url), message="its thread has ended")

    assert refusals()[0] == logging.WARNING
    assert set(refusals()[1:]) == {logging.DEBUG}


# `scannerjob run`


@pytest.fixture
def site(tmp_path: Path, postgres_url: str, broker: Broker) -> Iterator[Site]:
    site = Site(tmp_path, postgres_url)
    site.put_secret("app-broker", broker.url)
    with closing(site):
        yield site


@pytest.mark.parametrize("with_results", [False, True], ids=["rows", "results"])
def test_a_freed_slot_is_refilled_at_once(
    site: Site, broker: Broker, redis_url: str, with_results: bool
) -> None:
    """At the interval these rows would take ten of them."""
    site.add_rows(1, 30)
    fields: dict[str, Any] = {"interval": "60s"}
    env = {"BROKER": broker.url, "DATABASE": site.database_url, "WORK": "0.1"}
    if with_results:
        site.put_secret("app-results", redis_url)
        fields["celery__resultBackend"] = {"urlSecretRef": {"name": "app-results", "key": "url"}}
        env["RESULTS"] = redis_url
    worker = CeleryWorker(site.folder / "tasks.py", env=env, args=EVENTS)

    with worker, site.scanner(site.scanner_job(**fields)):
        eventually(lambda: len(site.done()) == 30, timeout=55, message="30 rows are done")
        eventually(lambda: not site.items(), timeout=55, message="all of it is known")
    assert site.executed() == list(range(1, 31))
    assert len({run.task_id for run in site.executions()}) == 30
    assert site.snapshot().status["succeeded"] == 30


def test_a_forged_event_frees_nothing_and_counts_nothing(site: Site, broker: Broker) -> None:
    site.add_rows(1, 1)
    with site.scanner(site.scanner_job(interval="1h", concurrency=9)):
        item = eventually(partial(launched, site, 1), ignoring=Exception)[0]
        eventually(broker.ears, message="it listens")
        for kind in ("task-succeeded", "task-failed", "task-revoked", "task-rejected"):
            rows = len(site.items())
            site.add_rows(rows + 1, rows + 1)

            broker.tell(kind, item["id"])

            # A look, for which there was no other reason, has found the new row.
            items = eventually(partial(launched, site, rows + 1), message="a look")
            assert items[0] == item
    status = site.snapshot().status
    assert [status.get(each, 0) for each in ("succeeded", "failed", "lost")] == [0, 0, 0]


def launched(site: Site, count: int) -> list[dict[str, Any]]:
    items = site.items()
    done = len(items) == count and all(each["phase"] == "Launched" for each in items)
    return items if done else []
