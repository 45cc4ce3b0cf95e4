"""The table of the world, and the scan that sees it through the query, perhaps late."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

from scannerjob.model.plan import PlanFinding
from scannerjob.model.row import Row, Rows
from scannerjob.ports import SourceError
from tests.model.basics import START, Fault, Pause

if TYPE_CHECKING:
    from tests.model.world import World

# By which columns rows can be known. What one row is called by one, another is called by the other.
KEYS = (("id",), ("number",))
QUERY, ANOTHER_QUERY = "query", "another query"


@dataclass
class RowState:
    """A row of the table. A row that comes back to be done again is of a new generation."""

    generation: int = 1
    pending: bool = True
    done_by_worker: bool = False
    left_at: datetime = START


class Table:
    """The rows by id, and what a person may change about how they are looked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rows = {f"[{n}]": RowState() for n in range(world.setup.rows)}
        self.key = KEYS[0]
        self.query = QUERY

    @property
    def query_hash(self) -> str:
        """Of the query and the key columns."""
        return f"{self.query} by {self.key}"

    def leave(self, name: str) -> None:
        """The row matches no longer."""
        row = self.rows[name]
        if row.pending:
            row.pending, row.left_at = False, self._world.now

    def shown(self, query: str | None = None) -> list[str]:
        """The rows that a scan finds: all that match, and those of which it is not yet seen.

        By the present query, or this one. Another query does not find the first row, whatever
        becomes of it.
        """
        seen_until = self._world.now - self._world.setup.lag
        names = list(self.rows)[0 if (query or self.query) == QUERY else 1 :]
        rows = [(name, self.rows[name]) for name in names]
        shown = [name for name, row in rows if row.pending or row.left_at > seen_until]
        return shown[: self._world.setup.limit or None]

    def lags(self) -> bool:
        """Whether a scan would find what no longer matches."""
        return any(not self.rows[name].pending for name in self.shown())

    def key_of(self, name: str, columns: Sequence[str]) -> str:
        """What a row is called by these columns."""
        return f"[{(int(name[1:-1]) + KEYS.index(tuple(columns))) % len(self.rows)}]"

    def name_of(self, key: str, columns: Sequence[str]) -> str:
        """Which row is called so by these columns; the reverse of `key_of`."""
        return next(name for name in self.rows if self.key_of(name, columns) == key)


class Source:
    """The table, seen through the query as it was when a cycle connected."""

    warnings: Sequence[str] = ()
    plan: PlanFinding | None = None

    def __init__(self, world: World) -> None:
        self._world = world
        self._key = world.table.key
        self._query = world.table.query
        self.query_hash = world.table.query_hash

    async def scan(self, limit: int) -> Rows:
        await self._may_fail("source.scan")
        found = self._shown()
        first = tuple(found.values())[:limit]
        rows = Rows(
            self.query_hash,
            first,
            complete=len(found) < limit,
            absence_knowable=not self._world.setup.limit,
            key=self._key,
        )
        await Pause("source.scan: answered")
        return rows

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        await self._may_fail("source.fetch")
        found, told = self._shown(), set(keys) - self._unfetchable()
        fetched = tuple(row for key, row in found.items() if key in told)
        absent = told - found.keys() if rows.absence_knowable else ()
        rows = replace(rows, fetched=fetched, absent=frozenset(absent))
        await Pause("source.fetch: answered")
        return rows

    def _shown(self) -> Mapping[str, Row]:
        table = self._world.table
        keys = {name: table.key_of(name, self._key) for name in table.shown(self._query)}
        return {key: Row(key, {"id": name}) for name, key in keys.items()}

    def _unfetchable(self) -> set[str]:
        return set(list(self._world.table.rows)[: self._world.setup.unfetchable])

    async def _may_fail(self, where: str) -> None:
        if await Pause(where) not in (Fault.NONE, Fault.STALE):
            self._world.acting().failed = True
            raise SourceError("DatabaseUnreachable", "no answer")
