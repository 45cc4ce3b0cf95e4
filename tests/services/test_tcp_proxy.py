"""The proxy that cuts clients off from their servers, on real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest
import redis

from tests.support.servers import PostgresServer, RedisServer
from tests.support.tcpproxy import TcpProxy
from tests.support.waiting import eventually


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[TcpProxy]:
    redis_server.flush()
    with TcpProxy("127.0.0.1", redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy: TcpProxy) -> Iterator[redis.Redis]:
    """A client that goes by the proxy, and gives up soon."""
    url = f"redis://127.0.0.1:{proxy.port}"
    with redis.Redis.from_url(
        url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None, decode_responses=True
    ) as client:
        yield client


@pytest.fixture
def direct(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the server itself."""
    with redis_server.client() as client:
        yield client


def test_all_is_passed_on(client: redis.Redis, direct: redis.Redis) -> None:
    long = "x" * 1_000_000
    client.set("key", long)
    assert direct.get("key") == client.get("key") == long


def test_what_is_down_refuses_and_has_cut_all(proxy: TcpProxy, client: redis.Redis) -> None:
    client.ping()
    assert proxy.connections == 1
    proxy.down()
    assert proxy.connections == 0
    for _ in range(2):
        with pytest.raises(redis.ConnectionError):
            client.ping()
    proxy.up()
    client.ping()


def test_in_a_black_hole_nothing_is_heard_until_later(
    proxy: TcpProxy, client: redis.Redis, direct: redis.Redis
) -> None:
    client.ping()
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        client.set("said", 1)
    with pytest.raises(redis.TimeoutError):  # by a new connection
        client.set("tried", 1)
    assert proxy.connections == 2
    assert direct.get("said") is None
    proxy.restore()
    eventually(lambda: direct.get("said") == "1", message="what was said arrives late")
    client.ping()


def test_a_slow_way_is_slow(proxy: TcpProxy, client: redis.Redis) -> None:
    client.ping()
    proxy.slow(0.1)
    began = time.monotonic()
    client.ping()
    assert time.monotonic() - began >= 0.2
    proxy.slow(1)
    with pytest.raises(redis.TimeoutError):
        client.ping()
    proxy.restore()
    client.ping()


def test_a_lost_reply_is_to_what_was_done(
    proxy: TcpProxy, client: redis.Redis, direct: redis.Redis
) -> None:
    client.ping()
    lost = proxy.lose_reply(rb"SET.*key", skip=1, times=1)
    client.set("key", 1)
    with pytest.raises(redis.ConnectionError):
        client.set("key", 2)
    assert direct.get("key") == "2"
    assert lost.hits == 1
    client.set("key", 3)
    assert client.get("key") == "3"


def test_an_answer_ends_in_its_midst(proxy: TcpProxy, postgres_server: PostgresServer) -> None:
    def ask() -> int:
        login = f"user=app dbname=app password={postgres_server.password}"
        with psycopg.connect(f"host=127.0.0.1 port={proxy.port} {login}") as connection:
            rows = "SELECT repeat('x', 100) FROM generate_series(1, 5000)"
            return len(connection.execute(rows).fetchall())

    proxy.switch("127.0.0.1", postgres_server.port)
    assert ask() == 5000
    cut = proxy.cut(b"generate_series", after=100_000, times=1)
    with pytest.raises(psycopg.OperationalError):
        ask()
    assert cut.hits == 1
    assert ask() == 5000


def test_whoever_was_connected_is_led_to_another_server(
    proxy: TcpProxy, client: redis.Redis
) -> None:
    client.set("key", 1)
    with RedisServer() as other:
        proxy.switch("127.0.0.1", other.port)
        assert proxy.connections == 0
        assert client.get("key") is None
    with pytest.raises(redis.ConnectionError):  # it has ended
        client.get("key")


def test_whoever_hung_is_cut_off_by_a_failover(
    proxy: TcpProxy, client: redis.Redis, direct: redis.Redis, redis_server: RedisServer
) -> None:
    client.ping()
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        client.set("said", 1)
    proxy.switch("127.0.0.1", redis_server.port)
    proxy.restore()
    client.ping()
    assert direct.get("said") is None


def test_no_connection_is_left(proxy: TcpProxy, client: redis.Redis) -> None:
    client.ping()
    client.close()
    eventually(lambda: proxy.connections == 0)
