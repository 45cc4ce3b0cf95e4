"""The tasks that workers guard, in a guard's store that is a database."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Collection

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql import ColumnElement

from scannerjob.worker.sql_rows import insert_absent
from scannerjob.worker.sql_tables import announcement

_is = announcement.c


def announce(
    connection: Connection, clock: ColumnElement[int], tasks: Collection[str], duration: int
) -> None:
    """Have these announced for at least half of `duration`, in milliseconds by `clock`.

    What others have announced lately is only read: many workers write no more than one.
    """
    wanted = {_digest(task) for task in tasks}
    now: int = connection.execute(select(clock)).scalar_one()
    due = sorted(wanted - _found(connection, wanted, since=now + duration // 2))
    if not due:
        return
    until = now + duration
    connection.execute(update(announcement).where(_is.task.in_(due)).values(until=until))
    missing = sorted(set(due) - _found(connection, due, since=now))
    if missing:
        insert_absent(connection, announcement, [{"task": e, "until": until} for e in missing])
    # A statement of somebody else's may be in its way; next time, then.
    with contextlib.suppress(DBAPIError):
        connection.execute(delete(announcement).where(_is.until <= now))


def is_announced(connection: Connection, clock: ColumnElement[int], task: str) -> bool:
    """Whether it is, by `clock`."""
    question = select(_is.task).where(_is.task == _digest(task), _is.until > clock)
    return connection.execute(question).first() is not None


def _found(connection: Connection, digests: Collection[str], since: int) -> set[str]:
    question = select(_is.task).where(_is.task.in_(digests), _is.until > since)
    return set(connection.execute(question).scalars())


def _digest(task: str) -> str:
    return hashlib.sha256(task.encode()).hexdigest()
