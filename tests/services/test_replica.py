"""A database that lags behind the one that is written to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from tests.support.replica import PostgresReplica
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually


@pytest.fixture
def replica(postgres_server: PostgresServer) -> Iterator[PostgresReplica]:
    with PostgresReplica(postgres_server) as replica:
        yield replica


def run(url: str, statement: str) -> object:
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def count(url: str) -> object:
    return run(url, "SELECT count(*) FROM pdf")


def test_a_replica_shows_later_what_was_committed(
    postgres_server: PostgresServer, replica: PostgresReplica
) -> None:
    primary = postgres_server.create_database()
    follower = primary.replace(str(postgres_server.port), str(replica.port))
    run(primary, "CREATE TABLE pdf (id INTEGER)")
    run(primary, "INSERT INTO pdf VALUES (1)")
    replica.wait_caught_up()
    assert count(follower) == 1
    with pytest.raises(SQLAlchemyError, match="read-only"):
        run(follower, "INSERT INTO pdf VALUES (2)")

    replica.pause_replay()
    run(primary, "INSERT INTO pdf VALUES (2)")
    assert (count(primary), count(follower)) == (2, 1)
    replica.resume_replay()
    eventually(lambda: count(follower) == 2)
