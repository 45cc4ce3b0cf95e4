# redis-py is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, text

from scannerjob.worker.records import RETENTION, Record, State, Store
from scannerjob.worker.redis_store import ENDED_CHANNEL, TASKS_KEY, RedisStore, record_key
from scannerjob.worker.sql_engine import open_engine
from scannerjob.worker.sql_store import SqlStore
from scannerjob.worker.stores import open_store
from tests.conformance.guard_store import (
    LEASE,
    GuardStoreSuite,
    World,
    execution,
    known,
)
from tests.support.memory_guard import MemoryGuard

PROCESSES = 6
USES = 50
# Of everything, so that what passes is not the load of the machine.
TIMEOUT = 60.0
_UNTIL = "SELECT until FROM scannerjob_launch_task"


class MemoryWorld(World):
    def __init__(self) -> None:
        self._now = 1000.0
        self._store = MemoryGuard(lambda: self._now)

    def store(self) -> MemoryGuard:
        return self._store

    def lapse(self, launch: str) -> None:
        until = self._store.records[launch].until
        assert until is not None
        self._now = max(self._now, until)

    def silence(self) -> None:
        self._now = max(self._store.announced.values())

    def forget_all(self) -> None:
        self._store.forget_all()

    def ended(self) -> list[str]:
        return self._store.ended


class RedisWorld(World):
    def __init__(self, url: str) -> None:
        self.url = url
        self.client = Redis.from_url(url, decode_responses=True)
        self._listener = self.client.pubsub(ignore_subscribe_messages=True)
        self._listener.subscribe(ENDED_CHANNEL)
        # The answer to the subscription: nothing that is published from now on is missed.
        self._listener.get_message(timeout=TIMEOUT)
        self._stores: list[Store] = []

    def store(self) -> Store:
        self._stores.append(open_store(self.url))
        return self._stores[-1]

    def lapse(self, launch: str) -> None:
        # Set, so that it need not be waited for.
        self.client.hset(record_key(launch), "until", 1)

    def silence(self) -> None:
        for name in self.client.zrange(TASKS_KEY, 0, -1):
            self.client.zadd(TASKS_KEY, {str(name): 1})

    def forget_all(self) -> None:
        self.client.flushall()

    def ended(self) -> list[str]:
        # Its own word comes after all that was published before.
        self.client.publish(ENDED_CHANNEL, "")
        told: list[str] = []
        while True:
            message = self._listener.get_message(timeout=TIMEOUT)
            assert message is not None
            if not message["data"]:
                return told
            told.append(message["data"])

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self._listener.close()
        self.client.close()


class SqlWorld(World):
    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = create_engine(url, isolation_level="AUTOCOMMIT")
        self._stores: list[SqlStore] = []

    def store(self) -> SqlStore:
        engine = open_engine(self.url, timeout=TIMEOUT)
        self._stores.append(SqlStore(engine, timeout=TIMEOUT))
        return self._stores[-1]

    def lapse(self, launch: str) -> None:
        self.run("UPDATE scannerjob_launch SET until = 1 WHERE id = :id", id=launch)

    def silence(self) -> None:
        self.run("UPDATE scannerjob_launch_task SET until = 1")

    def forget_all(self) -> None:
        self.run("DELETE FROM scannerjob_launch")
        self.run("DELETE FROM scannerjob_launch_task")

    def ended(self) -> list[str]:
        return [launch for launch, _ in self.store().ended_since(0)]

    def run(self, statement: str, **values: object) -> None:
        with self.engine.connect() as connection:
            connection.execute(text(statement), values)

    def announced_until(self) -> int:
        """When the only announcement is over."""
        with self.engine.connect() as connection:
            return int(connection.execute(text(_UNTIL)).scalar_one())

    def close(self) -> None:
        for store in self._stores:
            store.close()
        self.engine.dispose()


class TestMemory(GuardStoreSuite):
    @pytest.fixture
    def world(self) -> World:
        return MemoryWorld()


class ServerSuite(GuardStoreSuite):
    def test_a_child_does_not_use_its_parents_connections(self, world: World) -> None:
        store = world.store()
        assert store.claim(execution("first"), LEASE)
        child = multiprocessing.get_context("fork").Process(target=_use_in_child, args=(store,))
        child.start()
        # Over one connection each would read answers to the other.
        _use(store, "parent")
        child.join(60)
        assert child.exitcode == 0
        _use(store, "parent, later")


class TestRedis(ServerSuite):
    @pytest.fixture
    def world(self, redis_url: str) -> Iterator[RedisWorld]:
        world = RedisWorld(redis_url)
        yield world
        world.close()

    def test_what_the_publisher_wrote_is_a_launch_that_waits(self, world: RedisWorld) -> None:
        world.client.hset(record_key("a"), mapping={"state": "queued", "sends": 3})
        assert known(world.store(), "a") == Record(State.QUEUED)
        assert world.store().claim(execution("a"), LEASE)
        assert world.client.hget(record_key("a"), "sends") == "3"

    def test_records_are_kept_after_their_last_change_and_their_last_reading(
        self, world: RedisWorld
    ) -> None:
        store, ours = world.store(), execution("a")
        for use in (
            lambda: store.register(["a"]),
            lambda: store.claim(ours, LEASE),
            lambda: store.renew([ours], LEASE),
            lambda: store.read(["a"]),
            lambda: store.finish(ours, State.RETRYING),
            lambda: store.supersede(["a"]),
        ):
            use()
            ttl = world.client.ttl(record_key("a"))
            assert RETENTION - 60 < ttl <= RETENTION
            world.client.expire(record_key("a"), 100)

    def test_nothing_is_left_of_announcements_that_are_over(self, world: RedisWorld) -> None:
        store = world.store()
        store.announce(["old"], LEASE)
        assert 0 < world.client.ttl(TASKS_KEY) <= LEASE
        world.silence()
        store.announce(["new"], LEASE)
        assert world.client.zrange(TASKS_KEY, 0, -1) == ["new"]

    def test_a_client_that_decodes_its_answers_will_do(self, world: RedisWorld) -> None:
        store = RedisStore(world.client)
        assert store.claim(execution("a"), LEASE)
        assert known(store, "a") == known(world.store(), "a")

    def test_scripts_that_the_server_has_dropped_are_sent_again(self, world: RedisWorld) -> None:
        store = world.store()
        assert store.claim(execution("a"), LEASE)
        world.client.script_flush()
        assert store.claim(execution("a"), LEASE)


