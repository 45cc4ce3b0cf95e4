"""What a trigger records in a database, and when it came to be known."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Row,
    Table,
    create_engine,
    make_url,
    or_,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError

from tests.support.waiting import eventually

_POLL = 0.05
# Longer than a reading takes on a busy machine: the database was away.
_AWAY = 3.0

NOW = {
    "sqlite": "(julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "extract(epoch FROM clock_timestamp())",
}
"""The machine's clock, in seconds, by the database's name."""


class Recorded:
    """Tells `note` of each row that triggers insert into a table, in the order of their commits.

    It is called in one thread, with a time and the row. The time is that at which the row was read,
    a moment after its commit; of what only shows after the database was away, the time at which it
    was asked in vain, or that of the trigger if it is later.

    Numbers are given before the commit, and some never come: what is missing is looked for until
    it is there.
    """

    def __init__(self, url: str, table: str, *columns: Column[Any]) -> None:
        self.table = Table(
            table, MetaData(), Column("n", Integer, primary_key=True), Column("at", Float), *columns
        )
        self._url = _of_what_exists(make_url(url))
        self._engine = create_engine(self._url, pool_size=1, max_overflow=0)
        self._note: Callable[[float, Row[Any]], None] = lambda time, row: None
        self._last, self._missing = 0, set[int]()
        self._asked = self._answered = 0.0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    @property
    def dialect(self) -> str:
        """The database's name."""
        return self._url.get_backend_name()

    def start(self, statements: Iterable[str], note: Callable[[float, Row[Any]], None]) -> None:
        """Make the table, install the triggers by these statements, and look on."""
        self._note = note
        with self._engine.begin() as connection:
            self.table.create(connection)
            for statement in statements:
                connection.execute(text(statement))
        self._thread.start()

    def stop(self) -> None:
        """Look no more; the triggers stay."""
        self._stopped.set()
        self._thread.join()
        self._engine.dispose()

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was read that was committed before this was called."""
        called = time.time()
        eventually(lambda: self._answered > called, timeout, message="all records were read")

    def _look_on(self) -> None:
        while not self._stopped.is_set():
            asked = time.time()
            # Since when there is no answer.
            self._asked = self._asked or asked
            with contextlib.suppress(DBAPIError), self._engine.connect() as connection:
                self._read(connection)
                self._asked, self._answered = 0.0, asked
            self._stopped.wait(_POLL)

    def _read(self, connection: Connection) -> None:
        number = self.table.c.n
        new = or_(number > self._last, number.in_(self._missing))
        rows = connection.execute(select(self.table).where(new).order_by(number)).all()
        now = time.time()
        was_away = now - self._asked > _AWAY
        for row in rows:
            self._note(max(row.at, self._asked) if was_away else now, row)
            self._missing |= set(range(self._last + 1, row.n))
            self._missing.discard(row.n)
            self._last = max(self._last, row.n)


def triggers(dialect: str, name: str, event: str, statement: str) -> Iterator[str]:
    """What makes a statement run for each row that an event, `INSERT ON table`, is about."""
    trigger = f"CREATE TRIGGER {name} AFTER {event} FOR EACH ROW"
    if dialect == "sqlite":
        yield f"{trigger} BEGIN {statement}; END"
    else:
        body = f"$$ BEGIN {statement}; RETURN NULL; END $$"
        yield f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS {body}"
        yield f"{trigger} EXECUTE FUNCTION {name}()"


def _of_what_exists(url: URL) -> URL:
    """SQLite would make a file that was removed anew, and with it another ledger."""
    if url.get_backend_name() != "sqlite":
        return url
    return url.set(database=f"file:{url.database}", query={"mode": "rw", "uri": "true"})
