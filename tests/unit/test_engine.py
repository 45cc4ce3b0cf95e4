"""Many ScannerJobs at once: woken, never overlapping, none in the way of another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest

from scannerjob import engine as engine_module
from scannerjob.engine import Engine
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import ConfigurationError, Connections, Ref, Snapshot
from scannerjob.stores.memory import MemoryStore
from tests.unit.cases import document

A, B = Ref("default", "a"), Ref("default", "b")


class Connector:
    """Connects nothing: every cycle ends with a condition."""

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        raise ConfigurationError("SecretNotFound", f"{snapshot.ref}: there is no Secret app")

    def forget(self, ref: Ref) -> None:
        pass

    def reread(self, ref: Ref) -> None:
        pass


class Store(MemoryStore):
    """Counts reads; a read may be made to wait, or to fail."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[Ref] = []
        self.running = 0
        self.overlapped = False
        self.before_read: Callable[[Ref], Awaitable[None]] | None = None
        self.written: Mapping[str, Any] = {}

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        self.written = status
        return await super().write(snapshot, status)

    async def read(self, ref: Ref) -> Snapshot | None:
        self.reads.append(ref)
        self.running += 1
        self.overlapped |= self.running > 1
        try:
            if self.before_read is not None:
                await self.before_read(ref)
            return await super().read(ref)
        finally:
            self.running -= 1

    async def add(self, ref: Ref) -> None:
        metadata: Mapping[str, Any] = {"namespace": ref.namespace, "name": ref.name}
        await self.apply({"metadata": metadata, "spec": document()})

    async def has_read(self, ref: Ref, times: int) -> None:
        await holds(lambda: self.reads.count(ref) >= times)


async def holds(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is behind a port
            await asyncio.sleep(0.005)


def run(scenario: Callable[[Engine, Store], Awaitable[None]]) -> Store:
    store = Store()

    async def main() -> None:
        engine = Engine(store, Connector())
        try:
            await scenario(engine, store)
        finally:
            await engine.close()

    asyncio.run(main())
    return store


def test_a_wake_up_runs_a_cycle_at_once_and_its_trouble_becomes_a_condition() -> None:
    async def scenario(engine: Engine, store: Store) -> None:
        await store.add(A)
        engine.wake(A)
        await store.has_read(A, 1)
        await holds(lambda: store.written)
        assert store.written["conditions"][0]["reason"] == "SecretNotFound"

    run(scenario)


def test_wake_ups_while_a_cycle_runs_count_as_one_and_cycles_never_overlap() -> None:
    async def scenario(engine: Engine, store: Store) -> None:
        await store.add(A)
        go_on = asyncio.Event()

        async def wait(ref: Ref) -> None:
            await go_on.wait()

        store.before_read = wait
        engine.wake(A)
        await store.has_read(A, 1)
        for _ in range(9):
            engine.wake(A)
        go_on.set()
        await store.has_read(A, 2)

    store = run(scenario)
    assert store.reads.count(A) == 2
    assert not store.overlapped


def test_one_that_hangs_delays_no_other() -> None:
    async def scenario(engine: Engine, store: Store) -> None:
        await store.add(A)
        await store.add(B)
        for_ever = asyncio.Event()

        async def wait(ref: Ref) -> None:
            if ref == A:
                await for_ever.wait()

        store.before_read = wait
        engine.wake(A)
        engine.wake(B)
        await store.has_read(B, 1)
        engine.wake(B)
        await store.has_read(B, 2)
        for_ever.set()

    assert run(scenario).reads.count(A) == 1


def test_a_deleted_object_ends_its_task_and_one_created_anew_is_looked_at() -> None:
    async def scenario(engine: Engine, store: Store) -> None:
        engine.wake(A)
        await store.has_read(A, 1)
        await asyncio.sleep(0)
        await store.add(A)
        engine.wake(A)
        await store.has_read(A, 2)

    run(scenario)


def test_a_bug_in_a_cycle_does_not_end_it_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "_AFTER_A_BUG", 0.01)

    async def scenario(engine: Engine, store: Store) -> None:
        async def fail(ref: Ref) -> None:
            raise ZeroDivisionError

        store.before_read = fail
        engine.wake(A)
        await store.has_read(A, 3)

    run(scenario)


def test_closing_waits_for_the_cycle_under_way_and_begins_no_other() -> None:
    async def scenario(engine: Engine, store: Store) -> None:
        await store.add(A)
        go_on = asyncio.Event()

        async def wait(ref: Ref) -> None:
            await go_on.wait()

        store.before_read = wait
        engine.wake(A)
        await store.has_read(A, 1)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        engine.wake(B)
        go_on.set()
        await closing

    assert run(scenario).reads == [A]


def test_what_is_closed_begins_no_cycle_when_it_is_paused_as_well(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Lease is given back last, which pauses the engine: its client is about to close."""
    monkeypatch.setattr("scannerjob.scan.Scanner.has_reports", True)

    async def scenario(engine: Engine, store: Store) -> None:
        await store.add(A)
        engine.wake(A)
        await store.has_read(A, 1)
        await engine.close()
        before = list(store.reads)
        engine.pause()
        await asyncio.sleep(0.01)
        assert store.reads == before

    run(scenario)


def test_it_can_be_woken_from_any_thread_even_when_it_is_too_late() -> None:
    engines: list[Engine] = []

    async def scenario(engine: Engine, store: Store) -> None:
        engines.append(engine)
        await store.add(A)
        await asyncio.to_thread(engine.wake_from_thread, A)
        await store.has_read(A, 1)

    run(scenario)
    engines[0].wake_from_thread(A)
