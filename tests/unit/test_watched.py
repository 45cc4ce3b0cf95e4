"""What the watch showed instead of a read, and what is found when it shows nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient

from scannerjob.controller.resync import Resync
from scannerjob.controller.watched import TRUSTED_FOR, WatchedStore
from scannerjob.ports import ConflictError, Ref, Snapshot, UnknownOutcomeError
from scannerjob.stores.memory import MemoryStore
from tests.support.virtual_time import freeze, now, run_virtually
from tests.unit.cases import document

A, B = Ref("default", "a"), Ref("default", "b")


class Server(MemoryStore):
    """Counts reads; the answer to a write may get lost, and a read may be held back."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.loses_answers = False
        self.before_answer: Callable[[], None] = lambda: None

    async def read(self, ref: Ref) -> Snapshot | None:
        self.reads += 1
        found = await super().read(ref)
        self.before_answer()
        return found

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        written = await super().write(snapshot, status)
        if self.loses_answers:
            raise UnknownOutcomeError("Lost", "no answer")
        return written

    async def change(self, ref: Ref = A, **spec: Any) -> dict[str, Any]:
        """As by another client; gives what a watch shows of it."""
        metadata = {"namespace": ref.namespace, "name": ref.name}
        await self.apply({"metadata": metadata, "spec": document(**spec)})
        return await self.shows(ref)

    async def shows(self, ref: Ref = A) -> dict[str, Any]:
        found = await super().read(ref)
        assert found is not None
        metadata = {
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": found.uid,
            "generation": found.generation,
            "resourceVersion": found.version,
        }
        return {"metadata": metadata, "spec": found.spec, "status": found.status}


Scenario = Callable[[Server, WatchedStore], Awaitable[None]]


def run(scenario: Scenario) -> None:
    async def main() -> None:
        server = Server()
        await scenario(server, WatchedStore(server, now))

    run_virtually(main())


async def read(store: WatchedStore, ref: Ref = A) -> Snapshot:
    found = await store.read(ref)
    assert found is not None
    return found


def test_what_the_watch_showed_need_not_be_read() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        store.seen(await server.change(concurrency=3))
        assert (await read(store)).spec["concurrency"] == 3
        store.seen(await server.change(concurrency=4))
        assert (await read(store)).spec["concurrency"] == 4
        assert server.reads == 0

    run(scenario)


def test_what_it_never_showed_is_read_once() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        assert await store.read(A) is None
        await server.change()
        await read(store)
        await read(store)
        assert server.reads == 2

    run(scenario)


def test_our_own_write_is_known_and_an_older_event_does_not_undo_it() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        old = await server.change()
        store.seen(old)
        written = await store.write(await read(store), {"launched": 1})
        marked = await store.mark(written)
        store.seen(old)
        assert await read(store) == marked
        await store.write(await read(store), {"launched": 2})
        assert server.reads == 0

    run(scenario)


def test_after_a_lost_swap_and_after_a_lost_answer_the_truth_is_read() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        store.seen(await server.change())
        await server.change(concurrency=7)
        with pytest.raises(ConflictError):
            await store.write(await read(store), {"launched": 1})
        assert (await read(store)).spec["concurrency"] == 7
        server.loses_answers = True
        with pytest.raises(UnknownOutcomeError):
            await store.write(await read(store), {"launched": 2})
        assert (await read(store)).status == {"launched": 2}
        assert server.reads == 2
        await server.change(concurrency=8)
        with pytest.raises(ConflictError):
            await store.mark(await read(store))
        assert (await read(store)).spec["concurrency"] == 8

    run(scenario)


def test_what_was_not_confirmed_for_long_is_read_anew() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        store.seen(await server.change())
        await server.change(concurrency=7)
        await asyncio.sleep(TRUSTED_FOR - 1)
        assert (await read(store)).spec["concurrency"] == 2
        await asyncio.sleep(1)
        assert (await read(store)).spec["concurrency"] == 7

    run(scenario)


def test_what_is_confirmed_is_trusted_for_longer() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        store.seen(await server.change())
        for _ in range(5):
            await asyncio.sleep(60)
            store.confirm(A, (await read(store)).version)
        assert server.reads == 0
        store.confirm(A, "4711")
        await asyncio.sleep(TRUSTED_FOR)
        await read(store)
        assert server.reads == 1

    run(scenario)


def test_a_deleted_object_is_asked_for_and_its_successor_is_not_forgotten_with_it() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        first = await server.change()
        store.seen(first)
        server.delete(A)
        store.gone(first)
        assert await store.read(A) is None
        second = await server.change()
        store.seen(second)
        store.gone(first)
        store.seen(first)
        assert (await read(store)).uid == second["metadata"]["uid"]
        assert server.reads == 1

    run(scenario)


