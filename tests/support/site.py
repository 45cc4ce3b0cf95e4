"""A site to run ScannerJobs on: rows in a real database, tasks that keep records, `scannerjob run`.

The records of the tasks and of the broker are the witnesses: what the scanner says of itself proves
nothing.
"""

import asyncio
import base64
import json
import re
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import redis
import yaml
from sqlalchemy import create_engine, text

from scannerjob.demo.judge import Execution, History, Launch
from scannerjob.model.spec import API_VERSION, KIND
from scannerjob.ports import Ref, Snapshot
from scannerjob.stores.sql import SqlStore
from tests.support.celery_worker import CeleryWorker
from tests.support.processes import Process

_TABLES = (
    "CREATE TABLE pdf (id INTEGER PRIMARY KEY, done INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE execution (id VARCHAR(36) PRIMARY KEY, task_id VARCHAR(36), pdf_id INTEGER, "
    "worker VARCHAR(100), started DOUBLE PRECISION, ended DOUBLE PRECISION)",
)
# A naive task: it checks nothing, so that whatever is launched twice is seen twice. Only its own
# records outlast a database that is away.
_TASKS = """\
import os, time, uuid
from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.pool import NullPool

app = Celery("site", broker=os.environ["BROKER"], backend=os.environ.get("RESULTS"))
app.conf.worker_prefetch_multiplier = 1
app.conf.task_acks_late = bool(os.environ.get("LATE"))
if guard := os.environ.get("GUARD"):
    from scannerjob.worker import install
    install(app, guard)
engine = create_engine(os.environ["DATABASE"], poolclass=NullPool)

def record(*statements):
    while True:
        try:
            with engine.begin() as connection:
                for statement, values in statements:
                    connection.execute(text(statement), {"now": time.time(), **values})
            return
        except IntegrityError:
            return
        except OperationalError:
            time.sleep(0.2)

@app.task(bind=True, name="site.work")
def work(self, pdf_id):
    run = str(uuid.uuid4())
    record((
        "INSERT INTO execution (id, task_id, pdf_id, worker, started) "
        "VALUES (:run, :task, :pdf, :worker, :now)",
        {"run": run, "task": self.request.id, "pdf": pdf_id, "worker": self.request.hostname},
    ))
    time.sleep(float(os.environ["WORK"]))
    record(
        ("UPDATE pdf SET done = 1 WHERE id = :pdf", {"pdf": pdf_id}),
        ("UPDATE execution SET ended = :now WHERE id = :run", {"run": run}),
    )
"""
QUERY = "SELECT id AS pdf_id FROM pdf WHERE done = 0 ORDER BY id"


