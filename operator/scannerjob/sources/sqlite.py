"""Reading from a SQLite file, without ever writing to it or making one."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine

from scannerjob.model.plan import INDEXED, PlanFinding
from scannerjob.sources import dialects
from scannerjob.sources.dialects import Dialect, Plan
from scannerjob.sources.parse import Statement
from scannerjob.sources.plans import (
    BY_CONDITION,
    BY_ORDER,
    all_sorted,
    has_many_rows,
    read_whole,
    table_named,
    tables_of,
)
from scannerjob.sources.records import Result

# How often a running query looks at the clock, in steps of SQLite's virtual machine.
_STEPS = 10_000
_SORTS = "USE TEMP B-TREE FOR ORDER BY"
_REMEDY = f"{BY_CONDITION}; best a partial one, with the query's own condition as its WHERE"
# An automatic index is made from the whole table, for each look.
_READS_WHOLE = re.compile(
    r"(?:SCAN|SEARCH(?=.* USING AUTOMATIC )) (?!(?:\d+ )?CONSTANT ROW)(?:TABLE )?"
    r"(?P<table>[^\s(]+)(?: AS (?P<alias>\S+))?(?: USING (?:COVERING )?INDEX (?P<index>\S+))?"
)
# Reading what the plan made itself is no reading of a table.
_MAKES = re.compile(r"(?:MATERIALIZE|CO-ROUTINE) (?P<name>\S+)")


class SQLite(Dialect):
    """The standard library's driver. A plain cursor computes each row when it is asked for."""

    grammar = "sqlite"
    placeholder = "?"
    streams = False

    def engine(self, url: URL, tls: Mapping[str, Any]) -> Engine:
        """An engine whose connections cannot write; a file needs no TLS."""
        del tls
        path = Path(str(url.database)).absolute()
        return create_engine(
            "sqlite://",
            creator=lambda: _connect(path),
            isolation_level="AUTOCOMMIT",
            poolclass=QueuePool,
            pool_size=dialects.KEPT_OPEN,
            max_overflow=dialects.POOL_SIZE - dialects.KEPT_OPEN,
            pool_recycle=dialects.RECYCLE_SECONDS,
            pool_reset_on_return=None,
            hide_parameters=True,
        )

    def begin(self, connection: Connection, seconds: float, limit: int) -> None:
        """Have the query look at the clock, and wait no longer than that for a writer."""
        raw: Any = connection.connection.dbapi_connection
        deadline = time.monotonic() + seconds
        raw.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(seconds * 1000)}")

    def plan(self, connection: Connection, statement: Statement, *, in_cluster: bool) -> Plan:
        """The statement as it is."""
        return Plan()

    def finding(
        self, connection: Connection, statement: Statement, *, complete: bool
    ) -> PlanFinding | None:
        """By EXPLAIN QUERY PLAN, which knows no numbers: of small tables nothing is said."""
        steps = _explain(connection, statement)
        sorts = _SORTS in steps
        if table := _large_table_read(connection, statement, steps):
            return read_whole(table, _REMEDY) if complete or sorts else None
        if sorts and not complete and has_many_rows(connection, f"({statement.body}\n)"):
            return all_sorted(tables_of(statement), BY_ORDER)
        return INDEXED

    def reason(self, error: BaseException) -> str | None:
        """By the name of the error's code."""
        match getattr(error, "sqlite_errorname", None):
            case "SQLITE_INTERRUPT":
                return "QueryTimeout"
            case "SQLITE_CANTOPEN" | "SQLITE_BUSY" | "SQLITE_LOCKED":
                return "DatabaseUnreachable"
            case None:
                return None
            case _:
                return "QueryFailed"

    def key_types(self, values: Collection[Any], type_code: Any) -> Collection[type]:
        """All: a column's values can be of any type, whatever those are that were read."""
        return (int, str, bytes)

    def look_up(
        self,
        connection: Connection,
        statement: Statement,
        condition: str,
        binds: Sequence[Any],
        limit: int,
    ) -> Result:
        """As elsewhere; a text of digits may also stand for a number, but for no larger one."""
        fitting = [None if _is_too_large(value) else value for value in binds]
        return super().look_up(connection, statement, condition, fitting, limit)

    def escaped(self, text: str) -> str:
        """As it is: SQLite itself tells placeholders from text."""
        return text


def _explain(connection: Connection, statement: Statement) -> list[str]:
    rows = connection.exec_driver_sql(
        f"EXPLAIN QUERY PLAN {statement.text}", execution_options={"no_parameters": True}
    )
    return [str(row[-1]) for row in rows]


def _large_table_read(
    connection: Connection, statement: Statement, steps: Sequence[str]
) -> str | None:
    """A table that is read to its end for those that match, and is not small.

    A name that is not the query's own is a view's, which may have a condition too.
    """
    made = {found["name"] for found in map(_MAKES.match, steps) if found}
    for name, index in _tables_read(steps):
        filtered = statement.filtered or name not in statement.tables
        if name in made or not filtered or (index and _is_partial(connection, index)):
            continue
        table = table_named(connection, statement, name)
        if has_many_rows(connection, table):
            return table
    return None


def _tables_read(steps: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for found in filter(None, map(_READS_WHOLE.match, steps)):
        yield found["alias"] or found["table"], found["index"]


def _is_partial(connection: Connection, index: str) -> bool:
    """Whether the index holds only the rows that match."""
    text = (
        "SELECT l.partial FROM sqlite_master m, pragma_index_list(m.tbl_name) l "
        "WHERE m.type = 'index' AND m.name = ? AND l.name = m.name"
    )
    return bool(connection.exec_driver_sql(text, (index,)).scalar())


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise sqlite3.OperationalError("there is no such file")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.text_factory = _text
    # The mode is the main database's: what is attached can be written to, and is made if missing.
    connection.set_authorizer(_deny_attach)
    return connection


def _deny_attach(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_ATTACH else sqlite3.SQLITE_OK


def _is_too_large(value: Any) -> bool:
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _text(raw: bytes) -> str:
    """What is not UTF-8 becomes a text that has no JSON form: its row is held back, alone."""
    return raw.decode(errors="surrogateescape")
