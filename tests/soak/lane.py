"""The rows of one ScannerJob: their steady supply, and the books that are kept of them.

What is done is taken out of the tables and booked, so that neither they nor the books grow.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import psycopg

from tests.harness.witnesses.application import Application
from tests.support.api import Json

Kind = Literal["redis", "rabbitmq", "job"]
ATTEMPTS = 3
COUNTERS = ("launched", "succeeded", "failed", "lost")
_FAILS_EVERY, _PARKS_EVERY = 7, 41
_ALWAYS = 99

_FINISHED = """
SELECT item.id, done_at, count(run), count(*) FILTER (WHERE outcome = 'succeeded')
FROM {schema}.item LEFT JOIN {schema}.execution ON item = item.id
WHERE done_at < %s OR item.id = ANY(%s) GROUP BY item.id
"""
_FORGET = """
WITH gone AS (DELETE FROM {schema}.item WHERE id = ANY(%s))
DELETE FROM {schema}.execution WHERE item = ANY(%s)
"""
_STRAYS = """
DELETE FROM {schema}.execution WHERE item NOT IN (SELECT id FROM {schema}.item) RETURNING item
"""


@dataclass(frozen=True)
class Window:
    """A time in which something was wrong."""

    begin: float
    end: float


@dataclass
class Books:
    """Of the rows that were finished, in the times of faults (`touched`) and in all others."""

    rows: int = 0
    succeeded: int = 0
    failed: int = 0
    touched: int = 0
    touched_executions: int = 0
    problems: list[str] = field(default_factory=list)


class Lane:
    """See the module. `name` is the ScannerJob's, its queue's and, with `_`, its schema's."""

    def __init__(self, url: str, name: str, kind: Kind, rate: float) -> None:
        self.name = name
        self.kind: Kind = kind
        self.books = Books()
        self.application = Application(url, name.replace("-", "_"))
        self._database = url.replace("postgresql+psycopg://", "postgresql://")
        self._rate = rate
        self._began = time.monotonic()
        self._supplied = 0
        self._fails: dict[int, tuple[float, int]] = {}
        """Of the rows in the table: since when they are there, and how often they are to fail."""

    @property
    def unbooked(self) -> int:
        """How many rows are in the table: not done, or not booked yet."""
        return len(self._fails)

    def begin(self) -> None:
        """Let the supply begin now."""
        self._began = time.monotonic()

    def supply(self) -> None:
        """Insert what is due by now, all at once after a time in which nothing could be."""
        due = range(self._supplied, int(self._rate * (time.monotonic() - self._began)))
        self._supplied += len(due)
        for fails, rows in Counter(map(self._fails_of, due)).items():
            self.insert(rows, fails)

    def insert(self, rows: int, fails: int = 0) -> None:
        """Insert rows that fail so often."""
        since = time.time()
        added = self.application.insert(rows, seconds=0.2, fails=fails)
        self._fails |= dict.fromkeys(added, (since, fails))

    def _fails_of(self, number: int) -> int:
        if self.kind == "rabbitmq":  # without a guard, only time tells that a task has failed
            return 0
        parks, fails = (number % every == every - 1 for every in (_PARKS_EVERY, _FAILS_EVERY))
        return _ALWAYS if parks else int(fails)

    def tidy(
        self, status: Mapping[str, Any], seen_for: float, touched: Callable[[float, float], bool]
    ) -> None:
        """Book what is done for so long, and what has parked, which a person gives up for good."""
        parked = [each["key"] for each in status.get("items", ()) if each["phase"] == "Parked"]
        given_up = [int(key.strip("[]")) for key in parked]
        with psycopg.connect(self._database, autocommit=True) as database:
            finished = self._ask(database, _FINISHED, time.time() - seen_for, given_up)
            ids = [row for row, *_ in finished]
            self._ask(database, _FORGET, ids, ids)
            strays = self._ask(database, _STRAYS)
        for each in finished:
            self._book(touched, *each)
        self.books.problems += [
            f"{self.name}: row {row} was executed after its end" for (row,) in strays
        ]

    def _book(
        self,
        touched: Callable[[float, float], bool],
        row: int,
        done: float | None,
        executions: int,
        successes: int,
    ) -> None:
        since, fails = self._fails.pop(row)
        books = self.books
        books.rows += 1
        if touched(since, done or time.time()):
            books.touched += 1
            books.touched_executions += executions
            return
        books.succeeded += successes
        books.failed += executions - successes
        expected = (min(fails + 1, ATTEMPTS), int(fails < ATTEMPTS))
        if (executions, successes) != expected:
            books.problems.append(
                f"{self.name}: row {row}, to fail {fails} times, was executed {executions} times, "
                f"{successes} of them to the end"
            )

    def counters_wrong(self, counters: Counter[str]) -> list[str]:
        """What its counters say that was not so; rows in faults may be counted in many ways."""
        books = self.books
        spare = books.touched + books.touched_executions
        executed = books.succeeded + books.failed
        seen = {
            "launched": (executed, executed + spare),
            "succeeded": (books.succeeded, books.succeeded + books.touched),
            "failed": (books.failed, books.failed + spare),
            "lost": (0, spare),
        }
        wrong = [
            f"{self.name}: {name} is {counters[name]}, not {low} to {high}"
            for name, (low, high) in seen.items()
            if not low <= counters[name] <= high
        ]
        ended = sum(counters[name] for name in COUNTERS[1:])
        if counters["launched"] != ended:
            wrong.append(f"{self.name}: {counters['launched']} were launched, {ended} have ended")
        return wrong

    def document(self, namespace: str, name: str = "", prefix: str = "") -> Json:
        """A ScannerJob for these rows, by this name; `prefix` is that of its Secrets' names."""
        kind = "job" if self.kind == "job" else "celery"
        spec: dict[str, Any] = {
            "database": _secret(f"{prefix}database"),
            "query": self.application.query,
            "interval": "500ms",
            "concurrency": 4,
            "retry": {"attempts": ATTEMPTS, "backoff": "500ms", "maxBackoff": "2s"},
            kind: _template() if kind == "job" else self._celery(prefix),
        }
        if self.kind == "rabbitmq":  # without a guard, only time tells that a task was lost
            spec["deadline"] = "30s"
        metadata = {"name": name or self.name, "namespace": namespace}
        head = {"apiVersion": "scannerjob.dev/v1alpha1", "kind": "ScannerJob"}
        return {**head, "metadata": metadata, "spec": spec}

    def _celery(self, prefix: str) -> dict[str, Any]:
        broker = _secret(f"{prefix}{self.kind}")
        celery = {"broker": broker, "task": "trial.work", "queue": self.name}
        return celery | ({"guard": broker} if self.kind == "redis" else {"expires": "30s"})

    def _ask(
        self, database: psycopg.Connection[Any], statement: str, *values: Any
    ) -> list[tuple[Any, ...]]:
        text = statement.format(schema=self.application.schema)
        cursor = database.execute(text.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


def counters(status: Mapping[str, Any]) -> Counter[str]:
    """Those of a status."""
    return Counter({name: int(status.get(name, 0)) for name in COUNTERS})


def is_quiet(status: Mapping[str, Any]) -> bool:
    """Whether nothing is out, nor to be tried again."""
    return bool(status) and not any(status.get(each) for each in ("active", "waiting", "parked"))


def _secret(name: str) -> Json:
    return {"urlSecretRef": {"name": name, "key": "url"}}


def _template() -> Json:
    container = {"name": "work", "image": "none", "command": ["work", "$(ITEM)"]}
    return {"template": {"spec": {"template": {"spec": {"containers": [container]}}}}}
