"""The application under test: items to be done in PostgreSQL, and the record of each execution.

Each trial has a schema of its own. Items and records change together, in functions of the database,
each of which may be called again when its answer was lost.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

import psycopg

from tests.proof.history import Execution, Row
from tests.support.kubelet import Kubelet
from tests.support.pods import Fate, Pod

LAUNCH = "scannerjob.dev/launch"

_SCHEMA = """
CREATE SCHEMA {schema};
SET search_path = {schema};
CREATE TABLE item (
    id int PRIMARY KEY, seconds float8 NOT NULL, fails int NOT NULL, retries int NOT NULL,
    done_at float8
);
CREATE TABLE execution (
    run uuid PRIMARY KEY, launch text NOT NULL, item int NOT NULL, worker text NOT NULL,
    started float8 NOT NULL, ended float8, outcome text
);

CREATE FUNCTION begin_work(run uuid, launch text, item int, worker text, now float8)
RETURNS float8 SET search_path = {schema} AS $$
    INSERT INTO execution VALUES (run, launch, item, worker, now) ON CONFLICT DO NOTHING;
    SELECT seconds FROM item WHERE id = begin_work.item;
$$ LANGUAGE sql;

CREATE FUNCTION end_work(which uuid, now float8)
RETURNS text SET search_path = {schema} AS $$
DECLARE
    this execution;
BEGIN
    SELECT * INTO this FROM execution WHERE run = which FOR UPDATE;
    IF this.outcome IS NOT NULL THEN
        RETURN this.outcome;
    END IF;
    UPDATE item SET retries = retries - 1 WHERE id = this.item AND retries > 0;
    IF FOUND THEN
        this.outcome := 'retried';
    ELSE
        UPDATE item SET fails = fails - 1 WHERE id = this.item AND fails > 0;
        this.outcome := CASE WHEN FOUND THEN 'failed' ELSE 'succeeded' END;
    END IF;
    IF this.outcome = 'succeeded' THEN
        UPDATE item SET done_at = now WHERE id = this.item AND done_at IS NULL;
    END IF;
    UPDATE execution SET ended = now, outcome = this.outcome WHERE run = which;
    RETURN this.outcome;
END;
$$ LANGUAGE plpgsql;
"""

# A naive task: it checks nothing, so that whatever is launched twice is seen twice. Only its own
# records outlast a database that is away.
TASKS = """\
import os
import time
import uuid

import psycopg
from celery import Celery

app = Celery("trial", broker=os.environ["BROKER"], backend=os.environ.get("RESULTS"))
app.conf.worker_prefetch_multiplier = 1
app.conf.task_acks_late = bool(os.environ.get("LATE"))
if os.environ["BROKER"].startswith("sqla+"):
    from kombu.transport.sqlalchemy import Transport

    Transport.polling_interval = 0.1
if guard := os.environ.get("GUARD"):
    from scannerjob.worker import install

    install(app, guard)

DATABASE = os.environ["DATABASE"].replace("postgresql+psycopg://", "postgresql://")


class Failed(Exception):
    pass


def record(call, *values):
    while True:
        try:
            with psycopg.connect(DATABASE, autocommit=True, connect_timeout=10) as database:
                return database.execute(call, (*values, time.time())).fetchone()[0]
        except psycopg.OperationalError:
            time.sleep(0.2)


def work(self, item, trial):
    run, worker = str(uuid.uuid4()), f"{self.request.hostname}:{os.getpid()}"
    begin = f"SELECT {trial}.begin_work(%s, %s, %s, %s, %s)"
    time.sleep(record(begin, run, self.request.id, item, worker))
    outcome = record(f"SELECT {trial}.end_work(%s, %s)", run)
    if outcome == "retried":
        raise self.retry(countdown=0)
    if outcome == "failed":
        raise Failed(item)


for name in ("trial.work", "trial.work_again"):
    app.task(bind=True, name=name, max_retries=None)(work)
