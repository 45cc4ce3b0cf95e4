"""What every LedgerStore promises, as tests: a subclass gives them a World to run in."""

from __future__ import annotations

import asyncio
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pytest

from scannerjob.ports import ConflictError, LedgerStore, Ref, Snapshot, UnknownOutcomeError

WRITERS = 8
Test = Callable[[Any, Any], Awaitable[None]]
_World = TypeVar("_World", bound="World")


class World(ABC):
    """The place the ledgers are kept in, as its owner sees it."""

    @abstractmethod
    async def store(self, deadline: float = 10) -> LedgerStore:
        """A store of its own, as another process would have it."""

    @abstractmethod
    async def apply(self, document: Mapping[str, Any]) -> None: ...

    @abstractmethod
    async def request(self, ref: Ref, name: str, nonce: str) -> None: ...

    @abstractmethod
    async def delete(self, ref: Ref) -> None:
        """Delete the ScannerJob and everything that is remembered of it."""

    @abstractmethod
    async def wipe(self, ref: Ref) -> None:
        """Lose the status alone."""

    @abstractmethod
    async def close(self) -> None: ...


class PausableWorld(World):
    @abstractmethod
    def paused(self) -> AbstractContextManager[None]:
        """While this lasts, no write is answered."""


def scenario(test: Test) -> Callable[[Any, Any], None]:
    """Runs an asynchronous test in a loop of its own and closes its world."""

    @functools.wraps(test)
    def run(self: Any, world: World) -> None:
        asyncio.run(_run(self, world))

    async def _run(self: Any, world: World) -> None:
        try:
            await test(self, world)
        finally:
            await world.close()

    return run


def document(name: str = "pdf-pages", query: str = "SELECT 1") -> dict[str, Any]:
    secret = {"urlSecretRef": {"name": "app", "key": "url"}}
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "database": secret,
            "query": query,
            "celery": {"broker": secret, "task": "docs.tasks.create_pages"},
        },
    }


def status(launched: int = 0, items: int = 0) -> dict[str, Any]:
    """A ledger as the operator writes it."""
    return {
        "ledgerVersion": 1,
        "launched": launched,
        "active": items,
        "items": [_item(number) for number in range(items)],
        "endpoints": {"broker": "0123456789abcdef"},
    }


def _item(number: int) -> dict[str, Any]:
    return {
        "key": f'["{"ü" * 90}{number:08}"]',
        "id": f"00000000-0000-4000-8000-{number:012}",
        "phase": "Launched",
        "attempt": 1,
        "sends": 1,
        "since": "2026-11-23T10:00:00Z",
    }


async def read(store: LedgerStore, ref: Ref) -> Snapshot:
    snapshot = await store.read(ref)
    assert snapshot is not None
    return snapshot


async def outcome(write: Awaitable[Snapshot]) -> Snapshot | Exception:
    try:
        return await write
    except (ConflictError, UnknownOutcomeError) as error:
        return error


