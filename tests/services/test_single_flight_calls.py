"""What a call, a method and a block do while another one runs, on a real Redis."""

# redis is typed in part only.
# mypy: allow-untyped-calls

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from scannerjob.worker import (
    BusyError,
    held,
    single_flight,
    single_flight_lock,
)
from tests.support.flights import KEY, elsewhere, is_busy
from tests.support.waiting import eventually


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def test_a_call_is_skipped_while_another_runs(redis_url: str) -> None:
    calls = []

    @single_flight("item({0})", url=redis_url)
    def process(number: int) -> str:
        calls.append(number)
        return "done"

    with single_flight("item(1)", url=redis_url):
        assert elsewhere(process, 1) is None
        assert elsewhere(process, 2) == "done"
    assert process(1) == "done"
    assert calls == [2, 1]


def test_a_call_raises_where_it_is_to(redis_url: str) -> None:
    process = single_flight("item", url=redis_url, on_busy="raise")(lambda: "done")
    with (
        single_flight("item", url=redis_url),
        pytest.raises(BusyError, match=r"^'item' is running elsewhere$"),
    ):
        elsewhere(process)


def test_one_waits_for_another_and_is_woken(
    redis_url: str,
    client: redis.Redis,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(single_flight_lock, "_LOOK", 90.0)
    with redis.Redis.from_url(redis_url, socket_timeout=None) as patient:
        process = single_flight("item", client=patient, wait=600)(lambda: "done")
        with single_flight("item", url=redis_url):
            waiting = threads.submit(process)
            eventually(lambda: _blocked(client), 60, "it waits, asleep")
        assert waiting.result(30) == "done"


def test_one_that_has_waited_for_long_enough_gives_up(redis_url: str) -> None:
    raising = single_flight("item", url=redis_url, wait=0.2, on_busy="raise")(lambda: "done")
    skipping = single_flight("item", url=redis_url, wait=0.2)(lambda: "done")
    with single_flight("item", url=redis_url):
        with pytest.raises(BusyError, match=r"and was after 0\.2 s"):
            elsewhere(raising)
        assert elsewhere(skipping) is None


def test_a_client_that_is_impatient_may_wait_for_longer(
    redis_url: str, client: redis.Redis, threads: ThreadPoolExecutor
) -> None:
    client.config_resetstat()
    with redis.Redis.from_url(redis_url, socket_timeout=0.5) as impatient:
        process = single_flight("item", client=impatient, wait=600)(lambda: "done")
        with single_flight("item", url=redis_url):
            waiting = threads.submit(process)
            eventually(lambda: _waits_begun(client) > 3, 60, "it has waited several times")
        assert waiting.result(60) == "done"


def test_threads_take_turns(redis_url: str, threads: ThreadPoolExecutor) -> None:
    inside, overlaps = [], []

    @single_flight("item", url=redis_url, wait=60)
    def process(number: int) -> int:
        inside.append(number)
        overlaps.extend(inside[1:])
        inside.remove(number)
        return number

    assert sorted(threads.map(process, range(50))) == [*range(50)]  # type: ignore[type-var]  # none is skipped
    assert not overlaps


def test_an_exception_releases_the_lock(redis_url: str, client: redis.Redis) -> None:
    @single_flight("item", url=redis_url)
    def process() -> None:
        raise KeyError("no such page")

    with pytest.raises(KeyError, match="no such page"):
        process()
    assert client.get(KEY) is None


def test_the_functions_own_busy_error_is_no_reason_to_skip_it(redis_url: str) -> None:
    inner = single_flight("inner", url=redis_url, on_busy="raise")(lambda: None)
    outer = single_flight("outer", url=redis_url)(inner)
    with single_flight("inner", url=redis_url), pytest.raises(BusyError, match="inner"):
        elsewhere(outer)


def test_a_call_within_a_call_is_the_same_flight(redis_url: str, client: redis.Redis) -> None:
    @single_flight("item", url=redis_url)
    def countdown(number: int) -> list[int]:
        if not number:
            return []
        inner = countdown(number - 1) or []
        assert client.exists(KEY)
        return [number, *inner]

    assert countdown(3) == [3, 2, 1]
    assert client.get(KEY) is None


def test_methods_are_told_apart_by_their_arguments(redis_url: str) -> None:
    class Service:
        @single_flight("item", url=redis_url)
        def process(self) -> str:
            return "method"

        @staticmethod
        @single_flight("item({0})", url=redis_url)
        def of_none(number: int) -> str:
            return f"static {number}"

        @classmethod
        @single_flight("item({number})", url=redis_url)
        def of_class(cls, number: int) -> str:
            return f"{cls.__name__} {number}"

    assert Service().process() == "method"
    with single_flight("item(1)", url=redis_url):
        assert elsewhere(Service.of_none, 1) is None
        assert elsewhere(Service.of_class, 1) is None
        assert elsewhere(Service.of_none, 2) == "static 2"
        assert elsewhere(Service.of_class, 2) == "Service 2"


def test_whether_it_is_held_can_be_asked_where_it_runs(redis_url: str, client: redis.Redis) -> None:
    answers = []

    @single_flight("item", url=redis_url)
    def process() -> None:
        answers.append(held())
        client.delete(KEY)
        answers.append(held())

    process()
    assert answers == [True, False]
    with pytest.raises(RuntimeError, match="outside of any single_flight"):
        held()


def test_one_decorator_serves_many_threads_and_blocks(
    redis_url: str, threads: ThreadPoolExecutor
) -> None:
    flight = single_flight("item", url=redis_url, wait=60)

    def enter(_: int) -> bool:
        with flight as lock, flight as same:
            return lock is same and lock.held()

    assert all(threads.map(enter, range(20)))
    assert not is_busy(redis_url)


class Service:
    @staticmethod
    def of_none() -> None: ...

    @classmethod
    def of_class(cls) -> None: ...


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (coroutine, "coroutine is a coroutine or a generator"),
        (generator, "generator is a coroutine or a generator"),
        (Service.__dict__["of_none"], "is a staticmethod; put @single_flight below it"),
        (Service.__dict__["of_class"], "is a classmethod; put @single_flight below it"),
        (Service, "Service is a type; put @single_flight below it"),
        ("process", "'process' is a str"),
    ],
)
def test_what_cannot_be_held_for_its_duration_is_refused(function: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        single_flight("item", url="redis://redis.example")(function)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "either a url or a client"),
        ({"url": "redis://a", "client": redis.Redis()}, "either a url or a client"),
        ({"client": redis.asyncio.Redis()}, r"redis\.Redis, got redis\.asyncio\.client\.Redis"),
        ({"url": "amqp://redis.example"}, "url cannot be read"),
        ({"url": "redis://a", "wait": -1}, "wait of at least 0"),
        ({"url": "redis://a", "lease": 0}, "lease above 0"),
        ({"url": "redis://a", "on_busy": "wait"}, r"on_busy='skip'\|'raise'"),
        ({"url": "redis://a", "on_error": "skip"}, r"on_error='refuse'\|'run'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        single_flight("item", **options)


def _waits_begun(client: redis.Redis) -> int:
    commands: Any = client.info("commandstats")
    return int(commands.get("cmdstat_blpop", {"calls": 0})["calls"])


def _blocked(client: redis.Redis) -> int:
    clients: Any = client.info("clients")
    return int(clients["blocked_clients"])