class Site:
    """One application: a database with rows to do, and what it takes to have them done."""

    def __init__(self, folder: Path, database_url: str, tasks: str = _TASKS) -> None:
        self.folder = folder
        self.database_url = database_url
        self.secrets = folder / "secrets"
        self.state = f"sqlite:///{folder / 'state.sqlite'}"
        self._engine = create_engine(database_url, pool_pre_ping=True)
        self._stores: dict[str, SqlStore] = {}
        self._runner = asyncio.Runner()
        self._starts = 0
        with self._engine.begin() as connection:
            for table in _TABLES:
                connection.execute(text(table))
        (folder / "tasks.py").write_text(tasks)
        self.put_secret("app-db", database_url)

    def put_secret(self, name: str, url: str) -> None:
        """Create a Secret with the key `url`, or change it."""
        (self.secrets / name).mkdir(parents=True, exist_ok=True)
        (self.secrets / name / "url").write_text(url + "\n")

    def add_rows(self, first: int, last: int) -> None:
        """Insert rows that need work."""
        with self._engine.begin() as connection:
            for row in range(first, last + 1):
                connection.execute(text("INSERT INTO pdf (id) VALUES (:id)"), {"id": row})

    def execute(self, statement: str) -> None:
        """Change something in the application's database."""
        with self._engine.begin() as connection:
            connection.execute(text(statement))

    def scanner_job(self, name: str = "pages", **changes: Any) -> Path:
        """A file with a ScannerJob; `changes` of its spec, with __ between the levels."""
        spec: dict[str, Any] = {
            "database": {"urlSecretRef": {"name": "app-db", "key": "url"}},
            "query": QUERY,
            "interval": "500ms",
            "concurrency": 3,
            "retry": {"backoff": "500ms"},
            "celery": {
                "broker": {"urlSecretRef": {"name": "app-broker", "key": "url"}},
                "task": "site.work",
            },
        }
        for path, value in changes.items():
            *parents, field = path.split("__")
            part = spec
            for parent in parents:
                part = part[parent]
            part[field] = value
        document = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}}
        file = self.folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump({**document, "spec": spec}))
        return file

    def scanner(self, *files: Path, state: str | None = None) -> Process:
        """`scannerjob run` with a log of its own, not yet started."""
        self._starts += 1
        arguments = [argument for file in files for argument in ("-f", str(file))]
        return Process(
            [
                *(sys.executable, "-m", "scannerjob", "run", *arguments),
                *("--secrets", str(self.secrets), "--state", state or self.state),
            ],
            log=self.folder / f"scanner-{self._starts}.log",
            cwd=self.folder,
        )

    def logs(self) -> str:
        """Everything that all scanners wrote."""
        return "".join(file.read_text() for file in sorted(self.folder.glob("scanner-*.log")))

    def worker(
        self,
        broker: str,
        *,
        work: float = 0.1,
        results: str | None = None,
        guard: str | None = None,
        concurrency: int = 2,
        queues: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> CeleryWorker:
        """A Celery worker for the tasks, not yet started."""
        env = {"BROKER": broker, "DATABASE": self.database_url, "WORK": str(work), **(env or {})}
        env |= {"RESULTS": results} if results else {}
        env |= {"GUARD": guard} if guard else {}
        return CeleryWorker(
            self.folder / "tasks.py", env=env, concurrency=concurrency, queues=queues
        )

    def done(self) -> list[int]:
        """The rows that are done."""
        return [row for (row,) in self._select("SELECT id FROM pdf WHERE done = 1 ORDER BY id")]

    def executions(self) -> list[Execution]:
        """What the tasks recorded."""
        query = "SELECT task_id, pdf_id, worker, started, ended FROM execution ORDER BY started"
        return [Execution(*record) for record in self._select(query)]

    def executed(self) -> list[int]:
        """The row of each execution, in order: a row twice if it was executed twice."""
        return sorted(run.row for run in self.executions())

    def history(self, launches: Sequence[Launch], cap: int) -> History:
        """What happened here, for the judge."""
        rows = self._select("SELECT id, done FROM pdf")
        return History(
            cap=cap,
            rows=frozenset(row for row, _ in rows),
            done=frozenset(row for row, done in rows if done),
            launches=launches,
            executions=self.executions(),
            kills=(),
            seconds=0.0,
        )

    def snapshot(self, name: str = "pages", state: str | None = None) -> Snapshot:
        """The ScannerJob as it stands in the scanner's state."""
        url, ref = state or self.state, Ref("default", name)
        if url not in self._stores:
            self._stores[url] = SqlStore(url)
        snapshot = self._runner.run(self._stores[url].read(ref))
        assert snapshot, f"{ref} is not in the state"
        return snapshot

    def condition(self, kind: str, name: str = "pages") -> Mapping[str, str]:
        """One condition of a ScannerJob, or nothing if it isn't there yet."""
        conditions = self.snapshot(name).status.get("conditions", [])
        return next((each for each in conditions if each["type"] == kind), {})

    def items(self, name: str = "pages") -> list[dict[str, Any]]:
        """The ledger's items of a ScannerJob."""
        return list(self.snapshot(name).status.get("items", []))

    def close(self) -> None:
        """Close the connections to the database and to the states."""
        self._engine.dispose()
        for store in self._stores.values():
            self._runner.run(store.close())
        self._runner.close()

    def _select(self, query: str) -> list[tuple[Any, ...]]:
        with self._engine.connect() as connection:
            return [tuple(row) for row in connection.execute(text(query))]


class PublishWitness:
    """Redis' own report of every message that is put into a queue, by MONITOR."""

    def __init__(self, url: str) -> None:
        self.launches: list[Launch] = []
        # For as long as nothing is published there is nothing to read.
        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._monitor = self._client.monitor()  # type: ignore[no-untyped-call]
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._monitor.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._client.set("no-more", 1)
        self._thread.join(30)
        self._monitor.__exit__(None, None, None)
        self._client.close()

    def _listen(self) -> None:
        for event in self._monitor.listen():
            if event["command"].startswith("LPUSH celery "):
                self.launches.append(_launch(event["command"], event["time"]))
            if event["command"].startswith("SET no-more"):
                return


def _launch(command: str, at: float) -> Launch:
    task_id, body = re.search(r'"id": "([^"]+)"', command), re.search(r'"body": "([^"]+)"', command)
    assert task_id
    assert body
    _, arguments, _ = json.loads(base64.b64decode(body[1]))
    return Launch(task_id[1], arguments["pdf_id"], published=at)
