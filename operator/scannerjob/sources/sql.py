"""The rows of one ScannerJob's query: the first ones in its order, and some by their keys."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import SourceError
from scannerjob.sources.dialects import Plan
from scannerjob.sources.keys import lookup
from scannerjob.sources.parse import Statement, parse
from scannerjob.sources.records import Records, Result, key_columns, sort_out

if TYPE_CHECKING:
    from scannerjob.sources.engines import Server

# However many rows are unusable, no more than these are read.
MAX_ROWS = 10_000
_KEYS_AT_ONCE = 200

_LIMITED = (
    "spec.query has a LIMIT, OFFSET or FETCH of its own: rows are capped anyway; with a LIMIT, a "
    "row that left can't be told from one beyond it, and leaving proves nothing of its work"
)


class SqlSource:
    """A RowSource on a SQL database.

    It remembers how the query is to be run, and which types its key columns have.
    """

    def __init__(self, server: Server, spec: ScannerJobSpec) -> None:
        self._server = server
        self._spec = spec
        self._query_hash = _hash(spec, server.identity)
        self._statement: Statement | None = None
        self._plan: Plan | None = None
        # As many as last time will most likely stand before the usable ones again.
        self._unusable = 0
        self._key: Sequence[str] = ()
        self._key_types: Sequence[Collection[type]] = ()

    @property
    def query_hash(self) -> str:
        """A hash of query, key columns and the database's identity without credentials."""
        return self._query_hash

    @property
    def warnings(self) -> Sequence[str]:
        """What the author should know of this query; complete after the first scan."""
        limited = (_LIMITED,) if self._statement and self._statement.limited else ()
        return (*limited, *(self._plan.warnings if self._plan else ()))

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
                return replace(rows, blocked=not rows.rows and not rows.complete)
            count = min(2 * count, most)

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        """`rows`, and what a look by key told of these keys. Raises SourceError.

        Nothing is told of a key whose look-up would not be certain, nor of any before a scan has
        shown the types of the key columns.
        """
        pending = sorted(keys)
        for start in range(0, len(pending), _KEYS_AT_ONCE):
            rows = await self._fetch(rows, pending[start : start + _KEYS_AT_ONCE])
        return rows

    async def _fetch(self, rows: Rows, keys: Sequence[str]) -> Rows:
        try:
            return await self._run(self._look_up, rows, keys)
        except SourceError as error:
            if error.reason != "QueryFailed":
                raise
            # The query itself has just worked: its columns cannot be compared with these keys.
            problem = f"{len(keys)} keys could not be looked up: {error}"
            return replace(rows, problems=(*rows.problems, problem))

    async def _run(self, work: Callable[..., Rows], *arguments: Any) -> Rows:
        if self._statement is None:
            # In a thread, for the time it takes to load the parser.
            grammar = self._server.dialect.grammar
            self._statement = await asyncio.to_thread(parse, self._spec.query, grammar)
        call = partial(work, self._statement, *arguments)
        return await self._server.run(call, self._spec.query_timeout.total_seconds())

    # In a thread, with a connection that is theirs alone.

    def _first_rows(self, statement: Statement, count: int, connection: Connection) -> Rows:
        plan = self._begin(connection, statement, count)
        result = self._server.dialect.scan(connection, statement, plan, count)
        self._learn(result)
        records = sort_out(result, self._key)
        return Rows(
            query_hash=self._query_hash,
            rows=tuple(records.rows),
            complete=result.complete,
            absence_knowable=not statement.limited,
            held_back=frozenset(records.held_back),
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
        if self._plan is None:
            in_cluster = self._server.in_cluster
            self._plan = dialect.plan(connection, statement, in_cluster=in_cluster)
        return self._plan

    def _learn(self, result: Result) -> None:
        """Remember the key columns, and the types of their values as the driver reads them."""
        self._key = key_columns(result.columns, self._spec.key)
        if not result.rows:
            return
        places = [result.columns.index(name) for name in self._key]
        self._key_types = [
            self._server.dialect.key_types(
                [row[place] for row in result.rows], result.type_codes[place]
            )
            for place in places
        ]


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