class LedgerStoreSuite:
    """The promises. `applied` is the document most of them begin with."""

    REF = Ref("default", "pdf-pages")

    async def applied(self, world: World) -> tuple[LedgerStore, Snapshot]:
        await world.apply(document())
        store = await world.store()
        return store, await read(store, self.REF)

    @scenario
    async def test_what_is_not_there_reads_as_none(self, world: World) -> None:
        assert await (await world.store()).read(Ref("default", "nobody")) is None

    @scenario
    async def test_a_new_object_has_its_spec_and_no_ledger(self, world: World) -> None:
        _, snapshot = await self.applied(world)
        assert snapshot.spec["query"] == "SELECT 1"
        assert "ledgerVersion" not in snapshot.status
        assert not snapshot.marked
        assert snapshot.requests == {}

    @scenario
    async def test_a_write_is_read_back_by_everybody(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        written = await store.write(snapshot, status(launched=7, items=2))
        assert written.status == status(launched=7, items=2)
        assert await read(store, self.REF) == written
        assert await read(await world.store(), self.REF) == written

    @scenario
    async def test_a_write_replaces_the_whole_status(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        written = await store.write(snapshot, status(launched=7, items=2))
        less = {"ledgerVersion": 1, "launched": 8}
        assert (await store.write(written, less)).status == less
        assert (await read(store, self.REF)).status == less

    @scenario
    async def test_a_status_of_400_kib_comes_back_equal(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        big = status(items=1100)
        await store.write(snapshot, big)
        assert (await read(store, self.REF)).status == big

    @scenario
    async def test_a_stale_write_loses(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await (await world.store()).write(snapshot, status(launched=1))
        with pytest.raises(ConflictError):
            await store.write(snapshot, status(launched=2))
        assert (await read(store, self.REF)).status == status(launched=1)

    @scenario
    async def test_a_change_of_the_spec_makes_a_write_lose(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await world.apply(document(query="select 1"))
        with pytest.raises(ConflictError):
            await store.write(snapshot, status(launched=1))
        changed = await read(store, self.REF)
        assert changed.spec["query"] == "select 1"
        assert changed.generation == snapshot.generation + 1
        assert changed.uid == snapshot.uid

    @scenario
    async def test_applying_the_same_again_changes_nothing(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await world.apply(document())
        assert await read(store, self.REF) == snapshot

    @scenario
    async def test_a_write_does_not_change_the_generation(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        written = await store.write(snapshot, status(launched=1))
        assert written.generation == snapshot.generation

    @scenario
    async def test_one_of_many_concurrent_writers_wins(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        stores = [store, await world.store()]
        for round_ in range(5):
            attempts = (
                outcome(stores[n % 2].write(snapshot, status(launched=100 * round_ + n)))
                for n in range(WRITERS)
            )
            outcomes = await asyncio.gather(*attempts)
            (won,) = [each for each in outcomes if isinstance(each, Snapshot)]
            lost = [each for each in outcomes if isinstance(each, ConflictError)]
            assert len(lost) == WRITERS - 1
            snapshot = await read(store, self.REF)
            assert snapshot == won

    @scenario
    async def test_the_successor_of_a_deleted_object_is_another(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await world.delete(self.REF)
        with pytest.raises(ConflictError):
            await store.write(snapshot, status(launched=1))
        await world.apply(document())
        with pytest.raises(ConflictError):
            await store.write(snapshot, status(launched=1))
        with pytest.raises(ConflictError):
            await store.mark(snapshot)
        successor = await read(await world.store(), self.REF)
        assert successor.uid != snapshot.uid
        assert "ledgerVersion" not in successor.status
        assert not successor.marked

    @scenario
    async def test_a_wiped_status_is_told_from_a_first_run(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        marked = await store.mark(await store.write(snapshot, status(launched=1)))
        await world.wipe(self.REF)
        await world.apply(document())
        wiped = await read(store, self.REF)
        assert "ledgerVersion" not in wiped.status
        assert wiped.marked
        with pytest.raises(ConflictError):
            await store.write(marked, status(launched=2))

    @scenario
    async def test_a_mark_can_be_repeated_and_keeps_the_status(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        written = await store.write(snapshot, status(launched=1))
        marked = await store.mark(written)
        again = await store.mark(marked)
        assert marked.marked
        assert again.marked
        assert again.status == status(launched=1)
        assert again.generation == snapshot.generation
        assert await read(store, self.REF) == again

    @scenario
    async def test_a_mark_on_a_stale_snapshot_loses(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await store.write(snapshot, status(launched=1))
        with pytest.raises(ConflictError):
            await store.mark(snapshot)
        assert not (await read(store, self.REF)).marked

    @scenario
    async def test_requests_are_read_with_their_last_nonce(self, world: World) -> None:
        store, _ = await self.applied(world)
        await world.request(self.REF, "retry", "n1")
        await world.request(self.REF, "scan", "n2")
        await world.request(self.REF, "retry", "n3")
        assert (await read(store, self.REF)).requests == {"retry": "n3", "scan": "n2"}

    @scenario
    async def test_objects_do_not_touch_each_other(self, world: World) -> None:
        store, snapshot = await self.applied(world)
        await world.apply(document(name="other"))
        other = await read(store, Ref("default", "other"))
        await store.mark(await store.write(snapshot, status(launched=1)))
        assert await read(store, Ref("default", "other")) == other


class UnansweredSuite:
    """What is promised where a write is not answered in time."""

    DEADLINE = 1.5
    REF = LedgerStoreSuite.REF

    @scenario
    async def test_an_unanswered_write_is_unknown_and_happened_or_not(
        self, world: PausableWorld
    ) -> None:
        await world.apply(document())
        store = await world.store(self.DEADLINE)
        before = await read(store, self.REF)
        with world.paused():
            started = time.monotonic()
            with pytest.raises(UnknownOutcomeError):
                await store.write(before, status(launched=1))
            assert time.monotonic() - started < self.DEADLINE + 1
        now = await self._when_it_answers_again(store)
        assert now.status in (before.status, status(launched=1))
        # The late write may still land between a read and a write; it never lands after one.
        won = await self._write_until_won(store, status(launched=2))
        assert (await read(await world.store(), self.REF)) == won

    async def _when_it_answers_again(self, store: LedgerStore) -> Snapshot:
        for _ in range(20):
            try:
                return await read(store, self.REF)
            except UnknownOutcomeError:
                await asyncio.sleep(0.1)
        raise AssertionError("the store did not come back")

    async def _write_until_won(self, store: LedgerStore, new: Mapping[str, Any]) -> Snapshot:
        while True:
            won = await outcome(store.write(await read(store, self.REF), new))
            if isinstance(won, Snapshot):
                return won


class UnansweredReadSuite(UnansweredSuite):
    """The same where the server answers nothing at all."""

    @scenario
    async def test_an_unanswered_read_is_unknown(self, world: PausableWorld) -> None:
        await world.apply(document())
        store = await world.store(self.DEADLINE)
        before = await read(store, self.REF)
        with world.paused():
            started = time.monotonic()
            with pytest.raises(UnknownOutcomeError):
                await store.read(self.REF)
            assert time.monotonic() - started < self.DEADLINE + 1
        assert await self._when_it_answers_again(store) == before
