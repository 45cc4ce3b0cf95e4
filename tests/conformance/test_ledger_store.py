from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, text

from scannerjob.ports import ConfigurationError, ConflictError, PortError, Ref, UnknownOutcomeError
from scannerjob.stores.database import filesystem_of
from scannerjob.stores.memory import MemoryStore
from scannerjob.stores.sql import SqlStore
from tests.conformance.ledger_store import (
    LedgerStoreSuite,
    PausableWorld,
    UnansweredReadSuite,
    UnansweredSuite,
    World,
    document,
    read,
    scenario,
    status,
)
from tests.support.servers import MariaDBServer, PostgresServer

INCREMENTS = 40


class MemoryWorld(World):
    def __init__(self) -> None:
        self._store = MemoryStore()

    async def store(self, deadline: float = 10) -> MemoryStore:
        return self._store

    async def apply(self, document: Mapping[str, Any]) -> None:
        await self._store.apply(document)

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        await self._store.request(ref, name, nonce)

    async def delete(self, ref: Ref) -> None:
        self._store.delete(ref)

    async def wipe(self, ref: Ref) -> None:
        self._store.wipe(ref)

    async def close(self) -> None:
        pass


class SqlWorld(PausableWorld):
    def __init__(self, url: str) -> None:
        self.url = url
        self._stores: list[SqlStore] = []

    async def store(self, deadline: float = 10) -> SqlStore:
        self._stores.append(SqlStore(self.url, deadline))
        return self._stores[-1]

    async def apply(self, document: Mapping[str, Any]) -> None:
        await (await self.store()).apply(document)

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        await (await self.store()).request(ref, name, nonce)

    async def delete(self, ref: Ref) -> None:
        await self.wipe(ref)
        self.execute(f"DELETE FROM scannerjob_mark WHERE name = '{ref.name}'")

    async def wipe(self, ref: Ref) -> None:
        self.execute(f"DELETE FROM scannerjob_ledger WHERE name = '{ref.name}'")

    def execute(self, statement: str) -> None:
        engine = create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(text(statement))
        engine.dispose()

    async def close(self) -> None:
        for store in self._stores:
            await store.close()

    def paused(self) -> AbstractContextManager[None]:
        raise NotImplementedError


