"""PDFs in PostgreSQL, a Celery worker on Redis that makes their pages, and witnesses of both.

The witnesses are the worker's records in the database and what Redis saw published, never what the
operator says of itself.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any, Self

import psycopg
import redis

from tests.support.celery_worker import CeleryWorker
from tests.support.controlplane import ControlPlane

# Rows are marked as done in the same transaction that records the end.
TASKS = """
import os, time
import psycopg
from celery import Celery

app = Celery("docs", broker=os.environ["BROKER"])


@app.task(name="docs.tasks.create_pages", bind=True)
def create_pages(self, pdf_id, seconds):
    with psycopg.connect(os.environ["DATABASE"], autocommit=True) as database:
        names = {"pdf": pdf_id, "id": self.request.id}
        database.execute("INSERT INTO execution (pdf_id, id) VALUES (%(pdf)s, %(id)s)", names)
        time.sleep(seconds)
        with database.transaction():
            database.execute("UPDATE pdf SET pages_created = true WHERE id = %(pdf)s", names)
            database.execute("UPDATE execution SET ended = now() WHERE id = %(id)s", names)
"""
TABLES = """
CREATE TABLE pdf (id serial PRIMARY KEY, seconds float, pages_created bool DEFAULT false);
CREATE TABLE execution (pdf_id int, id text, ended timestamptz);
"""
QUERY = "SELECT id AS pdf_id, seconds FROM pdf WHERE NOT pages_created ORDER BY id"
_END = "nobody looks any more"


class Published:
    """The time at which each task id was first published, as Redis saw it."""

    def __init__(self, url: str) -> None:
        self.times: dict[str, float] = {}
        # Without a deadline: a Redis that is asked nothing has nothing to show.
        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]
        self._monitor.__enter__()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._client.echo(_END)
        self._thread.join()

    def _watch(self) -> None:
        for seen in self._monitor.listen():
            if seen["command"] == f"ECHO {_END}":
                return
            self._note(str(seen["command"]), float(seen["time"]))

    def _note(self, command: str, time: float) -> None:
        if command.startswith("LPUSH celery "):
            (task,) = set(re.findall(r'"id": "([-0-9a-f]{36})"', command))
            self.times.setdefault(task, time)


class Workload:
    """Rows, and the worker for them. Use it as a context manager: that starts the worker."""

    def __init__(self, folder: Path, database: str, broker: str) -> None:
        self.database = database
        self.broker = broker
        self.published = Published(broker)
        module = folder / "tasks.py"
        module.write_text(TASKS)
        env = {"BROKER": broker, "DATABASE": self._libpq}
        self.worker = CeleryWorker(module, env=env, concurrency=4)
        self.execute(TABLES)

    def insert(self, rows: int, seconds: float = 0.1) -> None:
        self.execute(
            f"INSERT INTO pdf (seconds) SELECT {seconds:f} FROM generate_series(1, {rows})"
        )

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._libpq, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def waiting(self) -> int:
        """Rows that are not done yet."""
        ((count,),) = self.execute("SELECT count(*) FROM pdf WHERE NOT pages_created")
        return int(count)

    @property
    def executions(self) -> int:
        ((count,),) = self.execute("SELECT count(*) FROM execution")
        return int(count)

    def assert_each_row_ran_once(self) -> None:
        assert self.waiting == 0
        odd = self.execute(
            "SELECT pdf.id, count(execution.id) FROM pdf LEFT JOIN execution ON pdf_id = pdf.id "
            "GROUP BY 1 HAVING count(execution.id) <> 1"
        )
        assert not odd, f"rows (id, executions) that did not run once: {odd}"
        ran = {task for (task,) in self.execute("SELECT id FROM execution")}
        assert ran == set(self.published.times)

    def assert_cap_was_kept(self, cap: int) -> None:
        """Outstanding is what was published and has not ended; all clocks are this machine's."""
        ended = dict(self.execute("SELECT id, extract(epoch FROM ended)::float FROM execution"))
        begun = self.published.times
        changes = [(time, 1) for time in begun.values()] + [(ended[task], -1) for task in begun]
        outstanding, peak = 0, 0
        for _, change in sorted(changes):
            outstanding += change
            peak = max(peak, outstanding)
        assert 0 < peak <= cap

    def secrets(self, namespace: str) -> list[dict[str, Any]]:
        return [
            secret(namespace, "app-db", url=self.database),
            secret(namespace, "app-redis", url=self.broker),
        ]

    def __enter__(self) -> Self:
        self.worker.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.worker.kill()
        self.published.close()

    @property
    def _libpq(self) -> str:
        return self.database.replace("postgresql+psycopg://", "postgresql://")


def secret(namespace: str, name: str, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}


def scannerjob(namespace: str, name: str = "pdf-pages", **spec: Any) -> dict[str, Any]:
    """A ScannerJob for a Workload's rows."""
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "database": {"urlSecretRef": {"name": "app-db", "key": "url"}},
            "query": QUERY,
            "interval": "500ms",
            "celery": {
                "broker": {"urlSecretRef": {"name": "app-redis", "key": "url"}},
                "task": "docs.tasks.create_pages",
            },
            **spec,
        },
    }


def condition(cluster: ControlPlane, namespace: str, name: str, kind: str) -> dict[str, Any]:
    """One condition of a ScannerJob, or an empty one while it has none."""
    status = cluster.get("-n", namespace, "scj", name).get("status", {})
    found = [each for each in status.get("conditions", ()) if each["type"] == kind]
    return dict(found[0]) if found else {"status": None, "reason": None, "message": ""}
