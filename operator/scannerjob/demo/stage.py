"""Where the demo plays: a directory with databases, Secrets and a ScannerJob file."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from scannerjob.demo.app import NOW, app

CAP = 4
FIRST_ROWS = 40

_SCANNER_JOB = f"""\
apiVersion: scannerjob.dev/v1alpha1
kind: ScannerJob
metadata:
  name: pdf-pages
spec:
  database:
    urlSecretRef: {{name: app-db, key: url}}
  query: SELECT id AS pdf_id, title FROM pdf WHERE NOT pages_created ORDER BY id
  interval: 500ms
  concurrency: {CAP}
  retry: {{attempts: 5, backoff: 500ms}}
  celery:
    broker:
      urlSecretRef: {{name: app-broker, key: url}}
    guard:
      urlSecretRef: {{name: app-guard, key: url}}
    task: docs.tasks.create_pages_for_pdf
"""
_APPLICATION = """
PRAGMA journal_mode = WAL;
CREATE TABLE pdf (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    pages_created INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE execution (
    id INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL,
    pdf_id INTEGER NOT NULL,
    worker TEXT NOT NULL,
    started REAL NOT NULL,
    ended REAL
);
"""
# kombu keeps messages, but not when they came: the time in its table is that of their delivery.
_ARRIVALS = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE arrival (message_id INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE TRIGGER note_arrival AFTER INSERT ON kombu_message
BEGIN INSERT INTO arrival VALUES (new.id, {NOW}); END;
"""


@dataclass(frozen=True)
class Stage:
    """The files of one demo, all in `folder`."""

    folder: Path

    @property
    def application(self) -> Path:
        """The application's database: the PDFs, and what the tasks recorded."""
        return self.folder / "app.sqlite"

    @property
    def broker(self) -> Path:
        """The broker's database."""
        return self.folder / "broker.sqlite"

    @property
    def broker_url(self) -> str:
        """The broker as Celery names it."""
        return f"sqla+sqlite:///{self.broker}"

    @property
    def guard_url(self) -> str:
        """Where the guard of the workers keeps its records."""
        return f"sqlite:///{self.folder / 'guard.sqlite'}"

    @property
    def ledger(self) -> Path:
        """The scanner's ledger."""
        return self.folder / "scannerjob-state.sqlite"

    @property
    def secrets(self) -> Path:
        """URLs, laid out as mounted Secrets."""
        return self.folder / "secrets"

    @property
    def scanner_job(self) -> Path:
        """The ScannerJob, as one would apply it to a cluster."""
        return self.folder / "pdf-pages.yaml"

    def log(self, name: str) -> Path:
        """The log of one of the processes."""
        return self.folder / f"{name}.log"

    def set_up(self) -> None:
        """Lay everything out, with the first PDFs to do."""
        with closing(sqlite3.connect(self.application)) as database:
            database.executescript(_APPLICATION)
        _create_queue_tables(self.broker_url)
        with closing(sqlite3.connect(self.broker)) as database:
            database.executescript(_ARRIVALS)
        self._put_secret("app-db", f"sqlite:///{self.application}")
        self._put_secret("app-broker", self.broker_url)
        self._put_secret("app-guard", self.guard_url)
        self.scanner_job.write_text(_SCANNER_JOB)
        self.add_rows(FIRST_ROWS)

    def add_rows(self, count: int) -> None:
        """Insert PDFs that need pages."""
        with closing(sqlite3.connect(self.application, timeout=30)) as database, database:
            first = 1 + database.execute("SELECT coalesce(max(id), 0) FROM pdf").fetchone()[0]
            titles = [(f"Report no. {number}",) for number in range(first, first + count)]
            database.executemany("INSERT INTO pdf (title) VALUES (?)", titles)

    def _put_secret(self, name: str, url: str) -> None:
        folder = self.secrets / name
        folder.mkdir(parents=True)
        (folder / "url").write_text(url)


def _create_queue_tables(broker_url: str) -> None:
    with app.connection_for_write(broker_url) as connection:
        connection.SimpleQueue("celery").close()
