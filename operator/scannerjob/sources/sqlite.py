"""Reading from a SQLite file, without ever writing to it or making one."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine

from scannerjob.sources import dialects
from scannerjob.sources.dialects import Dialect, Plan
from scannerjob.sources.parse import Statement

# How often a running query looks at the clock, in steps of SQLite's virtual machine.
_STEPS = 10_000
# Lines of EXPLAIN QUERY PLAN where rows of several SELECTs come together.
_COMPOUND = re.compile("COMPOUND|MERGE|RECURSIVE|UNION|EXCEPT|INTERSECT")


class SQLite(Dialect):
    """The standard library's driver. A plain cursor computes each row when it is asked for."""

    grammar = "sqlite"
    placeholder = "?"
    streams = False

    def engine(self, url: URL) -> Engine:
        """An engine whose connections cannot write."""
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
        """Find out whether rows of several SELECTs come together, where types may be mixed."""
        text = f"EXPLAIN QUERY PLAN {statement.text}"
        steps = connection.exec_driver_sql(text, execution_options={"no_parameters": True})
        return Plan(inexact=any(_COMPOUND.search(step[3]) for step in steps))

    def quoted(self, connection: Connection, name: str, plan: Plan) -> str:
        """With a +, where the column's type may belong to the rows of another SELECT only.

        A column has the type of one of the SELECTs, and converts what it is compared with: to a
        number, say, which does not equal the text in a row of the other. The + takes the type
        away, and with it the use of an index (SQLite, "Datatypes", section 3.2).
        """
        quoted = super().quoted(connection, name, plan)
        return f"+{quoted}" if plan.inexact else quoted

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

    def escaped(self, text: str) -> str:
        """As it is: SQLite itself tells placeholders from text."""
        return text


def _connect(path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise sqlite3.OperationalError("there is no such file")
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
    connection.text_factory = _text
    return connection


def _text(raw: bytes) -> str:
    """What is not UTF-8 becomes a text that has no JSON form: its row is held back, alone."""
    return raw.decode(errors="surrogateescape")
