"""The guard's records in a database: one row for each launch.

Every change of a record is one statement (autocommit), which finds its row only where the change
is allowed: no lock is ever held between two round trips. Where a method is several statements, any
of its launches is changed by one of them, and a crash between two is as if it came before the rest.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    String,
    Update,
    and_,
    delete,
    literal_column,
    not_,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from scannerjob.worker.records import RETENTION, Execution, Reading, Record, State
from scannerjob.worker.sql_announcements import announce, is_announced
from scannerjob.worker.sql_engine import within
from scannerjob.worker.sql_rows import (
    insert_absent,
    inserted,
    look,
    record_of,
    rows_of,
    write,
)
from scannerjob.worker.sql_tables import (
    CLOCKS,
    MAX_REASON,
    SERVERS,
    create_tables,
    identity,
    launch,
)

_Result = TypeVar("_Result")

# Rows are kept for twice as long as they must be, so that reading them seldom has to write.
_KEPT = round(2 * RETENTION * 1000)
_PRUNE_EVERY = 3600.0  # seconds
_MAX_ENDED = 10_000
_is = launch.c


class SqlStore:
    """A `Store` in three tables, `scannerjob_launch*`, which the first call creates.

    `engine` commits each statement by itself; see `open_engine`. No call takes more than `timeout`
    seconds. Times in the tables are milliseconds by the database's clock.
    """

    def __init__(self, engine: Engine, *, timeout: float = 5.0) -> None:
        self._engine, self._timeout = engine, timeout
        dialect = "mysql" if engine.dialect.name == "mariadb" else engine.dialect.name
        self._now: ColumnElement[int] = literal_column(CLOCKS[dialect], BigInteger)
        self._server: ColumnElement[str] = literal_column(SERVERS[dialect], String)
        self._prepared = False
        self._prune_at = time.monotonic() + _PRUNE_EVERY

    def __str__(self) -> str:
        url = self._engine.url
        port = f":{url.port}" if url.port else ""
        server = f"{url.host}{port}/" if url.host else ""
        return f"{url.get_backend_name()} {server}{url.database}"

    def claim(self, execution: Execution, lease: float) -> bool:
        """See Store."""
        values, held = self._running(execution, lease), _held_by(execution)
        return self._ask(lambda connection: write(connection, execution.id, held, values))

    def renew(self, executions: Sequence[Execution], lease: float) -> set[str]:
        """See Store. One statement, as long as no record is gone and none is lost."""
        return self._ask(lambda connection: self._renew(connection, executions, lease))

    def finish(
        self, execution: Execution, state: State, reason: str = "", delay: float = 0.0
    ) -> bool:
        """See Store. Who wants to know of it asks `ended_since`; of `reason` 1000 letters stay."""
        reason = reason.replace("\0", "")[:MAX_REASON]
        until = self._now + _milliseconds(delay) if state is State.RETRYING else null()
        ended = null() if state is State.QUEUED else self._now
        values = self._values(state, execution, until=until, reason=reason, was=null(), ended=ended)
        wanted = (state, execution.retries, execution.owner, reason)

        may = _owned_by if state is State.QUEUED else _held_by

        def end(connection: Connection) -> bool:
            if write(connection, execution.id, may(execution), values):
                return True
            found = look(connection, [execution.id]).get(execution.id)
            return found is not None and _told(found) == wanted

        return self._ask(end)

    def announce(self, tasks: Collection[str], duration: float) -> None:
        """See Store. One statement, as long as others have announced the same."""
        lasting = _milliseconds(duration)
        self._ask(lambda connection: announce(connection, self._now, tasks, lasting))

    def is_guarded(self, task: str) -> bool:
        """See Store."""
        return self._ask(lambda connection: is_announced(connection, self._now, task))

    def register(self, ids: Sequence[str]) -> Mapping[str, State]:
        """See Store."""

        def have(connection: Connection) -> Mapping[str, State]:
            found = look(connection, ids)
            missing = [each for each in ids if each not in found]
            if missing:
                self._insert(connection, missing, State.QUEUED)
                found = look(connection, ids)
            return {each: found[each].state for each in ids}

        return self._ask(have)

    def read(self, ids: Sequence[str]) -> Reading:
        """See Store. `identity` is that of the tables and of the server.

        It is another one where tables were dropped, or a server has taken another's place, or, of
        PostgreSQL, was begun anew. Not noticed is a backup that is put back under a running server.
        """
        return self._ask(lambda connection: self._read(connection, ids))

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Record]:
        """See Store."""
        return self._ask(lambda connection: self._supersede(connection, ids))

    def ended_since(self, moment: int) -> list[tuple[str, int]]:
        """The launches that ended at `moment` or later, in milliseconds, and when; oldest first.

        At most 10,000. A change may show some time after the moment that it bears: ask again for a
        second or two before the last one that was seen.
        """
        question = (
            select(_is.id, _is.ended)
            .where(_is.ended >= moment)
            .order_by(_is.ended)
            .limit(_MAX_ENDED)
        )
        return self._ask(lambda c: [(row.id, int(row.ended)) for row in c.execute(question)])

    def close(self) -> None:
        """See Store."""
        self._engine.dispose()

    def _ask(self, work: Callable[[Connection], _Result]) -> _Result:
        return within(self._timeout, lambda: self._connected(work))

    def _connected(self, work: Callable[[Connection], _Result]) -> _Result:
        try:
            if not self._prepared:
                self._prepare()
            with self._engine.connect() as connection:
                return work(connection)
        except SQLAlchemyError:
            # It may be that the tables have gone.
            self._prepared = False
            raise

    def _prepare(self) -> None:
        create_tables(self._engine)
        with self._engine.connect() as connection:
            if connection.execute(select(identity)).first() is None:
                inserted(connection, identity, only=1, identity=str(uuid4()))
        self._prepared = True

    def _values(self, state: State, execution: Execution, **others: Any) -> dict[str, Any]:
        return {
            "state": state.value,
            "retries": execution.retries,
            "owner": execution.owner,
            "kept": self._now + _KEPT,
            **others,
        }

    def _running(self, execution: Execution, lease: float) -> dict[str, Any]:
        return self._values(
            State.RUNNING,
            execution,
            until=self._now + _milliseconds(lease),
            reason="",
            was=null(),
            ended=null(),
        )

    def _renew(
        self, connection: Connection, executions: Sequence[Execution], lease: float
    ) -> set[str]:
        if not executions:
            return set()
        # An owner owns one launch alone, so that these are the same pairs.
        ours = and_(
            _is.state == State.RUNNING.value,
            _is.id.in_(sorted(each.id for each in executions)),
            _is.owner.in_([each.owner for each in executions]),
        )
        times = {"until": self._now + _milliseconds(lease), "kept": self._now + _KEPT}
        if connection.execute(update(launch).where(ours).values(times)).rowcount == len(executions):
            return set()
        return {each.id for each in executions if not self._renew_one(connection, each, lease)}

    def _renew_one(self, connection: Connection, execution: Execution, lease: float) -> bool:
        values = self._running(execution, lease)
        allowed = and_(_held_by(execution), not_(_given_back_by(execution)))
        return write(connection, execution.id, allowed, values)

    def _read(self, connection: Connection, ids: Sequence[str]) -> Reading:
        # Before the records: none of them has lapsed by this moment that might not have.
        whole = select(identity.c.identity, self._server.label("server"), self._now.label("now"))
        store = connection.execute(whole).one()
        rows = rows_of(connection, ids)
        self._keep(connection, [row.id for row in rows if row.kept < store.now + _KEPT // 2])
        self._prune(connection)
        return Reading(
            identity=f"{store.identity} {store.server}".strip(),
            now=store.now / 1000,
            records={row.id: record_of(row) for row in rows},
        )

    def _keep(self, connection: Connection, ids: Sequence[str]) -> None:
        if ids:
            kept = {"kept": self._now + _KEPT}
            connection.execute(update(launch).where(_is.id.in_(sorted(ids))).values(kept))

    def _prune(self, connection: Connection) -> None:
        if time.monotonic() >= self._prune_at:
            self._prune_at = time.monotonic() + _PRUNE_EVERY
            # A statement of somebody else's may be in its way; next time, then.
            with contextlib.suppress(DBAPIError):
                connection.execute(delete(launch).where(_is.kept < self._now))

    def _supersede(self, connection: Connection, ids: Sequence[str]) -> Mapping[str, Record]:
        change = self._give_up(ids)
        connection.execute(change)
        found = look(connection, ids)
        missing = [each for each in ids if each not in found]
        if not missing:
            return found
        self._insert(connection, missing, State.SUPERSEDED)
        # Somebody may have written one of them first.
        connection.execute(change)
        return look(connection, ids)

    def _give_up(self, ids: Sequence[str]) -> Update:
        idle = or_(
            _is.state.in_([State.QUEUED.value, State.RETRYING.value]),
            and_(_is.state == State.RUNNING.value, _is.until <= self._now),
        )
        change = update(launch).where(_is.id.in_(sorted(ids)), idle)
        # MySQL assigns one after the other: `was` first, or it would be the new state.
        return change.ordered_values(
            (_is.was, _is.state),
            (_is.state, State.SUPERSEDED.value),
            (_is.until, null()),
            (_is.ended, self._now),
            (_is.kept, self._now + _KEPT),
        )

    def _insert(self, connection: Connection, ids: Sequence[str], state: State) -> None:
        """Write these, as far as nobody else has meanwhile."""
        # As a plain number, since drivers send many rows at once only where all values are plain.
        now: int = connection.execute(select(self._now)).scalar_one()
        ended = now if state is State.SUPERSEDED else None
        same = {
            "state": state.value,
            "retries": 0,
            "owner": "",
            "ended": ended,
            "kept": now + _KEPT,
        }
        insert_absent(connection, launch, [{"id": each, **same} for each in sorted(ids)])


def _given_back_by(execution: Execution) -> ColumnElement[bool]:
    return and_(_is.state == State.QUEUED.value, _is.owner == execution.owner)


def _held_by(execution: Execution) -> ColumnElement[bool]:
    """Nothing, its own, or what was there before it began: the store has lost that it did."""
    begun = _is.state.in_([State.RUNNING.value, State.RETRYING.value])
    return or_(_owned_by(execution), and_(begun, _is.retries < execution.retries))


def _owned_by(execution: Execution) -> ColumnElement[bool]:
    ours = and_(_is.state == State.RUNNING.value, _is.owner == execution.owner)
    return or_(_is.state == State.QUEUED.value, ours)


def _told(record: Record) -> tuple[State, int, str, str]:
    return record.state, record.retries, record.owner, record.reason


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
