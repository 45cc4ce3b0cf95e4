"""Whose turn it is: many ScannerJobs, hung ones, a pause; in virtual time, with stand-in cycles."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest

from scannerjob import engine as engine_module
from scannerjob.engine import STOP_WITHIN, WORKERS, Engine
from scannerjob.ports import Ref
from scannerjob.stores.memory import MemoryStore
from tests.support.virtual_time import freeze, now, run_virtually
from tests.unit.test_engine import Connector

INTERVAL = 30.0


def ref(number: int) -> Ref:
    return Ref("default", f"job-{number}")


class Cycles:
    """What all cycles of a test do, and what was seen of them."""

    def __init__(self) -> None:
        self.begun: list[Ref] = []
        self.times: dict[Ref, list[float]] = {}
        self.last_words: list[Ref] = []
        self.at_once = 0
        self.most_at_once = 0
        self.hung: set[Ref] = set()
        self.let_go = asyncio.Event()
        self.unbooked: set[Ref] = set()
        self.gone: set[Ref] = set()
        self.seconds = 0.01

    async def run(self, ref: Ref) -> float | None:
        self.begun.append(ref)
        self.times.setdefault(ref, []).append(now())
        self.at_once += 1
        self.most_at_once = max(self.at_once, self.most_at_once)
        try:
            await (self.let_go.wait() if ref in self.hung else asyncio.sleep(self.seconds))
        finally:
            self.at_once -= 1
        return None if ref in self.gone else INTERVAL


def scenario(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[Engine, Cycles], Awaitable[None]]
) -> None:
    """Plays with an engine whose scanners run `Cycles`."""

    async def main() -> None:
        cycles = Cycles()

        class StandIn:
            def __init__(self, ref: Ref, *_: object, **__: object) -> None:
                self.ref = ref

            looked = True

            @property
            def has_reports(self) -> bool:
                return self.ref in cycles.unbooked

            async def cycle(self, *, stopping: bool = False) -> float | None:
                if not stopping:
                    return await cycles.run(self.ref)
                cycles.last_words.append(self.ref)
                cycles.unbooked.discard(self.ref)
                return None

        monkeypatch.setattr(engine_module, "Scanner", StandIn)
        engine = Engine(MemoryStore(), Connector())
        try:
            await play(engine, cycles)
        finally:
            cycles.let_go.set()
            await engine.close()

    run_virtually(main())


def test_two_hundred_hung_ones_delay_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        cycles.hung = {ref(number) for number in range(200)}
        for number in range(300):
            engine.wake(ref(number))
        await asyncio.sleep(60)
        others = [ref(number) for number in range(200, 300)]
        # While the hung ones are begun, once, the others wait; from then on they are punctual.
        assert all(len(cycles.times[each]) >= 2 for each in others)
        for each in others:
            before = len(cycles.times[each])
            engine.wake(each)
            await asyncio.sleep(0.1)
            assert len(cycles.times[each]) == before + 1
        assert all(len(cycles.times[each]) == 1 for each in cycles.hung)

    scenario(monkeypatch, play)


def test_a_cold_start_of_thousands_runs_a_few_at_once_and_each_in_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        for number in range(5000):
            engine.wake(ref(number))
        await asyncio.sleep(20)
        assert cycles.begun == [ref(number) for number in range(5000)]
        assert cycles.most_at_once == WORKERS

    scenario(monkeypatch, play)


def test_a_thousand_are_polled_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        for number in range(1000):
            engine.wake(ref(number))
        await asyncio.sleep(10 * INTERVAL)
        distances = [
            later - earlier for times in cycles.times.values() for earlier, later in pairwise(times)
        ]
        assert len(distances) >= 8000
        assert max(distances) - min(distances) < 0.1

    scenario(monkeypatch, play)


def test_one_that_is_woken_all_the_time_takes_no_turn_of_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        for number in range(500):
            engine.wake(ref(number))
        async with asyncio.timeout(10):
            while len(set(cycles.begun)) < 500:
                engine.wake(ref(0))
                await asyncio.sleep(0.001)
        counts = Counter(cycles.begun)
        assert counts[ref(0)] <= 5
        assert all(counts[ref(number)] == 1 for number in range(1, 500))

    scenario(monkeypatch, play)


def test_while_paused_no_cycle_begins_and_those_under_way_end_and_say_what_they_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        cycles.hung = {ref(0)}
        engine.wake(ref(0))
        engine.wake(ref(1))
        await asyncio.sleep(5)
        # One has something to tell when its cycle ends, one has it while it waits for its time.
        cycles.unbooked = {ref(0), ref(1)}
        engine.pause()
        engine.wake(ref(2))
        await asyncio.sleep(5)
        assert cycles.at_once == 1
        assert cycles.last_words == [ref(1)]
        cycles.let_go.set()
        await asyncio.sleep(200)
        assert cycles.at_once == 0
        assert cycles.last_words == [ref(1), ref(0)]
        assert cycles.begun == [ref(0), ref(1)]
        resumed = now()
        engine.resume()
        await asyncio.sleep(1)
        assert set(cycles.begun[2:]) == {ref(0), ref(1), ref(2)}
        assert all(times[-1] == resumed for times in cycles.times.values())

    scenario(monkeypatch, play)


def test_an_object_that_is_gone_is_dropped_and_may_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        cycles.gone = {ref(0)}
        engine.wake(ref(0))
        await asyncio.sleep(100)
        engine.forget(ref(0))
        await asyncio.sleep(100)
        assert cycles.begun == [ref(0)]
        cycles.gone = set()
        engine.wake(ref(0))
        await asyncio.sleep(INTERVAL + 1)
        assert cycles.begun == [ref(0)] * 3

    scenario(monkeypatch, play)


def test_nothing_begins_once_it_may_not_whenever_that_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        until = now() + 45
        engine.may_begin = lambda: now() < until
        for number in range(100):
            engine.wake(ref(number))
        await asyncio.sleep(5)
        freeze(60)
        await asyncio.sleep(100)
        assert len(cycles.begun) == 100
        until = now() + 1000
        engine.resume()
        await asyncio.sleep(5)
        assert len(cycles.begun) == 200

    scenario(monkeypatch, play)


def test_closing_gives_up_on_what_hangs_for_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        cycles.hung = {ref(0)}
        engine.wake(ref(0))
        await asyncio.sleep(5)
        began = now()
        await engine.close()
        assert now() - began == pytest.approx(STOP_WITHIN)

    scenario(monkeypatch, play)


def test_a_worker_that_moves_on_no_more_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(engine: Engine, cycles: Cycles) -> None:
        assert engine.stuck == 0
        for worker in engine._workers:
            worker.cancel()
        engine.wake(ref(0))
        await asyncio.sleep(70)
        assert engine.stuck == pytest.approx(70)

    scenario(monkeypatch, play)
