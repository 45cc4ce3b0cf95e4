"""A thread per server: serial, replaced when it hangs, gone with its lane."""

import asyncio
import gc
import threading
from collections.abc import Callable

import pytest

from scannerjob.targets.celery.lane import Lane
from tests.support.celery_target import soon, watched_loop
from tests.support.waiting import eventually


class Client:
    def __init__(self) -> None:
        self.thread = threading.current_thread()
        self.closed = False

    def close(self) -> None:
        self.closed = True


def same(client: Client) -> Client:
    return client


def block_until(event: threading.Event) -> Callable[[Client], bool]:
    return lambda _: event.wait(60)


def test_calls_share_one_client_and_its_thread() -> None:
    async def scenario() -> None:
        lane = Lane("test", Client)

        first, second = await lane.run(same, soon()), await lane.run(same, soon())

        assert first is second
        assert first.thread is not threading.current_thread()

    asyncio.run(scenario())


def test_a_client_whose_call_failed_is_closed_and_made_anew() -> None:
    async def scenario() -> None:
        lane = Lane("test", Client)
        first = await lane.run(same, soon())

        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda _: 1 / 0, soon())

        assert first.closed
        assert await lane.run(same, soon()) is not first

    asyncio.run(scenario())


def test_a_failure_to_connect_is_the_calls_failure_and_the_next_call_connects_again() -> None:
    attempts = iter([OSError("refused")])

    def connect() -> Client:
        for error in attempts:
            raise error
        return Client()

    async def scenario() -> None:
        lane = Lane("test", connect)

        with pytest.raises(OSError, match="refused"):
            await lane.run(same, soon())

        assert not (await lane.run(same, soon())).closed

    asyncio.run(scenario())


def test_a_call_that_hangs_holds_up_neither_the_loop_nor_the_calls_behind_it() -> None:
    release = threading.Event()

    async def scenario() -> None:
        lane = Lane("test", Client)
        before = await lane.run(same, soon())
        async with watched_loop(longest=0.5):
            hanging = asyncio.create_task(lane.run(block_until(release), soon(0.3)))
            await asyncio.sleep(0)
            behind = asyncio.create_task(lane.run(same, soon()))
            with pytest.raises(TimeoutError):
                await hanging
            after = await behind

        assert after.thread is not before.thread
        release.set()
        before.thread.join(30)
        assert not before.thread.is_alive()
        assert before.closed

    asyncio.run(scenario())


def test_a_call_whose_deadline_has_passed_is_not_begun() -> None:
    async def scenario() -> None:
        ran = threading.Event()
        lane = Lane("test", Client)

        with pytest.raises(TimeoutError):
            await lane.run(lambda _: ran.set(), soon(-1))
        await lane.run(same, soon())

        assert not ran.is_set()

    asyncio.run(scenario())


def test_a_call_that_was_cancelled_while_it_waited_is_not_begun() -> None:
    release, ran = threading.Event(), threading.Event()

    async def scenario() -> None:
        lane = Lane("test", Client)
        running = asyncio.create_task(lane.run(block_until(release), soon()))
        waiting = asyncio.create_task(lane.run(lambda _: ran.set(), soon()))
        await asyncio.sleep(0.05)

        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        release.set()
        await running
        await lane.run(same, soon())

        assert not ran.is_set()

    asyncio.run(scenario())


def test_threads_that_hang_for_ever_do_not_pile_up() -> None:
    release = threading.Event()

    async def scenario() -> None:
        lane = Lane("pile", Client)
        for _ in range(12):
            with pytest.raises(TimeoutError):
                await lane.run(block_until(release), soon(0.02))

        assert len(threads("pile")) <= 5
        release.set()
        assert not (await lane.run(same, soon())).closed

    asyncio.run(scenario())


def test_its_thread_ends_with_the_lane() -> None:
    async def scenario() -> Client:
        return await Lane("short-lived", Client).run(same, soon())

    client = asyncio.run(scenario())
    gc.collect()

    eventually(lambda: not client.thread.is_alive(), message="the thread has ended")
    assert client.closed


def threads(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]
