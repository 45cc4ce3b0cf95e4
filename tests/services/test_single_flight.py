"""One at a time, on a real Redis: what holds a lock, what frees it, and who may."""

# redis is typed in part only.
# mypy: allow-untyped-calls

import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis

from scannerjob.worker import (
    BusyError,
    LockUnavailableError,
    held,
    single_flight,
    single_flight_lock,
    single_flight_renewal,
)
from tests.support.certificates import Authority, Certificate
from tests.support.flights import Holder, hammer
from tests.support.servers import RedisServer
from tests.support.tls_servers import TlsRedis
from tests.support.waiting import eventually

R = TypeVar("R")

GUIDE = (Path(__file__).parents[2] / "docs" / "single-flight.md").read_text()
KEY = "scannerjob:lock:item"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def holder(tmp_path: Path, redis_url: str) -> Iterator[Callable[[float], Holder]]:
    with ExitStack() as processes:

        def start(lease: float) -> Holder:
            holder = Holder(tmp_path, redis_url, lease=lease)
            processes.callback(holder.process.kill)
            return holder.start()

        yield start


def test_two_processes_never_hold_the_same_lock(
    tmp_path: Path, redis_url: str, client: redis.Redis
) -> None:
    hammers = [hammer(tmp_path, redis_url, number, times=100) for number in range(4)]
    try:
        for process in hammers:
            process.start()
        assert [process.wait(90) for process in hammers] == [0] * 4
    finally:
        for process in hammers:
            process.kill()

    assert client.get("executions") == "400"
    assert client.get("overlaps") is None
    assert client.get(KEY) is None


def test_work_that_outlasts_its_lease_keeps_the_lock(redis_url: str, client: redis.Redis) -> None:
    with single_flight("item", url=redis_url, lease=3) as lock:
        token = client.get(KEY)
        for _ in range(4):
            _await_renewal(client)
        assert client.get(KEY) == token
        assert lock.held()
        assert _is_busy(redis_url)


def test_it_is_renewed_no_more_once_its_work_has_ended(redis_url: str, client: redis.Redis) -> None:
    with single_flight("item", url=redis_url, lease=1) as ended:
        pass
    with single_flight("other", url=redis_url, lease=1) as lock:
        for _ in range(3):
            _await_renewal(client, "scannerjob:lock:other")
        ended.renew()
        assert not ended.held()
        assert lock.held()
    assert client.keys("scannerjob:lock:*") == []


