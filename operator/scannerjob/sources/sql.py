"""The rows of one ScannerJob's query: the first ones in its order, and some by their keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from scannerjob.model.plan import PLAN_UNKNOWN, PlanEstimate, PlanFinding
from scannerjob.model.row import Presence, Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import SourceError
from scannerjob.sources.dialects import Plan
from scannerjob.sources.keys import can_be_sought, lookup
from scannerjob.sources.parse import Statement, parse
from scannerjob.sources.records import (
    Records,
    Result,
    check_variables,
    key_columns,
    sort_out,
)

if TYPE_CHECKING:
    from scannerjob.sources.engines import Server

log = logging.getLogger(__name__)

# However many rows are unusable, no more than these are read.
MAX_ROWS = 10_000
_KEYS_AT_ONCE = 200
# An index may be added, or dropped, while this process runs.
_PLANNED_FOR_SECONDS = 600
_EXPLAIN_SECONDS = 1.0
# More than any table has.
_ALL_ROWS = 2**63

_LIMITED = (
    "spec.query has a LIMIT, OFFSET or FETCH of its own: rows are capped anyway; with a LIMIT, a "
    "row that left can't be told from one beyond it: leaving proves nothing of its work, and a row "
    "that was parked or waits to be retried is not forgotten when it leaves either"
)
_NOT_SOUGHT = (
    "KeyNotLookedUp: rows can't be looked up by key ({}): its values are longer than 200 bytes, or "
    "of a type that can't be compared exactly, such as a float, time, interval, inet or JSON, or "
    f"MySQL's TIMESTAMP; with more than {MAX_ROWS:,} rows waiting, a finished row may hold its "
    "slot; use an integer, a short text, a UUID, a date or DATETIME as key"
)


class SqlSource:
    """A RowSource on a SQL database.

    It remembers how the query is to be run, and which types its key columns have. `clock` gives
    seconds that never go back.
    """

    def __init__(
        self, server: Server, spec: ScannerJobSpec, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._server = server
        self._spec = spec
        self._query_hash = _hash(spec, server.identity)
        self._statement: Statement | None = None
        self._clock = clock
        self._plan: Plan | None = None
        self._planned_at = 0.0
        self._finding: PlanFinding | None = None
        self._found_at: float | None = None
        # As many as last time will most likely stand before the usable ones again.
        self._unusable = 0
        self._key: Sequence[str] = ()
        self._key_types: Sequence[Collection[type]] = ()
        self._not_sought = False
        # About as many will most likely be needed again, and to ask for few may cost as much.
        self._read_on_to = 0

    @property
    def query_hash(self) -> str:
        """A hash of query, key columns and the database's identity without credentials."""
        return self._query_hash

    @property
    def warnings(self) -> Sequence[str]:
        """What the author should know of this query; complete after the first scan."""
        limited = (_LIMITED,) if self._statement and self._statement.limited else ()
        not_sought = (_NOT_SOUGHT.format(", ".join(self._key)),) if self._not_sought else ()
        return (*limited, *not_sought, *(self._plan.warnings if self._plan else ()))

    @property
    def plan(self) -> PlanFinding | None:
        """What each look costs, by the database's own plan; None where that is not known yet."""
        return self._finding

    async def estimate(self) -> PlanEstimate:
        """What the database expects of the whole query; nothing where that cannot be had."""
        try:
            estimated = partial(self._estimated, await self._parsed())
            return await self._server.run(estimated, _EXPLAIN_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever a plan looks like
            log.debug("the plan of the query is not known: %s", error)
            return PlanEstimate()

    async def scan(self, limit: int) -> Rows:
        """The first `limit` usable rows or more, in the query's order. Raises SourceError.

        While rows are unusable it reads on, twice as many each time, to 10,000.
        """
        most = max(limit, MAX_ROWS)
        count = min(limit + self._unusable, most)
        while True:
            rows = await self._run(self._first_rows, count)
            self._unusable = len(rows.problems)
            if len(rows.rows) >= limit or rows.complete or count == most:
                await self._look_at_plan(count, rows.complete)
                return replace(rows, blocked=not rows.rows and not rows.complete)
            count = min(2 * count, most)

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        """`rows`, and what could be told of these keys. Raises SourceError.

        They are looked up by key. Where that would not be certain, more of the query's rows are
        read, to 10,000: nothing is told of a key that lies, or would lie, beyond them.
        """
        sought = self._seekable(sorted(keys))
        for start in range(0, len(sought), _KEYS_AT_ONCE):
            rows = await self._fetch(rows, sought[start : start + _KEYS_AT_ONCE])
        return await self._read_on(rows, keys)

    async def _fetch(self, rows: Rows, keys: Sequence[str]) -> Rows:
        try:
            rows = await self._run(self._look_up, rows, keys)
        except SourceError as error:
            if error.reason != "QueryFailed":
                raise
            # The query itself has just worked: its columns cannot be compared with these keys.
            problem = f"{len(keys)} keys could not be looked up: {error}"
            return replace(rows, problems=(*rows.problems, problem))
        return await self._fetch_apart(rows, keys)

    async def _fetch_apart(self, rows: Rows, keys: Sequence[str]) -> Rows:
        """One key in doubt has put those in doubt that were looked for with it: each half alone."""
        doubtful = _untold(rows, keys)
        if len(keys) > 1 and doubtful:
            middle = len(doubtful) // 2
            for half in filter(None, (doubtful[:middle], doubtful[middle:])):
                rows = await self._fetch(rows, half)
        return rows

    async def _read_on(self, rows: Rows, keys: Collection[str]) -> Rows:
        """Read from the start again, twice as many each time, until these are found or the end."""
        count = max(1, len(rows.rows) + len(rows.problems), self._read_on_to // 4)
        while count < MAX_ROWS and (untold := _untold(rows, keys)):
            count = min(2 * count, MAX_ROWS)
            try:
                rows = _joined(rows, await self._run(self._first_rows, count), frozenset(untold))
            except SourceError as error:
                if error.reason not in ("QueryFailed", "QueryTimeout"):
                    raise
                # Fewer rows have just been read, and they can be launched.
                problem = f"{len(untold)} keys were not found in fewer than {count} rows: {error}"
                return replace(rows, problems=(*rows.problems, problem))
        self._read_on_to = count
        return rows

    def _seekable(self, keys: Sequence[str]) -> Sequence[str]:
        """Those whose look-up is certain; none before a row has shown the types."""
        if not self._key_types:
            return ()
        seekable = [key for key in keys if can_be_sought(key, self._key_types)]
        self._not_sought = self._not_sought or len(seekable) < len(keys)
        return seekable

    async def _run(self, work: Callable[..., Rows], *arguments: Any) -> Rows:
        call = partial(work, await self._parsed(), *arguments)
        return await self._server.run(call, self._spec.query_timeout.total_seconds())

    async def _parsed(self) -> Statement:
        if self._statement is None:
            # In a thread, for the time it takes to load the parser.
            grammar = self._server.dialect.grammar
            self._statement = await asyncio.to_thread(parse, self._spec.query, grammar)
        return self._statement

    async def _look_at_plan(self, count: int, complete: bool) -> None:
        """Ask now and then what a look costs. The rows are there: no trouble with it may matter."""
        now = self._clock()
        known = self._found_at is not None and now < self._found_at + _PLANNED_FOR_SECONDS
        if known or self._statement is None:
            return
        self._found_at = now
        explain = partial(self._explain, self._statement, count, complete)
        try:
            found = await self._server.run(explain, _EXPLAIN_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever a plan looks like
            log.debug("the plan of the query is not known: %s", error)
            found = PLAN_UNKNOWN
        self._finding = found or self._finding

    # In a thread, with a connection that is theirs alone.

    def _explain(
        self, statement: Statement, count: int, complete: bool, connection: Connection
    ) -> PlanFinding | None:
        dialect = self._server.dialect
        dialect.begin(connection, _EXPLAIN_SECONDS, count)
        return dialect.finding(connection, statement, complete=complete)

    def _estimated(self, statement: Statement, connection: Connection) -> PlanEstimate:
        dialect = self._server.dialect
        dialect.begin(connection, _EXPLAIN_SECONDS, _ALL_ROWS)
        return dialect.estimate(connection, statement)

    def _first_rows(self, statement: Statement, count: int, connection: Connection) -> Rows:
        plan = self._begin(connection, statement, count)
        result = self._server.dialect.scan(connection, statement, plan, count)
        records = self._sorted_out(result)
        return Rows(
            query_hash=self._query_hash,
            rows=tuple(records.rows),
            complete=result.complete,
            absence_knowable=not statement.limited,
            held_back=frozenset(records.held_back),
            key=tuple(self._key),
            problems=tuple(records.problems),
        )

    def _look_up(
        self, statement: Statement, rows: Rows, keys: Sequence[str], connection: Connection
    ) -> Rows:
        dialect = self._server.dialect
        self._begin(connection, statement, MAX_ROWS)
        quote = connection.dialect.identifier_preparer.quote_identifier
        columns = [quote(name) for name in self._key]
        wanted = lookup(keys, columns, self._key_types, dialect.placeholder)
        if wanted is None:
            return rows
        result = dialect.look_up(connection, statement, wanted.condition, wanted.binds, MAX_ROWS)
        return _merged(rows, result, sort_out(result, self._key), frozenset(wanted.keys))

    def _begin(self, connection: Connection, statement: Statement, count: int) -> Plan:
        dialect = self._server.dialect
        dialect.begin(connection, self._spec.query_timeout.total_seconds(), count)
        now = self._clock()
        if self._plan is None or now >= self._planned_at + _PLANNED_FOR_SECONDS:
            in_cluster = self._server.in_cluster
            self._plan = dialect.plan(connection, statement, in_cluster=in_cluster)
            self._planned_at = now
        return self._plan

    def _sorted_out(self, result: Result) -> Records:
        """The rows by key; remembers the key columns, and the types the driver reads there."""
        self._key = key_columns(result.columns, self._spec.key)
        if self._spec.job is not None:
            check_variables(result.columns, self._spec.job.template)
        records = sort_out(result, self._key)
        if records.rows or records.held_back:
            self._key_types = [
                self._types(result, result.columns.index(name)) for name in self._key
            ]
            self._seekable([row.key for row in records.rows])
        return records

    def _types(self, result: Result, place: int) -> Collection[type]:
        values = [row[place] for row in result.rows]
        return self._server.dialect.key_types(values, result.type_codes[place])


def _untold(rows: Rows, keys: Collection[str]) -> list[str]:
    """The keys of which nothing is known, and something can be."""
    if not rows.absence_knowable:
        return []
    return [key for key in keys if rows.presence(key) is Presence.UNKNOWN]


def _joined(rows: Rows, more: Rows, untold: frozenset[str]) -> Rows:
    """What is known of these keys after more of the query's rows were read."""
    found = {key for key in untold if more.presence(key) is Presence.PRESENT}
    return replace(
        rows,
        fetched=(*rows.fetched, *(row for row in more.rows if row.key in untold)),
        absent=rows.absent | (untold - found if more.complete else frozenset()),
        held_back=rows.held_back | (more.held_back & untold),
    )


def _merged(rows: Rows, result: Result, records: Records, sought: frozenset[str]) -> Rows:
    """What is known after these keys were looked for."""
    found = {row.key for row in records.rows} | records.held_back
    # A row that equals a sought one, and has another key, may be that very row: databases may
    # convert values differently when the query stands inside another one.
    certain = result.complete and rows.absence_knowable and found <= sought
    return replace(
        rows,
        fetched=(*rows.fetched, *(row for row in records.rows if row.key in sought)),
        absent=rows.absent | (sought - found if certain else frozenset()),
        held_back=rows.held_back | records.held_back,
        problems=tuple(dict.fromkeys((*rows.problems, *records.problems))),
    )


def _hash(spec: ScannerJobSpec, endpoint: str) -> str:
    text = json.dumps([spec.query, spec.key, endpoint])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
