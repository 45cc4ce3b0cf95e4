"""One at a time, on a real Redis: what holds a lock, what frees it, and who may."""

# redis is typed in part only.
# mypy: allow-untyped-calls

import multiprocessing
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from scannerjob.worker import (
    LockUnavailableError,
    held,
    single_flight,
    single_flight_renewal,
)
from tests.support.certificates import Authority, Certificate
from tests.support.flights import KEY, Holder, await_renewal, elsewhere, enters, hammer, is_busy
from tests.support.servers import RedisServer
from tests.support.tls_servers import TlsRedis
from tests.support.waiting import eventually

GUIDE = (Path(__file__).parents[2] / "docs" / "single-flight.md").read_text()


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
            await_renewal(client)
        assert client.get(KEY) == token
        assert lock.held()
        assert is_busy(redis_url)


def test_it_is_renewed_no_more_once_its_work_has_ended(redis_url: str, client: redis.Redis) -> None:
    with single_flight("item", url=redis_url, lease=1) as ended:
        pass
    with single_flight("other", url=redis_url, lease=1) as lock:
        for _ in range(3):
            await_renewal(client, "scannerjob:lock:other")
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
                assert {*threading.enumerate()} - others
            eventually(lambda: not {*threading.enumerate()} - others, 60, "the thread ends")


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
        assert is_busy(redis_url)
        assert not lock.held()
    assert not is_busy(redis_url)


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


def test_a_forked_child_holds_nothing(redis_url: str, client: redis.Redis) -> None:
    """It neither runs beside its parent, nor lets others do so."""
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()

    def child() -> None:
        answers.put(lock.held())
        answers.put(enters(redis_url))
        lock.release()
        with single_flight("child", url=redis_url, lease=3) as own:
            await_renewal(client, "scannerjob:lock:child")
            answers.put(own.held())

    with single_flight("item", url=redis_url) as lock:
        process = fork.Process(target=child)
        process.start()
        assert [answers.get() for _ in range(3)] == [False, False, True]
        process.join(60)
        assert process.exitcode == 0
        assert lock.held()


def test_another_database_has_other_locks(redis_server: RedisServer, redis_url: str) -> None:
    with single_flight("item", url=redis_server.database_url(3)):
        assert not is_busy(redis_url)
        assert is_busy(redis_server.database_url(3))


def test_nothing_runs_while_redis_is_down(redis_server: RedisServer, redis_url: str) -> None:
    calls: list[str] = []
    process = single_flight("item", url=redis_url)(lambda: calls.append("ran"))
    redis_server.kill()

    with pytest.raises(LockUnavailableError, match=r"lock 'item' .*; nothing was run\.") as refused:
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
    assert "'item' is run without its lock" in caplog.text


def test_work_whose_redis_died_meanwhile_keeps_its_result(
    redis_server: RedisServer, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @single_flight("item", url=redis_url)
    def process() -> str:
        redis_server.kill()
        with pytest.raises(LockUnavailableError, match=r"cannot be asked for at Redis.*refused"):
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
        assert is_busy(redis_url)
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
                await_renewal(locks)
            assert not elsewhere(enters, url, 0.1)
            assert lock.held()
    finally:
        client.execute_command("ACL DELUSER", "locker")


def test_a_key_of_something_else_is_no_lock(redis_url: str, client: redis.Redis) -> None:
    client.rpush(KEY, "a list")
    with pytest.raises(LockUnavailableError, match="WRONGTYPE"):
        is_busy(redis_url)


def test_it_comes_with_tls(tmp_path: Path) -> None:
    authority = Authority()
    with TlsRedis(authority) as server:
        options = _tls_options(tmp_path / "a", authority.pem, authority.issue("app"))
        url = f"{server.tls_url}?{options}"
        with single_flight("item", url=url) as lock:
            assert lock.held()
            assert is_busy(url.replace("=required", "=CERT_REQUIRED"))
        options = _tls_options(tmp_path / "b", Authority("another").pem, authority.issue("app"))
        with pytest.raises(LockUnavailableError, match="certificate verify failed"):
            is_busy(f"{server.tls_url}?{options}")


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
