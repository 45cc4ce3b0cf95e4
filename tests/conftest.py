"""Servers for all tests, started once by the first test that asks for them.

A test may stop, kill or freeze the one it was given: the next test gets it answering again. A
server that is missing on this machine is an error, never a skip.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.impostors import Impostors
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def _postgres() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def _mariadb() -> Iterator[MariaDBServer]:
    with MariaDBServer() as server:
        yield server


@pytest.fixture(scope="session")
def _rabbit() -> Iterator[RabbitServer]:
    with RabbitServer() as server:
        yield server


@pytest.fixture(scope="session")
def _control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def redis_server(_redis: RedisServer) -> RedisServer:
    """The session's Redis, answering."""
    return _redis.ensure_answering()


@pytest.fixture
def postgres_server(_postgres: PostgresServer) -> PostgresServer:
    """The session's PostgreSQL, answering."""
    return _postgres.ensure_answering()


@pytest.fixture
def mariadb_server(_mariadb: MariaDBServer) -> MariaDBServer:
    """The session's MariaDB, answering."""
    return _mariadb.ensure_answering()


@pytest.fixture
def rabbit_server(_rabbit: RabbitServer) -> RabbitServer:
    """The session's RabbitMQ, answering."""
    return _rabbit.ensure_answering()


@pytest.fixture
def control_plane(_control_plane: ControlPlane) -> ControlPlane:
    """The session's Kubernetes control plane, answering."""
    return _control_plane.ensure_answering()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty Redis database."""
    redis_server.flush()
    return redis_server.url


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """A new PostgreSQL database, for its owner, who is no superuser."""
    return postgres_server.create_database()


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> str:
    """A new MariaDB database, for an unprivileged user."""
    return mariadb_server.create_database()


@pytest.fixture
def amqp_url(rabbit_server: RabbitServer) -> str:
    """A new virtual host of RabbitMQ."""
    return rabbit_server.create_vhost()


@pytest.fixture
def locked_redis() -> Iterator[RedisServer]:
    """A Redis that wants a password."""
    with RedisServer(requirepass=True) as redis:
        yield redis


@pytest.fixture
def impostors() -> Iterator[Impostors]:
    """Servers that are not what they seem."""
    with Impostors() as impostors:
        yield impostors


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A new SQLite database file."""
    return f"sqlite:///{tmp_path / 'test.sqlite'}"
