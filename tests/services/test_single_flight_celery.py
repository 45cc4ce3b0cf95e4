"""Celery tasks, in a real worker, of which there is one at a time."""

# celery is published without types.
# mypy: allow-untyped-decorators

from collections.abc import Iterator

import pytest
import redis
from celery import Celery, shared_task

from scannerjob.worker import BusyError, single_flight
from tests.support.celery_worker import CeleryWorker
from tests.support.flights import environment
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

LOCKS = "redis://redis.example/3"

TASKS = """\
import functools, os, time
import redis
from celery import Celery
from scannerjob.worker import BusyError, single_flight

app = Celery("tasks", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
locked = functools.partial(single_flight, url=os.environ["BROKER"])
client = redis.Redis.from_url(os.environ["BROKER"], decode_responses=True)

def work(item):
    client.rpush("begun", item)
    while not client.exists("go-on"):
        time.sleep(0.02)
    return f"done {item}"

@app.task
@locked("below({item})")
def below(item):
    return work(item)

@locked("above({item})")
@app.task
def above(item):
    return work(item)

@app.task(bind=True)
@locked("bound({0})")
def bound(self, item):
    return work(item) + " " + self.name

@locked("bound_above({0})")
@app.task(bind=True)
def bound_above(self, item):
    return work(item) + " " + self.name

@app.task(autoretry_for=(BusyError,), default_retry_delay=0.1, max_retries=None)
@locked("again({0})", on_busy="raise")
def again(item):
    return work(item)

@locked("again_above({0})", on_busy="raise")
@app.task(autoretry_for=(BusyError,), default_retry_delay=0.1, max_retries=None)
def again_above(item):
    return work(item)
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Celery]:
    """Has a worker of its own, on a Redis of its own."""
    module = tmp_path_factory.mktemp("worker") / "tasks.py"
    module.write_text(TASKS)
    with RedisServer() as server:
        environ = {**environment(), "BROKER": server.url}
        with (
            CeleryWorker(module, env=environ, concurrency=3),
            Celery(broker=server.url, backend=server.url, set_as_current=False) as app,
        ):
            yield app


@pytest.fixture
def client(app: Celery) -> Iterator[redis.Redis]:
    """Of the worker's Redis."""
    with redis.Redis.from_url(app.conf.broker_url, decode_responses=True) as client:
        client.delete("begun", "go-on")
        yield client


@pytest.mark.parametrize("task", ["below", "above", "bound", "bound_above"])
def test_a_task_that_runs_is_skipped(app: Celery, client: redis.Redis, task: str) -> None:
    first = app.send_task(f"tasks.{task}", ["a"])
    _await_begun(client, ["a"])
    second = app.send_task(f"tasks.{task}", ["a"])
    assert second.get(60) is None

    other = app.send_task(f"tasks.{task}", kwargs={"item": "b"})
    _await_begun(client, ["a", "b"])
    client.set("go-on", 1)
    name = f" tasks.{task}" if task.startswith("bound") else ""
    assert [first.get(60), other.get(60)] == [f"done a{name}", f"done b{name}"]
    assert client.lrange("begun", 0, -1) == ["a", "b"]
    assert not client.keys("scannerjob:lock:*")


@pytest.mark.parametrize("task", ["again", "again_above"])
def test_a_task_that_runs_is_tried_again_later(app: Celery, client: redis.Redis, task: str) -> None:
    first = app.send_task(f"tasks.{task}", ["a"])
    _await_begun(client, ["a"])
    second = app.send_task(f"tasks.{task}", ["a"])
    eventually(lambda: second.state == "RETRY", 60, "the second one waits for its turn")
    client.set("go-on", 1)
    assert [first.get(60), second.get(60)] == ["done a"] * 2


def test_arguments_that_a_task_does_not_take_are_refused_where_it_is_sent() -> None:
    app = Celery(set_as_current=False)

    @app.task(shared=False)
    @single_flight("item({0})", url=LOCKS)
    def process(item: int) -> None: ...

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'item'"):
        process.delay()


def test_a_wrong_placeholder_is_found_when_a_task_is_made() -> None:
    app = Celery(set_as_current=False)

    @single_flight("item({number})", url=LOCKS)
    @app.task(shared=False)
    def process(item: int) -> None: ...

    with pytest.raises(ValueError, match=r"placeholder {number}; expected .*: item"):
        app.finalize()


def test_a_task_that_is_made_already_is_decorated(redis_url: str) -> None:
    app = Celery(set_as_current=False)
    app.finalize()

    @app.task(shared=False)
    def process() -> str:
        return "done"

    decorated = single_flight("item", url=redis_url, on_busy="raise")(process)

    assert decorated is process
    assert decorated() == "done"
    with redis.Redis.from_url(redis_url) as client:
        client.set("scannerjob:lock:item", "another's")
    with pytest.raises(BusyError):
        decorated()


def test_a_shared_task_is_decorated_below() -> None:
    with pytest.raises(TypeError, match="put @single_flight below @shared_task"):

        @single_flight("item", url=LOCKS)
        @shared_task
        def shared() -> None: ...


def test_a_task_that_is_bound_has_a_self() -> None:
    """By any other name it would be taken for an argument, and its text for a part of the name."""
    app = Celery(set_as_current=False)

    @app.task(bind=True, shared=False)
    @single_flight("item({0})", url=LOCKS)
    def process(task: object, item: int) -> None: ...

    with pytest.raises(ValueError, match="another one in each process"):
        process(5)


def _await_begun(client: redis.Redis, items: list[str]) -> None:
    eventually(lambda: client.lrange("begun", 0, -1) == items, 60, f"{items} have begun")