def test_a_thread_that_has_nothing_to_renew_ends(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(single_flight_renewal, "_LINGER", 0.1)
    others = {*threading.enumerate()}
    with redis.Redis.from_url(redis_url) as client:
        for _ in range(2):
            with single_flight("item", client=client, lease=1):
                assert {*threading.enumerate()} > others
            eventually(lambda: {*threading.enumerate()} <= others, 60, "the thread ends")


def test_the_lock_of_a_process_that_was_killed_is_free_after_its_lease(
    holder: Callable[[float], Holder], redis_url: str, client: redis.Redis
) -> None:
    victim = holder(4)
    victim.process.kill()
    left = client.pttl(KEY)

    assert isinstance(left, int)
    assert 0 < left <= 4000
    with single_flight("item", url=redis_url, wait=60) as lock:
        assert lock.held()


def test_a_process_that_was_frozen_takes_no_lock_from_another(
    holder: Callable[[float], Holder], redis_url: str, client: redis.Redis
) -> None:
    frozen = holder(2)
    frozen.process.pause()
    with single_flight("item", url=redis_url, wait=60) as lock:
        frozen.process.resume()
        frozen.go_on()
        frozen.says("lost")
        frozen.says("ended")
        assert lock.held()
        assert client.exists(KEY)


def test_a_process_that_was_frozen_learns_it_though_nobody_else_came(
    holder: Callable[[float], Holder], client: redis.Redis
) -> None:
    frozen = holder(1)
    frozen.process.pause()
    eventually(lambda: not client.exists(KEY), 60, "the lease lapses")
    frozen.process.resume()
    eventually(lambda: client.exists(KEY), 60, "it is taken again, while the work goes on")
    frozen.go_on()
    frozen.says("lost")


def test_a_lock_that_redis_forgot_is_taken_again(redis_url: str, client: redis.Redis) -> None:
    with single_flight("item", url=redis_url, lease=30) as lock:
        client.flushall()
        lock.renew()
        assert _is_busy(redis_url)
        assert not lock.held()
    assert not _is_busy(redis_url)


def test_a_lock_that_another_took_from_redis_is_lost(redis_url: str, client: redis.Redis) -> None:
    with single_flight("item", url=redis_url) as lock:
        client.set(KEY, "another's")
        lock.renew()
        assert not lock.held()
        client.delete(KEY)
        lock.renew()
        assert not lock.held()
        client.set(KEY, "another's")
    assert client.get(KEY) == "another's"


def test_a_call_is_skipped_while_another_runs(redis_url: str) -> None:
    calls = []

    @single_flight("item({0})", url=redis_url)
    def process(number: int) -> str:
        calls.append(number)
        return "done"

    with single_flight("item(1)", url=redis_url):
        assert _elsewhere(process, 1) is None
        assert _elsewhere(process, 2) == "done"
    assert process(1) == "done"
    assert calls == [2, 1]


def test_a_call_raises_where_it_is_to(redis_url: str) -> None:
    process = single_flight("item", url=redis_url, on_busy="raise")(lambda: "done")
    with (
        single_flight("item", url=redis_url),
        pytest.raises(BusyError, match=r"^'item' is running elsewhere$"),
    ):
        _elsewhere(process)


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
            _elsewhere(raising)
        assert _elsewhere(skipping) is None


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
        _elsewhere(outer)


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


def test_a_forked_child_holds_nothing(redis_url: str, client: redis.Redis) -> None:
    """It neither runs beside its parent, nor lets others do so."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def child() -> None:
        answers.put(lock.held())
        answers.put(_enters(redis_url))
        lock.release()
        with single_flight("child", url=redis_url, lease=3) as own:
            _await_renewal(client, "scannerjob:lock:child")
            answers.put(own.held())

    with single_flight("item", url=redis_url) as lock:
        process = fork.Process(target=child)
        process.start()
        assert [answers.get() for _ in range(3)] == [False, False, True]
        process.join(60)
        assert process.exitcode == 0
        assert lock.held()


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
        assert _elsewhere(Service.of_none, 1) is None
        assert _elsewhere(Service.of_class, 1) is None
        assert _elsewhere(Service.of_none, 2) == "static 2"
        assert _elsewhere(Service.of_class, 2) == "Service 2"


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
    assert not _is_busy(redis_url)


def test_another_database_has_other_locks(redis_server: RedisServer, redis_url: str) -> None:
    with single_flight("item", url=redis_server.database_url(3)):
        assert not _is_busy(redis_url)
        assert _is_busy(redis_server.database_url(3))


def test_nothing_runs_while_redis_is_down(redis_server: RedisServer, redis_url: str) -> None:
    calls: list[str] = []
    process = single_flight("item", url=redis_url)(lambda: calls.append("ran"))
    redis_server.kill()

    with pytest.raises(LockUnavailableError, match=r"lock 'item' .* nothing was run") as refused:
        process()
    assert f"127.0.0.1:{redis_server.port}/0" in str(refused.value)
    with pytest.raises(LockUnavailableError), single_flight("item", url=redis_url):
        calls.append("ran")
    assert not calls


def test_it_runs_while_redis_is_down_where_it_is_to(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    process = single_flight("item", url=redis_url, on_error="run")(lambda: "done")
    redis_server.kill()

    assert process() == "done"
    assert "item is run without its lock" in caplog.text


def test_work_whose_redis_died_meanwhile_keeps_its_result(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @single_flight("item", url=redis_url)
    def process() -> str:
        redis_server.kill()
        with pytest.raises(LockUnavailableError):
            held()
        return "done"

    assert process() == "done"
    assert "it is free when its lease lapses" in caplog.text


def test_a_lock_that_redis_lost_at_a_restart_is_taken_again(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    with single_flight("item", url=redis_url, lease=6) as lock:
        redis_server.kill()
        redis_server.start()
        eventually(lambda: client.exists(KEY), 60, "it is taken again")
        assert _is_busy(redis_url)
        assert not lock.held()


def test_no_password_is_shown(locked_redis: RedisServer) -> None:
    wrong = locked_redis.url.replace(locked_redis.password, "s3cret")
    process = single_flight("item", url=wrong)(lambda: None)
    with pytest.raises(LockUnavailableError) as refused:
        process()
    assert "s3cret" not in str(refused.value)
    with pytest.raises(ValueError, match="url cannot be read") as unread:
        single_flight("item", url="redis://:s3/cret@redis.example:6379/0")
    assert "cret" not in str(unread.value)
    assert unread.value.__suppress_context__


def test_a_user_of_redis_needs_the_rights_that_the_guide_names(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    rights = re.search(r"`(~scannerjob:\S+ [^`]+)`", GUIDE)
    assert rights
    client.execute_command("ACL SETUSER", "locker", "on", ">s3cret", *rights[1].split())
    url = redis_server.database_url(3).replace("//", "//locker:s3cret@")
    try:
        with single_flight("item", url=url, lease=1) as lock:
            with redis.Redis.from_url(redis_server.database_url(3)) as locks:
                _await_renewal(locks)
            assert not _elsewhere(_enters, url, 0.1)
            assert lock.held()
    finally:
        client.execute_command("ACL DELUSER", "locker")


def test_a_key_of_something_else_is_no_lock(redis_url: str, client: redis.Redis) -> None:
    client.rpush(KEY, "a list")
    with pytest.raises(LockUnavailableError, match="WRONGTYPE"):
        _is_busy(redis_url)


def test_it_comes_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    with TlsRedis(authority) as server:
        options = _tls_options(tmp_path / "a", authority.pem, authority.issue("app"))
        url = f"{server.tls_url}?{options}"
        with single_flight("item", url=url) as lock:
            assert lock.held()
            assert _is_busy(url.replace("=required", "=CERT_REQUIRED"))
        options = _tls_options(tmp_path / "b", Authority("another").pem, authority.issue("app"))
        with pytest.raises(LockUnavailableError, match="certificate verify failed"):
            _is_busy(f"{server.tls_url}?{options}")


def _tls_options(folder: Path, authority: bytes, certificate: Certificate) -> str:
    contents = {
        "ssl_ca_certs": authority,
        "ssl_certfile": certificate.pem,
        "ssl_keyfile": certificate.key,
    }
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return "&".join(["ssl_cert_reqs=required", *(f"{name}={folder / name}" for name in contents)])


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


def _is_busy(url: str) -> bool:
    """Whether it is, for a thread that does not hold it."""
    return not _elsewhere(_enters, url)


def _enters(url: str, wait: float = 0.0) -> bool:
    try:
        with single_flight("item", url=url, wait=wait):
            return True
    except BusyError:
        return False


def _elsewhere(function: Callable[..., R], *args: Any) -> R:
    """Call it in another thread, for which no lock of this one is its own."""
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run).start()
    return outcome.result(60)


def _await_renewal(client: redis.Redis, key: str = KEY) -> None:
    """Return once a lease has less than two thirds left, and then more again."""
    lowest = [float("inf")]

    def renewed() -> bool:
        left = client.pttl(key)
        assert isinstance(left, int)
        assert left > 0
        lowest[0] = min(lowest[0], left)
        return left > lowest[0]

    eventually(renewed, 60, "the lease is renewed", interval=0.02)


def _waits_begun(client: redis.Redis) -> int:
    commands: Any = client.info("commandstats")
    return int(commands.get("cmdstat_blpop", {"calls": 0})["calls"])


def _blocked(client: redis.Redis) -> int:
    clients: Any = client.info("clients")
    return int(clients["blocked_clients"])
