"""The rows of a guard's store that is a database: read and written, each change one statement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Table, Update, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql import ColumnElement

from scannerjob.worker.records import UNREADABLE, Record, State
from scannerjob.worker.sql_tables import MAX_REASON, launch

# No more of a reason than is ever written.
_REASON = func.substr(launch.c.reason, 1, MAX_REASON).label("reason")
_ROWS = select(*(_REASON if column is launch.c.reason else column for column in launch.c))


def write(
    connection: Connection, launch_id: str, allowed: ColumnElement[bool], values: Mapping[str, Any]
) -> bool:
    """Change the record where that is allowed, or write it where there is none."""
    change = update(launch).where(launch.c.id == launch_id, allowed).values(values)
    return (
        _changed(connection, change)
        or inserted(connection, launch, id=launch_id, **values)
        # Another may have been written between the two.
        or _changed(connection, change)
    )


def _changed(connection: Connection, change: Update) -> bool:
    return connection.execute(change).rowcount == 1


def inserted(connection: Connection, table: Table, **values: Any) -> bool:
    """Write this row; False if there is one already."""
    try:
        connection.execute(insert(table).values(values))
    except IntegrityError:
        return False
    return True


def insert_absent(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write these, as far as nobody else has meanwhile."""
    try:
        connection.execute(insert(table), rows)
    except IntegrityError:
        for row in rows:
            inserted(connection, table, **row)


def rows_of(connection: Connection, ids: Sequence[str]) -> Sequence[Row[Any]]:
    """The rows of these launches, as far as there are any."""
    return connection.execute(_ROWS.where(launch.c.id.in_(ids))).all()


def look(connection: Connection, ids: Sequence[str]) -> dict[str, Record]:
    """The same, as records."""
    return {row.id: record_of(row) for row in rows_of(connection, ids)}


def record_of(row: Row[Any]) -> Record:
    """The record that a row is."""
    try:
        return _parsed(row)
    except (ValueError, TypeError):
        return UNREADABLE


def _parsed(row: Row[Any]) -> Record:
    return Record(
        state=State(row.state),
        retries=row.retries,
        owner=row.owner,
        until=None if row.until is None else row.until / 1000,
        reason=row.reason or "",
        was=State(row.was) if row.was else None,
    )
