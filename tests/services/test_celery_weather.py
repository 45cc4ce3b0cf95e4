"""A Redis broker that is away, hangs, freezes or refuses."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import gc
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from scannerjob.ports import TargetError
from scannerjob.targets.celery import Brokers, CeleryTarget
from tests.support.celery_target import (
    ACCEPTED,
    NOT_SENT,
    BlackHole,
    at,
    background_done,
    celery_spec,
    facts,
    launch,
    make_sends,
    opened,
    publisher,
    reasons,
    soon,
    watched_loop,
)
from tests.support.ports import free_port
from tests.support.servers import RedisServer
from tests.support.waiting import eventually


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    place = f"127.0.0.1:{free_port()}"

    seen = launch(opened(at("", place)), make_sends(3))

    assert facts(seen) == NOT_SENT
    assert place in reasons(seen)
    assert "refused" in reasons(seen)


def test_an_unknown_host_proves_that_nothing_was_sent() -> None:
    seen = launch(opened("redis://no-such-host.invalid/0"), make_sends(3))

    assert facts(seen) == NOT_SENT
    assert "no-such-host.invalid" in reasons(seen)


@pytest.mark.parametrize("user", ["", "c4n4ry-user"])
def test_a_wrong_password_is_shown_nowhere(user: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(requirepass=True) as server:
        url = f"redis://{user}:c4n4ry%2Fpw@127.0.0.1:{server.port}/0"
        target = opened(url, url)
        seen = launch(target, make_sends(3))
        with pytest.raises(TargetError) as caught:
            asyncio.run(target.observe(["a"]))
        assert facts(launch(opened(server.url), make_sends(3))) == ACCEPTED

    assert facts(seen) == NOT_SENT
    assert f"127.0.0.1:{server.port}" in reasons(seen)
    assert caught.value.reason == "ResultBackendUnreachable"
    shown = reasons(seen) + str(caught.value) + caplog.text + repr(target.__dict__)
    assert "c4n4ry/pw" not in shown
    assert "c4n4ry%2Fpw" not in shown


def test_a_black_hole_holds_up_neither_the_loop_nor_another_broker(
    redis_url: str, client: redis.Redis
) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        healthy = brokers.open(redis_url, None, celery_spec())
        with BlackHole() as place:
            stuck = brokers.open(at(redis_url, place), None, celery_spec())
            async with watched_loop(longest=1):
                hanging = asyncio.create_task(stuck.launch(make_sends(3), soon(2)))
                await asyncio.sleep(0.1)
                assert facts(await healthy.launch(make_sends(3), soon(1.5))) == ACCEPTED
                assert not hanging.done()
                seen = await hanging
        assert facts(seen) == NOT_SENT
        assert f"{place}/0 did not answer in time" in reasons(seen)

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def test_threads_that_hang_do_not_pile_up_however_often_a_target_is_opened(
    redis_url: str,
) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        with BlackHole() as place:
            for _ in range(10):
                target = brokers.open(at(redis_url, place), None, celery_spec())
                assert facts(await target.launch(make_sends(1), soon(0.05))) == NOT_SENT
                del target
                gc.collect()
            hanging = [each for each in threading.enumerate() if place in each.name]
            # Five that publish, and one that would hear events.
            assert 0 < len(hanging) <= 6
            # Their own timeout brings each of them back, black hole or not.
            await asyncio.to_thread(eventually, lambda: have_ended(hanging))

    asyncio.run(scenario())


def have_ended(threads: Sequence[threading.Thread]) -> bool:
    gc.collect()  # what an error's traceback refers to goes late
    return not any(each.is_alive() for each in threads)


def test_a_workers_environment_does_not_change_how_we_publish(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = at("", f"127.0.0.1:{free_port()}")
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, dead)
    monkeypatch.setenv("CELERY_LOADER", "default")
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "no_such_module")

    assert facts(launch(opened(redis_url), make_sends(3))) == ACCEPTED
    assert client.llen("celery") == 3


def test_a_frozen_redis_gets_nothing_late_and_all_of_it_once_it_answers(
    redis_server: RedisServer, target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        first, second = make_sends(3), make_sends(3)
        await target.launch(first, soon())
        redis_server.pause()
        assert facts(await target.launch(second, soon(1))) == NOT_SENT
        redis_server.resume()
        # What hung goes on now, and must find that it is too late.
        assert facts(await target.launch(first, soon())) == ACCEPTED
        assert client.llen("celery") == 3
        assert facts(await target.launch(second, soon())) == ACCEPTED
        assert client.llen("celery") == 6

    asyncio.run(scenario())


def test_a_redis_that_was_restarted_is_found_again(
    redis_server: RedisServer, target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED
        redis_server.kill()
        assert facts(await target.launch(make_sends(3), soon())) == NOT_SENT
        redis_server.start()
        sends = make_sends(3)
        for _ in range(2):
            assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def test_nothing_is_sent_after_the_deadline(target: CeleryTarget, client: redis.Redis) -> None:
    assert facts(launch(target, make_sends(3), seconds=-1)) == NOT_SENT
    assert client.llen("celery") == 0


def test_a_process_that_was_frozen_sends_nothing_late(
    redis_server: RedisServer, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    sends = make_sends(3)
    redis_server.pause()  # holds the publisher between its claim and its write
    with publisher(tmp_path, redis_url, sends, seconds=3) as process:
        eventually(lambda: "ready" in process.log(), message="the publisher is at work")
        deadline = soon(3)
        process.pause()
        redis_server.resume()
        eventually(lambda: soon(0) > deadline + 0.5, message="its deadline has passed")
        process.resume()
        process.wait()

    seen = json.loads(process.log().splitlines()[-1])
    assert set(seen.values()) == {"not sent"}
    assert client.llen("celery") == 0


def test_a_process_whose_loop_is_held_up_sends_nothing_late(
    redis_server: RedisServer, target: CeleryTarget, client: redis.Redis
) -> None:
    """The loop ends calls at their deadline; a thread that it cannot stop looks at the time."""

    async def scenario() -> None:
        await target.launch(make_sends(1), soon())
        connections = len(client.client_list())
        redis_server.pause()
        deadline = soon(1)
        late = asyncio.create_task(target.launch(make_sends(3), deadline))
        await asyncio.sleep(0)  # it begins
        eventually(lambda: soon(0) > deadline, message="the deadline has passed")
        redis_server.resume()
        eventually(
            lambda: len(client.client_list()) < connections or client.llen("celery") > 1,
            message="the publisher has given up, or sent it",
        )
        assert facts(await late) == NOT_SENT

    asyncio.run(scenario())
    assert client.llen("celery") == 1


@pytest.mark.parametrize(
    ("spoil", "repair", "expected"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM|maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only"),
        ("SET celery x", "DEL celery", "wrong kind"),
        (
            "ACL SETUSER default -lpush",
            "ACL SETUSER default +lpush",
            "permission|can't run this command",
        ),
    ],
)
def test_what_redis_refuses_was_not_sent_and_can_be_sent_later(
    target: CeleryTarget, client: redis.Redis, spoil: str, repair: str, expected: str
) -> None:
    async def scenario() -> None:
        sends = make_sends(3)
        await target.launch(make_sends(1), soon())
        client.delete("celery")
        client.execute_command(*spoil.split())
        try:
            seen = await target.launch(sends, soon())
        finally:
            client.execute_command(*repair.split())
        assert facts(seen) == NOT_SENT
        assert any(word in reasons(seen) for word in expected.split("|")), reasons(seen)
        assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def connections(client: redis.Redis) -> set[str]:
    return {each["id"] for each in client.client_list()}


def test_scannerjobs_with_the_same_broker_share_its_connection(
    redis_url: str, client: redis.Redis
) -> None:
    brokers = Brokers()
    targets = [brokers.open(redis_url, None, celery_spec(queue=str(n))) for n in range(5)]
    before = connections(client)

    async def scenario() -> None:
        await asyncio.gather(*(target.launch(make_sends(20), soon()) for target in targets))

    asyncio.run(scenario())
    ours = connections(client) - before
    brokers.close()

    # One for messages, perhaps one for the bindings of queues, and one for events.
    assert 0 < len(ours) <= 3
    assert {client.llen(str(number)) for number in range(5)} == {20}
    eventually(lambda: not ours & connections(client), message="they are closed")


def pollers() -> int:
    """How many objects this process polls its connections by."""
    files = Path("/proc/self/fd").iterdir()
    return sum("eventpoll" in str(each.readlink()) for each in files if each.is_symlink())


@pytest.mark.parametrize("answers", [True, False])
def test_no_poller_of_a_connection_that_has_ended_is_left_to_the_garbage_collector(
    redis_url: str, answers: bool
) -> None:
    url = redis_url if answers else at("", f"127.0.0.1:{free_port()}")
    gc.collect()
    gc.disable()
    try:
        before = pollers()
        for _ in range(5):
            brokers = Brokers()
            seen = launch(brokers.open(url, None, celery_spec()), make_sends(1))
            assert facts(seen) == (ACCEPTED if answers else NOT_SENT)
            brokers.close()
        eventually(lambda: pollers() == before, message="they are closed", ignoring=OSError)
    finally:
        gc.enable()


def test_a_connection_goes_with_the_last_target_that_uses_it(
    redis_url: str, client: redis.Redis
) -> None:
    brokers = Brokers()
    targets = [brokers.open(redis_url, redis_url, celery_spec()) for _ in range(2)]
    before = connections(client)

    async def scenario() -> None:
        for target in targets:
            await target.launch(make_sends(3), soon())
            await target.observe(["a"])
        await background_done()

    asyncio.run(scenario())
    ours = connections(client) - before
    targets.pop()
    gc.collect()
    assert ours <= connections(client)
    targets.pop()
    gc.collect()

    eventually(lambda: not ours & connections(client), message="they are closed")
