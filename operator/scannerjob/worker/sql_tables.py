"""The tables of a guard's store that is a database, and what is asked of it in its own words."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, String, Table, Text, inspect
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError

# The database's clock in milliseconds, whatever time zone it is set to.
CLOCKS = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    "mysql": "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
}
# Which server this is, and since when it runs where it tells that as it is.
SERVERS = {
    "postgresql": "CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) AS TEXT)",
    "mysql": "CONCAT(@@hostname, ':', @@port, ':', @@server_id)",
    "sqlite": "''",
}

# How many letters of a reason are kept.
MAX_REASON = 1000

_metadata = MetaData()


def _token(length: int) -> Any:
    """Compared byte by byte, and indexed in few bytes, whatever the database's collation."""
    exact = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(exact, "mysql", "mariadb")


launch = Table(
    "scannerjob_launch",
    _metadata,
    Column("id", _token(255), primary_key=True),
    Column("state", _token(16), nullable=False),
    Column("retries", Integer, nullable=False),
    Column("owner", _token(255), nullable=False),
    Column("until", BigInteger),
    Column("reason", Text().with_variant(mysql.TEXT(charset="utf8mb4"), "mysql", "mariadb")),
    Column("was", _token(16)),
    # When an execution of it ended, or it was superseded; null where it waits or runs.
    Column("ended", BigInteger, index=True),
    Column("kept", BigInteger, nullable=False, index=True),
)
# The tasks that workers guard. A name may be of any length and any letters: `task` is its digest.
announcement = Table(
    "scannerjob_launch_task",
    _metadata,
    Column("task", _token(64), primary_key=True),
    Column("until", BigInteger, nullable=False),
)
# One row, as old as the tables.
identity = Table(
    "scannerjob_launch_store",
    _metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    Column("identity", String(36), nullable=False),
)


def create_tables(engine: Engine) -> None:
    """Create what is not there; harmless where others do so at the same time."""
    for table in _metadata.sorted_tables:
        _create(engine, table)


def _create(engine: Engine, table: Table) -> None:
    # A crash within leaves a table without its indexes: slower, and as right.
    try:
        table.create(engine, checkfirst=True)
    except DBAPIError:
        # Another process may have created it between the look and the CREATE TABLE.
        if not inspect(engine).has_table(table.name):
            raise