def test_what_is_shown_while_a_read_is_under_way_is_not_undone_by_it() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        newer = await server.change()
        newer["metadata"]["resourceVersion"] = "99"
        newer["spec"] = document(concurrency=9)
        server.before_answer = lambda: store.seen(newer)
        assert (await read(store)).spec["concurrency"] == 2
        assert (await read(store)).spec["concurrency"] == 9
        assert server.reads == 1

    run(scenario)


def test_versions_that_are_no_numbers_have_no_order_and_the_last_one_counts() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        first, second = await server.change(), await server.change(concurrency=9)
        first["metadata"]["resourceVersion"] = "b"
        second["metadata"]["resourceVersion"] = "a"
        store.seen(first)
        store.seen(second)
        assert (await read(store)).spec["concurrency"] == 9

    run(scenario)


class Look(Resync):
    """Lists what a Server has."""

    def __init__(self, server: Server, store: WatchedStore) -> None:
        self.server = server
        self.refs: list[Ref] = []
        self.woken: list[Ref] = []
        self.fails = False
        super().__init__(ApiClient.__new__(ApiClient), store, self.woken.append, clock=now)

    async def _list(self) -> AsyncIterator[tuple[Ref, str]]:
        if self.fails:
            raise UnknownOutcomeError("APIServerUnreachable", "no answer from the API server")
        for ref in self.refs:
            yield ref, (await self.server.shows(ref))["metadata"]["resourceVersion"]


def look(scenario: Callable[[Server, WatchedStore, Look], Awaitable[None]]) -> None:
    async def main() -> None:
        server = Server()
        store = WatchedStore(server, now)
        resync = Look(server, store)
        running = asyncio.create_task(resync.run())
        try:
            await scenario(server, store, resync)
        finally:
            running.cancel()

    run_virtually(main())


def show(store: WatchedStore, resync: Resync, ref: Ref, event: Mapping[str, Any]) -> None:
    store.seen(event)
    resync.shown(ref, event["metadata"]["resourceVersion"])


def test_an_object_that_the_watch_never_shows_is_found_and_counted_against_the_watch() -> None:
    async def scenario(server: Server, store: WatchedStore, resync: Look) -> None:
        show(store, resync, A, await server.change())
        await server.change(B)
        resync.refs = [A, B]
        await asyncio.sleep(10)
        assert not resync.complete()
        assert resync.woken == []
        await asyncio.sleep(30)
        assert resync.woken == [B]
        assert resync.behind == 0
        await asyncio.sleep(100)
        assert resync.behind > 90
        show(store, resync, B, await server.shows(B))
        assert resync.complete()
        assert resync.behind == 0

    look(scenario)


def test_a_version_that_the_watch_does_not_show_is_found_and_read() -> None:
    async def scenario(server: Server, store: WatchedStore, resync: Look) -> None:
        show(store, resync, A, await server.change())
        resync.refs = [A]
        await asyncio.sleep(10)
        assert resync.complete()
        await server.change(concurrency=9)
        await asyncio.sleep(95)
        assert resync.woken == [A]
        assert (await read(store)).spec["concurrency"] == 9

    look(scenario)


def test_an_object_that_went_without_a_word_is_noticed() -> None:
    async def scenario(server: Server, store: WatchedStore, resync: Look) -> None:
        show(store, resync, A, await server.change())
        await asyncio.sleep(10)
        server.delete(A)
        await asyncio.sleep(60)
        assert resync.woken == [A]
        assert await store.read(A) is None
        await asyncio.sleep(300)
        assert resync.woken == [A]

    look(scenario)


def test_what_the_watch_shows_in_time_wakes_nothing_and_saves_the_reads() -> None:
    async def scenario(server: Server, store: WatchedStore, resync: Look) -> None:
        show(store, resync, A, await server.change())
        resync.refs = [A]
        for _ in range(10):
            await asyncio.sleep(60)
            show(store, resync, A, await server.change(concurrency=int(now()) % 100))
            await read(store)
        assert resync.woken == []
        assert resync.behind == 0
        await asyncio.sleep(3600)
        await read(store)
        assert server.reads == 0

    look(scenario)


def test_an_api_server_that_is_down_says_nothing_about_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(server: Server, store: WatchedStore, resync: Look) -> None:
        await server.change()
        resync.refs = [A]
        await asyncio.sleep(10)
        resync.fails = True
        await asyncio.sleep(3600)
        assert resync.behind == 0
        assert resync.silent() <= 60
        assert caplog.text.count("no answer from the API server") == 1
        resync.fails = False
        await asyncio.sleep(70)
        assert not resync.complete()
        assert resync.behind < 90

    look(scenario)


def test_a_process_that_was_stopped_trusts_nothing_that_it_saw_before() -> None:
    async def scenario(server: Server, store: WatchedStore) -> None:
        store.seen(await server.change())
        freeze(3600)
        await read(store)
        assert server.reads == 1

    run(scenario)