class SqliteWorld(SqlWorld):
    def __init__(self, file: Path) -> None:
        super().__init__(f"sqlite:///{file}")
        self.file = file

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Another process's write that does not end."""
        with closing(sqlite3.connect(self.file)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield


class ServerWorld(SqlWorld):
    def __init__(self, url: str, server: PostgresServer | MariaDBServer) -> None:
        super().__init__(url)
        self.server = server

    @contextmanager
    def paused(self) -> Iterator[None]:
        self.server.pause()
        try:
            yield
        finally:
            self.server.resume()


def _increment(url: str) -> None:
    """Count to INCREMENTS, as a process of its own; every number that was lost is tried again."""
    asyncio.run(_count(SqlStore(url, timeout=30)))


async def _count(store: SqlStore) -> None:
    ref, won = await store.apply(document()), 0
    while won < INCREMENTS:
        snapshot = await read(store, ref)
        try:
            await store.write(snapshot, status(snapshot.status.get("launched", 0) + 1))
            won += 1
        except ConflictError:
            continue


class SqlStoreSuite(LedgerStoreSuite):
    """What is promised of the tables in particular."""

    @scenario
    async def test_no_increment_of_two_processes_is_lost(self, world: SqlWorld) -> None:
        # Neither has the tables yet: they are created by both at once, too.
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=_increment, args=(world.url,)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            await asyncio.to_thread(process.join)
        assert [process.exitcode for process in processes] == [0, 0]
        assert (await read(await world.store(), self.REF)).status == status(2 * INCREMENTS)

    @scenario
    async def test_a_spec_that_differs_only_in_case_is_another(self, world: SqlWorld) -> None:
        await world.apply(document(query="SELECT 'a'"))
        await world.apply(document(query="SELECT 'A'"))
        changed = await read(await world.store(), self.REF)
        assert changed.spec["query"] == "SELECT 'A'"
        assert changed.generation == 2

    @scenario
    async def test_a_row_deleted_under_a_process_is_begun_anew_and_known_as_lost(
        self, world: SqlWorld
    ) -> None:
        store = await world.store()
        await store.apply(document())
        first = await read(store, self.REF)
        marked = await store.mark(await store.write(first, status(launched=1)))
        await world.wipe(self.REF)
        anew = await read(store, self.REF)
        assert anew.uid != first.uid
        assert anew.spec == first.spec
        assert anew.status == {}
        assert anew.marked
        with pytest.raises(ConflictError):
            await store.write(marked, status(launched=2))


class TestMemoryStore(LedgerStoreSuite):
    @pytest.fixture
    def world(self) -> World:
        return MemoryWorld()


class SqlServerSuite(SqlStoreSuite, UnansweredReadSuite):
    @scenario
    async def test_connections_that_a_restart_broke_are_replaced(self, world: ServerWorld) -> None:
        store, snapshot = await self.applied(world)
        world.server.restart()
        written = await store.write(snapshot, status(launched=1))
        assert await read(store, self.REF) == written


class TestSqliteStore(SqlStoreSuite, UnansweredSuite):
    @pytest.fixture
    def world(self, tmp_path: Path) -> SqliteWorld:
        return SqliteWorld(tmp_path / "state.db")

    def test_a_file_that_was_removed_is_not_written_any_more(self, world: SqliteWorld) -> None:
        store, snapshot = asyncio.run(self.applied(world))
        world.file.unlink()
        with pytest.raises(ConfigurationError, match="removed or replaced") as error:
            asyncio.run(store.write(snapshot, status(launched=1)))
        assert error.value.reason == "LedgerLost"
        assert not world.file.exists()

    def test_a_full_disk_loses_a_write_and_nothing_else(self, world: SqliteWorld) -> None:
        _, snapshot = asyncio.run(self.applied(world))
        longer = status(items=1000)
        with _no_room_for_more():
            full = asyncio.run(world.store())
            with pytest.raises(PortError, match="full"):
                asyncio.run(full.write(snapshot, longer))
            found = asyncio.run(read(full, self.REF))
            assert found == snapshot
        roomy = asyncio.run(world.store())
        assert asyncio.run(roomy.write(snapshot, longer)).status == longer


@contextmanager
def _no_room_for_more() -> Iterator[None]:
    """SQLite's files do not grow, as on a disk without space."""

    def limit(connection: Any, _: Any) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")

    event.listen(Engine, "connect", limit)
    try:
        yield
    finally:
        event.remove(Engine, "connect", limit)


class TestPostgresStore(SqlServerSuite):
    @pytest.fixture
    def world(self, postgres_url: str, postgres_server: PostgresServer) -> ServerWorld:
        return ServerWorld(postgres_url, postgres_server)


class TestMariaDBStore(SqlServerSuite):
    @pytest.fixture
    def world(self, mariadb_url: str, mariadb_server: MariaDBServer) -> ServerWorld:
        return ServerWorld(mariadb_url, mariadb_server)


MOUNTS = r"""
/dev/vda / ext4 rw 0 0
nas:/home /home nfs4 rw 0 0
/dev/vdb /home/local ext4 rw 0 0
//nas/data /mnt/my\040data cifs rw 0 0
tmpfs /mnt/twice tmpfs rw 0 0
nas:/twice /mnt/twice nfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/state.db", "ext4"),
        ("/home/me/state.db", "nfs4"),
        ("/home/local/state.db", "ext4"),
        ("/homely/state.db", "ext4"),
        ("/mnt/my data/state.db", "cifs"),
        ("/mnt/twice/state.db", "nfs"),
    ],
)
def test_the_filesystem_of_a_file_is_that_of_the_longest_mount(
    tmp_path: Path, path: str, kind: str
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS.lstrip())
    assert filesystem_of(Path(path), mounts) == kind


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hunter2", "cannot be read"),
        ("sqlite://", "names no database"),
        ("oracle://scott:hunter2@db/x", "must begin with"),
        ("postgresql+asyncpg://scott:hunter2@db/x", "must begin with"),
        ("sqlite:////nowhere/state.db", "directory does not exist"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_and_not_shown(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as error:
        SqlStore(url)
    assert "hunter2" not in str(error.value)
    assert "scott" not in str(error.value)


def test_a_server_that_refuses_is_named_without_user_and_password() -> None:
    store = SqlStore("postgresql://scott:hunter2@127.0.0.1:1/ledgers", timeout=5)
    with pytest.raises(UnknownOutcomeError, match=r"127\.0\.0\.1:1/ledgers") as error:
        asyncio.run(store.read(Ref("default", "x")))
    assert "hunter2" not in str(error.value)
    assert "scott" not in str(error.value)


def test_a_wrong_password_is_said_without_showing_it(
    postgres_server: PostgresServer, mariadb_server: MariaDBServer
) -> None:
    for scheme, port in (("postgresql", postgres_server.port), ("mysql", mariadb_server.port)):
        store = SqlStore(f"{scheme}://scott:hunter2@127.0.0.1:{port}/ledgers", timeout=5)
        with pytest.raises(PortError) as error:
            asyncio.run(store.read(Ref("default", "x")))
        assert "hunter2" not in str(error.value)
        assert "scott" not in str(error.value)
