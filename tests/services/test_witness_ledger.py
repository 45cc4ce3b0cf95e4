"""The witness of the ledger that `scannerjob run` keeps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from scannerjob.ports import ConflictError, Ref, Snapshot
from scannerjob.stores.sql import SqlStore
from tests.harness.witnesses.ledger import LedgerWitness
from tests.support.servers import PostgresServer

ITEMS = Ref("default", "items")


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def state(request: pytest.FixtureRequest) -> str:
    """A state's URL."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def witness(state: str) -> Iterator[LedgerWitness]:
    with LedgerWitness(state) as witness:
        yield witness


def document(name: str = "items", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"concurrency": 3, **spec}}


def with_store(state: str, act: Callable[[SqlStore], Awaitable[None]]) -> None:
    async def scenario() -> None:
        store = SqlStore(state)
        await act(store)
        await store.close()

    asyncio.run(scenario())


async def read(store: SqlStore, ref: Ref = ITEMS) -> Snapshot:
    found = await store.read(ref)
    assert found is not None
    return found


def execute(state: str, statement: str) -> None:
    engine = create_engine(state)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_every_version_is_noted_in_order(state: str, witness: LedgerWitness) -> None:
    before = time.time()
    written: list[Snapshot] = []

    async def act(store: SqlStore) -> None:
        await store.apply(document())
        written.append(await read(store))
        written.append(await store.mark(written[-1]))
        for active in range(30):
            written.append(await store.write(written[-1], {"active": active}))
        await store.apply(document(suspend=True))
        written.append(await read(store))

    with_store(state, act)
    witness.wait_caught_up()
    seen = witness.versions()
    assert [(each.uid, each.version) for each in seen] == [
        (each.uid, each.version) for each in written
    ]
    assert [each.status for each in seen] == [each.status for each in written]
    assert [each.cap for each in seen] == [3] * 32 + [0]
    assert not any(each.deleted for each in seen)
    times = [before, *(each.time for each in seen), time.time()]
    assert times == sorted(times)


def test_a_swap_that_is_lost_is_no_version(state: str, witness: LedgerWitness) -> None:
    async def act(store: SqlStore) -> None:
        await store.apply(document())
        first = await read(store)
        await store.write(first, {"active": 1})
        with pytest.raises(ConflictError):
            await store.write(first, {"active": 2})

    with_store(state, act)
    witness.wait_caught_up()
    assert [each.status for each in witness.versions()] == [{}, {"active": 1}]


def test_a_ledger_that_is_removed_is_deleted_and_its_successor_another(
    state: str, witness: LedgerWitness
) -> None:
    async def act(store: SqlStore) -> None:
        await store.apply(document())
        execute(state, "DELETE FROM scannerjob_ledger")
        await store.apply(document())

    with_store(state, act)
    witness.wait_caught_up()
    first, gone, second = witness.versions()
    assert [first.deleted, gone.deleted, second.deleted] == [False, True, False]
    assert first.uid == gone.uid != second.uid


def test_what_was_there_before_is_the_first_version(state: str) -> None:
    async def act(store: SqlStore) -> None:
        await store.apply(document())
        await store.write(await read(store), {"active": 1})

    with_store(state, act)
    with LedgerWitness(state) as witness:
        witness.wait_caught_up()
    assert [(each.version, each.status) for each in witness.versions()] == [("2", {"active": 1})]


def test_several_writers_at_once_lose_no_version(state: str, witness: LedgerWitness) -> None:
    async def write_often(store: SqlStore, name: str) -> None:
        ref = await store.apply(document(name))
        snapshot = await read(store, ref)
        for active in range(20):
            snapshot = await store.write(snapshot, {"active": active})

    async def act(store: SqlStore) -> None:
        await asyncio.gather(*(write_often(store, f"items-{number}") for number in range(5)))

    with_store(state, act)
    witness.wait_caught_up()
    seen: dict[str, list[str]] = {}
    for each in witness.versions():
        seen.setdefault(each.uid, []).append(each.version)
    assert list(seen.values()) == [[str(version) for version in range(1, 22)]] * 5


def test_a_database_that_is_killed_hides_no_version(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    async def act(store: SqlStore) -> None:
        await store.apply(document())
        await store.write(await read(store), {"active": 1})

    with LedgerWitness(postgres_url) as witness:
        before = time.time()
        with_store(postgres_url, act)
        postgres_server.kill()
        killed = time.time()
        postgres_server.start()
        witness.wait_caught_up()
    assert [each.version for each in witness.versions()] == ["1", "2"]
    assert all(before <= each.time <= killed + 5 for each in witness.versions())