"""


class Application:
    """The items of one trial, and all that was recorded of their executions.

    `schema` is a plain name in lower case. Tasks run `TASKS`; pods run `work`, for as long as
    `fate` says:

        Kubelet(kubeconfig, [namespace], work=application.work, fate=application.fate)

    No work begins before that is recorded, so that no execution is missed. What is asked of it
    goes on until the database answers, or for `patience` seconds.
    """

    def __init__(self, url: str, schema: str, patience: float = 120.0) -> None:
        assert re.fullmatch("[a-z][a-z0-9_]*", schema), f"{schema!r} needs no quotes"
        self.url = url
        self.schema = schema
        self._patience = patience
        self._seconds: dict[int, float] = {}
        self._since: dict[int, float] = {}
        self._database = url.replace("postgresql+psycopg://", "postgresql://")
        self._execute(_SCHEMA.format(schema=schema))

    @property
    def query(self) -> str:
        """What a ScannerJob looks for; its rows are known by `item`."""
        return (
            f"SELECT id AS item, '{self.schema}' AS trial FROM {self.schema}.item "
            "WHERE done_at IS NULL ORDER BY id"
        )

    def insert(
        self, count: int, *, seconds: float = 0.0, fails: int = 0, retries: int = 0
    ) -> list[int]:
        """Insert so many items; gives their ids.

        Each takes `seconds`, gives itself back to its broker `retries` times (never that of a
        pod), then fails `fails` times.
        """
        first = len(self._seconds) + 1
        ids = list(range(first, first + count))
        self._seconds |= dict.fromkeys(ids, seconds)
        statement = (
            f"INSERT INTO {self.schema}.item SELECT id, %s, %s, %s FROM unnest(%s::int[]) AS id "
            "ON CONFLICT DO NOTHING"
        )
        self._persist(lambda: self._execute(statement, seconds, fails, retries, ids))
        self._since |= dict.fromkeys(ids, time.time())
        return ids

    def withdraw(self) -> None:
        """Let the first item that nobody has begun leave by itself, as one that a user cancels."""
        statement = (
            f"UPDATE {self.schema}.item SET done_at = %s WHERE id = (SELECT min(id) FROM "
            f"{self.schema}.item WHERE done_at IS NULL AND id NOT IN "
            f"(SELECT item FROM {self.schema}.execution))"
        )
        self._persist(lambda: self._execute(statement, time.time()))

    def waiting(self) -> int:
        """How many items are not done yet."""
        return sum(row.until == inf for row in self.rows())

    def rows(self) -> list[Row]:
        """When each item matched the query."""
        statement = f"SELECT id, done_at FROM {self.schema}.item ORDER BY id"
        found = self._persist(lambda: self._execute(statement))
        return [
            Row(_row(each), self._since[each], inf if done is None else done)
            for each, done in found
            if each in self._since
        ]

    def executions(self, kubelet: Kubelet | None = None) -> list[Execution]:
        """What was recorded; of pods that were cut short, what their kubelet knows."""
        statement = (
            "SELECT launch, item, worker, started, ended, outcome, run::text "
            f"FROM {self.schema}.execution ORDER BY started"
        )
        found = self._persist(lambda: self._execute(statement))
        recorded = {run for *_, run in found}
        return [
            *(Execution(launch, _row(item), *rest) for launch, item, *rest, _ in found),
            *(_cut_short(pod) for pod in _started(kubelet) if pod.uid not in recorded),
        ]

    def fate(self, pod: Pod) -> Fate:
        """What becomes of a pod: it takes as long as its item."""
        return Fate(seconds=self._seconds[_item(pod)])

    def work(self, pod: Pod) -> None:
        """What a pod's program does; raises where its item is to fail."""
        launched = (pod.uid, pod.labels[LAUNCH], _item(pod), pod.name, pod.started)
        self._persist(lambda: self._call("begin_work", *launched))
        outcome = self._persist(lambda: self._call("end_work", pod.uid, time.time()))
        if outcome != "succeeded":
            raise RuntimeError(f"the work on item {_item(pod)} has {outcome}")

    def _call(self, function: str, *values: Any) -> Any:
        places = ", ".join(["%s"] * len(values))
        ((result,),) = self._execute(f"SELECT {self.schema}.{function}({places})", *values)
        return result

    def _persist(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                return ask()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._database, autocommit=True, connect_timeout=10) as connection:
            cursor = connection.execute(statement.encode(), values or None)
            return cursor.fetchall() if cursor.description else []


def _row(item: int) -> str:
    return f"[{item}]"


def _item(pod: Pod) -> int:
    return int(pod.env["ITEM"])


def _started(kubelet: Kubelet | None) -> Iterable[Pod]:
    return kubelet.started() if kubelet else ()


def _cut_short(pod: Pod) -> Execution:
    """The execution of a pod that recorded nothing, or is at work."""
    assert pod.started is not None
    return Execution(
        launch=pod.labels[LAUNCH],
        row=_row(_item(pod)),
        worker=pod.name,
        started=pod.started,
        ended=pod.ended,
        outcome=None if pod.ended is None else "failed",
    )
