"""The delaying queue, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from scannerjob.workqueue import WorkQueue
from tests.support.virtual_time import now, run_virtually

Queue = WorkQueue[str]


def run(scenario: Callable[[Queue], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario(WorkQueue())

    run_virtually(main())


async def next_within(queue: Queue, seconds: float) -> str | None:
    try:
        async with asyncio.timeout(seconds):
            return await queue.get()
    except TimeoutError:
        return None


async def take(queue: Queue, count: int) -> list[str]:
    taken = []
    for _ in range(count):
        key = await queue.get()
        queue.done(key)
        taken.append(key)
    return taken


def test_keys_come_in_the_order_in_which_they_fell_due() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("late", 20)
        queue.add("soon", 10)
        queue.add("first")
        queue.add("second")
        began = now()
        assert await take(queue, 4) == ["first", "second", "soon", "late"]
        assert now() - began == pytest.approx(20)

    run(scenario)


def test_several_adds_are_one_and_the_earliest_time_counts() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a", 20)
        queue.add("a", 10)
        queue.add("a", 30)
        began = now()
        assert await take(queue, 1) == ["a"]
        assert now() - began == pytest.approx(10)
        assert await next_within(queue, 100) is None

    run(scenario)


def test_an_earlier_time_is_noticed_by_a_worker_that_waits() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a", 60)
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(1)
        queue.add("a", 1)
        began = now()
        assert await waiting == "a"
        assert now() - began == pytest.approx(1)

    run(scenario)


def test_a_key_is_worked_on_by_one_worker_and_once_more_if_it_is_added_meanwhile() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a")
        assert await queue.get() == "a"
        queue.add("a")
        queue.add("a")
        assert await next_within(queue, 100) is None
        queue.done("a")
        assert await take(queue, 1) == ["a"]
        assert await next_within(queue, 100) is None
        assert "a" not in queue

    run(scenario)


def test_one_that_is_added_again_and_again_stands_behind_all_that_are_due() -> None:
    async def scenario(queue: Queue) -> None:
        for key in ("hot", "b", "c"):
            queue.add(key)
        order = []
        for _ in range(4):
            key = await queue.get()
            order.append(key)
            if key == "hot":
                queue.add("hot")
            queue.done(key)
        assert order == ["hot", "b", "c", "hot"]

    run(scenario)


def test_a_key_rests_after_its_work_whoever_adds_it() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("a")
        await queue.get()
        queue.add("a", 60)
        queue.done("a", rest=0.5)
        queue.add("a")
        ended = now()
        await queue.get()
        assert now() - ended == pytest.approx(0.5)

    run(scenario)


def test_a_paused_queue_hands_out_nothing_and_remembers_all() -> None:
    async def scenario(queue: Queue) -> None:
        queue.add("far", 3600)
        waiting = asyncio.create_task(take(queue, 3))
        await asyncio.sleep(1)
        queue.pause()
        queue.add("a")
        queue.add("b")
        await asyncio.sleep(100)
        assert not waiting.done()
        assert queue.stuck() == 0
        resumed = now()
        queue.resume()
        assert set(await waiting) == {"a", "b", "far"}
        assert now() == resumed

    run(scenario)


def test_a_certain_key_can_be_taken_even_while_paused_but_not_by_two() -> None:
    async def scenario(queue: Queue) -> None:
        queue.pause()
        queue.add("a", 60)
        assert queue.take("a")
        assert not queue.take("a")
        assert not queue.take("unknown")
        queue.resume()
        assert await next_within(queue, 10) is None
        queue.done("a")
        assert await queue.get() == "a"

    run(scenario)


def test_it_tells_for_how_long_nothing_has_moved() -> None:
    async def scenario(queue: Queue) -> None:
        assert queue.stuck() == 0
        queue.add("a", 10)
        queue.add("b", 10)
        await asyncio.sleep(15)
        assert queue.stuck() == pytest.approx(5)
        await queue.get()
        await asyncio.sleep(1)
        assert queue.stuck() == pytest.approx(1)
        await queue.get()
        assert queue.stuck() == 0

    run(scenario)


def test_what_is_left_of_earlier_times_is_dropped() -> None:
    async def scenario(queue: Queue) -> None:
        for _ in range(10_000):
            queue.add("a")
            await queue.get()
            queue.add("a", 3600)
            queue.done("a")
        assert len(queue._line) < 2000

    run(scenario)
