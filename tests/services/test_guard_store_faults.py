"""The guard's stores on servers that are killed, frozen, failed over, or refuse."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from scannerjob.worker import stores
from scannerjob.worker.errors import StoreError
from scannerjob.worker.records import Execution, State, Store
from scannerjob.worker.stores import open_store
from tests.support.certificates import Authority
from tests.support.servers import DatabaseServer, MariaDBServer, PostgresServer, RedisServer
from tests.support.tls_servers import TlsRedis
from tests.support.waiting import eventually

LEASE = 300.0
FIRST, SECOND = Execution("a", 0, "first"), Execution("a", 0, "second delivery")
UNREACHABLE = (redis.RedisError, OSError)


@pytest.fixture
def opened() -> Iterator[Callable[[str], Store]]:
    """Stores that are closed at the end."""
    stores: list[Store] = []

    def open_(url: str) -> Store:
        stores.append(open_store(url))
        return stores[-1]

    yield open_
    for store in stores:
        store.close()


def running(store: Store) -> Store:
    assert store.claim(FIRST, LEASE)
    return store


def runner(store: Store) -> str:
    """The owner of the execution that runs."""
    record = store.read(["a"]).records["a"]
    assert record.state is State.RUNNING
    return record.owner


class TestRedis:
    def test_after_a_kill_without_persistence_all_is_gone_and_the_identity_is_another(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer() as server:
            store = running(opened(server.url))
            identity = store.read([]).identity
            server.kill()
            with pytest.raises(UNREACHABLE):
                store.renew([FIRST], LEASE)
            server.start()
            reading = store.read(["a"])
            assert reading.records == {}
            assert reading.identity != identity
            assert store.renew([FIRST], LEASE) == set()
            assert not store.claim(SECOND, LEASE)
            assert runner(store) == "first"

    def test_after_a_kill_without_persistence_the_first_to_claim_takes_it_from_the_other(
        self, opened: Callable[[str], Store]
    ) -> None:
        # What the store lost by itself is lost: the execution that ran learns of it.
        with RedisServer() as server:
            store = running(opened(server.url))
            server.kill()
            server.start()
            assert store.claim(SECOND, LEASE)
            assert store.renew([FIRST], LEASE) == {"a"}
            assert runner(store) == "second delivery"
            assert not store.finish(FIRST, State.DONE)

    def test_after_a_kill_with_persistence_all_is_there_and_the_identity_is_another(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer(appendonly=True) as server:
            store = running(opened(server.url))
            identity = store.read([]).identity
            server.kill()
            server.start()
            reading = store.read(["a"])
            assert reading.records["a"].owner == "first"
            assert reading.identity != identity
            assert not store.claim(SECOND, LEASE)
            assert store.finish(FIRST, State.DONE)

    def test_one_that_is_frozen_is_not_waited_for_for_ever(
        self,
        opened: Callable[[str], Store],
        redis_server: RedisServer,
        redis_url: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(stores, "TIMEOUT", 0.5)
        store, stranger = running(opened(redis_url)), opened(redis_url)
        redis_server.pause()
        for call in _all_calls(store):
            with pytest.raises(redis.TimeoutError):
                call()
        with pytest.raises(redis.TimeoutError):
            stranger.claim(SECOND, LEASE)
        redis_server.resume()
        # What it was asked meanwhile, it does now.
        assert eventually(lambda: runner(store) == "first", ignoring=UNREACHABLE)

    def test_a_replica_that_takes_over_has_another_identity(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer() as master, RedisServer() as replica:
            store, other = running(opened(master.url)), opened(replica.url)
            identity = store.read([]).identity
            _follow(replica, master)
            as_replica = other.read([]).identity
            _promote(replica)
            promoted = other.read(["a"])
            assert promoted.records["a"].owner == "first"
            assert len({identity, as_replica, promoted.identity}) == 3
            assert not other.claim(SECOND, LEASE)
            assert other.finish(FIRST, State.DONE)

    def test_one_whose_data_were_replaced_has_another_identity_without_a_restart(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer() as one, RedisServer() as other:
            store = running(opened(one.url))
            identity = store.read([]).identity
            _follow(one, other)
            _promote(one)
            reading = store.read(["a"])
            assert reading.records == {}
            assert reading.identity != identity

    def test_a_master_that_has_become_a_replica_answers_nobody(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer() as old, RedisServer() as new:
            store = running(opened(old.url))
            _follow(old, new)
            before = _connections(old)
            for call in _all_calls(store):
                with pytest.raises(redis.ReadOnlyError):
                    call()
            # The name of the server may lead to another one by now: it connects anew.
            assert before
            assert not before & _connections(old)

    def test_a_user_who_may_only_use_its_keys_will_do_for_a_worker(
        self, opened: Callable[[str], Store], redis_server: RedisServer, redis_url: str
    ) -> None:
        with redis_server.client() as client:
            rules = ("~scannerjob:*", "+@all", "-@dangerous", "resetchannels")
            client.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">hunter2", *rules)
        store = running(opened(redis_url.replace("redis://", "redis://worker:hunter2@")))
        assert store.finish(FIRST, State.DONE)
        with pytest.raises(StoreError, match="INFO") as error:
            store.read(["a"])
        assert f"127.0.0.1:{redis_server.port}" in str(error.value)
        assert "hunter2" not in str(error.value)

    def test_one_that_may_forget_records_is_warned_of_once(
        self, opened: Callable[[str], Store], caplog: pytest.LogCaptureFixture
    ) -> None:
        with RedisServer(maxmemory="100mb", maxmemory_policy="volatile-lru") as server:
            store = running(opened(server.url))
            running(store)
            told = [record for record in caplog.records if record.levelno >= logging.WARNING]
            assert len(told) == 1
            assert "noeviction" in told[0].getMessage()
            assert f"127.0.0.1:{server.port}" in told[0].getMessage()

    def test_one_without_a_limit_of_memory_is_not_warned_of(
        self, opened: Callable[[str], Store], caplog: pytest.LogCaptureFixture
    ) -> None:
        with RedisServer(maxmemory_policy="allkeys-lru") as server:
            running(opened(server.url))
        assert not caplog.records

    def test_one_that_is_full_takes_records_all_the_same(
        self, opened: Callable[[str], Store]
    ) -> None:
        with RedisServer() as server, server.client() as client:
            store = running(opened(server.url))
            client.config_set("maxmemory", "1")
            with pytest.raises(redis.OutOfMemoryError):
                client.set("other", "value")
            assert store.claim(Execution("b", 0, "first"), LEASE)
            assert store.finish(FIRST, State.DONE)

    def test_a_wrong_password_is_not_shown(
        self, opened: Callable[[str], Store], locked_redis: RedisServer
    ) -> None:
        url = f"redis://:hunter2@127.0.0.1:{locked_redis.port}/0"
        with pytest.raises(redis.AuthenticationError) as error:
            opened(url).claim(FIRST, LEASE)
        assert "hunter2" not in str(error.value)

    def test_tls_is_taken_from_the_url_and_the_server_is_checked(
        self, opened: Callable[[str], Store], tmp_path: Path
    ) -> None:
        authority, stranger = Authority(), Authority("another authority")
        files = {
            "ssl_ca_certs": authority.pem,
            "ssl_certfile": (own := authority.issue("worker")).pem,
            "ssl_keyfile": own.key,
            "stranger": stranger.pem,
        }
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        own_files = "&".join(
            f"{name}={tmp_path / name}" for name in ("ssl_certfile", "ssl_keyfile")
        )
        with TlsRedis(authority) as server:
            trusted = f"{server.tls_url}?ssl_ca_certs={tmp_path / 'ssl_ca_certs'}&{own_files}"
            running(opened(f"{trusted}&ssl_cert_reqs=CERT_REQUIRED"))
            untrusted = f"{server.tls_url}?ssl_ca_certs={tmp_path / 'stranger'}&{own_files}"
            with pytest.raises(redis.ConnectionError, match="verify failed"):
                opened(untrusted).claim(FIRST, LEASE)
            server.show(authority.issue("another.host"))
            with pytest.raises(redis.ConnectionError, match="not valid for"):
                opened(trusted).claim(FIRST, LEASE)


class SqlSuite:
    def test_a_server_that_was_killed_and_is_back_is_used_again(
        self, opened: Callable[[str], Store], server: DatabaseServer
    ) -> None:
        store = running(opened(server.create_database()))
        server.kill()
        with pytest.raises((SQLAlchemyError, TimeoutError)):
            store.renew([FIRST], LEASE)
        server.start()
        assert not store.claim(SECOND, LEASE)
        assert store.renew([FIRST], LEASE) == set()
        assert store.finish(FIRST, State.DONE)

    def test_one_that_is_frozen_is_not_waited_for_for_ever(
        self,
        opened: Callable[[str], Store],
        server: DatabaseServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(stores, "TIMEOUT", 2.0)
        url = server.create_database()
        eventually(lambda: running(opened(url)), ignoring=(DBAPIError, TimeoutError))
        store = opened(url)
        eventually(lambda: store.read([]), ignoring=(DBAPIError, TimeoutError))
        server.pause()
        for call in _all_calls(store):
            with pytest.raises((DBAPIError, TimeoutError)):
                call()
        server.resume()
        assert eventually(
            lambda: runner(store) == "first", ignoring=(SQLAlchemyError, TimeoutError)
        )

    def test_a_wrong_password_is_not_shown(
        self, opened: Callable[[str], Store], server: DatabaseServer
    ) -> None:
        url = server.create_database().replace(server.password, "hunter2")
        with pytest.raises(DBAPIError) as error:
            opened(url).claim(FIRST, LEASE)
        assert "hunter2" not in str(error.value)


class TestPostgres(SqlSuite):
    @pytest.fixture
    def server(self, postgres_server: PostgresServer) -> PostgresServer:
        return postgres_server

    def test_a_restart_gives_another_identity(
        self, opened: Callable[[str], Store], server: PostgresServer
    ) -> None:
        store = opened(server.create_database())
        identity = store.read([]).identity
        server.restart()
        assert store.read([]).identity != identity


class TestMariaDB(SqlSuite):
    @pytest.fixture
    def server(self, mariadb_server: MariaDBServer) -> MariaDBServer:
        return mariadb_server


def _all_calls(store: Store) -> list[Callable[[], object]]:
    return [
        lambda: store.claim(SECOND, LEASE),
        lambda: store.renew([FIRST], LEASE),
        lambda: store.announce(["task"], LEASE),
        lambda: store.is_guarded("task"),
        lambda: store.register(["a"]),
        lambda: store.read(["a"]),
        lambda: store.supersede(["a"]),
        lambda: store.finish(SECOND, State.DONE),
    ]


def _follow(replica: RedisServer, master: RedisServer) -> None:
    """Make it a replica, and return when it has all that the master has."""
    with replica.client() as client, master.client() as written:
        client.replicaof("127.0.0.1", master.port)
        eventually(
            lambda: client.info("replication")["master_link_status"] == "up",
            timeout=60,
            message="the replica follows",
        )
        written.set("scannerjob:test", "written")
        assert written.wait(1, 30_000) == 1


def _connections(server: RedisServer) -> set[str]:
    """Those of others."""
    with server.client() as client:
        clients = {each["id"] for each in client.client_list(_type="normal")}
        return clients - {str(client.client_id())}


def _promote(replica: RedisServer) -> None:
    with replica.client() as client:
        client.replicaof("NO", "ONE")