class SqlSuite(ServerSuite):
    def test_processes_that_create_the_tables_at_once_do_not_disturb_each_other(
        self, world: SqlWorld
    ) -> None:
        spawn = multiprocessing.get_context("spawn")
        barrier, won = spawn.Barrier(PROCESSES), spawn.Queue()
        processes = [
            spawn.Process(target=_claim_first, args=(world.url, n, barrier, won))
            for n in range(PROCESSES)
        ]
        for process in processes:
            process.start()
        answers = [won.get(timeout=90) for _ in processes]
        for process in processes:
            process.join(30)
        assert sorted(answers) == [False] * (PROCESSES - 1) + [True]

    def test_ends_are_listed_from_a_moment_on(self, world: SqlWorld) -> None:
        store = world.store()
        for launch in ("first", "second"):
            store.finish(execution(launch), State.DONE)
        world.run("UPDATE scannerjob_launch SET ended = 5 WHERE id = 'first'")
        world.run("UPDATE scannerjob_launch SET ended = 7 WHERE id = 'second'")
        assert store.ended_since(5) == [("first", 5), ("second", 7)]
        assert store.ended_since(6) == [("second", 7)]
        assert store.ended_since(8) == []

    def test_one_that_was_superseded_has_ended_and_one_that_runs_again_has_not(
        self, world: SqlWorld
    ) -> None:
        store = world.store()
        store.supersede(["given up"])
        store.finish(execution("again", 0, "first"), State.RETRYING)
        store.claim(execution("again", 1, "second"), LEASE)
        assert world.ended() == ["given up"]

    def test_old_rows_are_removed_now_and_then(
        self, world: SqlWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scannerjob.worker.sql_store._PRUNE_EVERY", 0.0)
        store = world.store()
        store.register(["old", "new"])
        world.run("UPDATE scannerjob_launch SET kept = 1 WHERE id = 'old'")
        store.read([])
        assert store.read(["old", "new"]).records.keys() == {"new"}

    def test_announcements_that_are_over_are_removed(self, world: SqlWorld) -> None:
        store = world.store()
        store.announce(["old"], LEASE)
        world.silence()
        store.announce(["new"], LEASE)
        assert world.announced_until() > 1

    def test_many_workers_that_announce_the_same_write_it_once(self, world: SqlWorld) -> None:
        world.other.announce(["task"], LEASE)
        world.run("UPDATE scannerjob_launch_task SET until = until - 5000")
        before = world.announced_until()
        world.store().announce(["task"], LEASE)
        assert world.announced_until() == before
        world.run("UPDATE scannerjob_launch_task SET until = until - 40000")
        world.store().announce(["task"], LEASE)
        assert world.announced_until() > before

    def test_a_row_that_is_read_is_kept(
        self, world: SqlWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("scannerjob.worker.sql_store._PRUNE_EVERY", 0.0)
        store = world.store()
        store.register(["old"])
        world.run("UPDATE scannerjob_launch SET kept = 1 WHERE id = 'old'")
        for _ in range(3):
            assert store.read(["old"]).records.keys() == {"old"}

    def test_tables_that_were_dropped_are_made_again_under_another_identity(
        self, world: SqlWorld
    ) -> None:
        store = world.store()
        identity = store.read([]).identity
        world.run("DROP TABLE scannerjob_launch")
        world.run("DROP TABLE scannerjob_launch_store")
        with pytest.raises(Exception, match="scannerjob_launch"):
            store.read([])
        assert store.read([]).identity != identity
        assert store.claim(execution("a"), LEASE)

    def test_its_clock_is_the_machines(self, world: SqlWorld) -> None:
        assert abs(world.store().read([]).now - time.time()) < TIMEOUT


def _claim_first(url: str, number: int, barrier: Barrier, won: Queue[bool]) -> None:
    store = SqlStore(open_engine(url, timeout=TIMEOUT), timeout=TIMEOUT)
    barrier.wait(60)
    won.put(store.claim(execution("a", owner=str(number)), LEASE))


def _use_in_child(store: Store) -> None:
    _use(store, "child")
    os._exit(0)


def _use(store: Store, name: str) -> None:
    for number in range(USES):
        ours = execution(f"{name} {number}", owner=name)
        assert store.claim(ours, LEASE)
        assert store.read([ours.id]).records[ours.id].owner == name
        assert store.finish(ours, State.DONE)


class TestPostgres(SqlSuite):
    @pytest.fixture
    def world(self, postgres_url: str) -> Iterator[SqlWorld]:
        world = SqlWorld(postgres_url)
        yield world
        world.close()


class TestMariaDB(SqlSuite):
    @pytest.fixture
    def world(self, mariadb_url: str) -> Iterator[SqlWorld]:
        world = SqlWorld(mariadb_url)
        yield world
        world.close()


class TestSqlite(SqlSuite):
    @pytest.fixture
    def world(self, tmp_path: Path) -> Iterator[SqlWorld]:
        world = SqlWorld(f"sqlite:///{tmp_path / 'guard.db'}")
        yield world
        world.close()
