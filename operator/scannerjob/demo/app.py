"""The application of the demo: a Celery app as people have one, with the guard's one line.

The workers load it by Celery's own command line, `celery -A scannerjob.demo.app worker`. Its task
checks nothing, so that a row which is launched twice is worked on twice, and recorded twice.
"""

from __future__ import annotations

import os
import random
import sqlite3
import time
from contextlib import closing
from typing import Any

from celery import Celery
from kombu.transport.sqlalchemy import Transport

from scannerjob.worker import install

# Seconds. As an option in the app's configuration, kombu would pass it on to the database.
Transport.polling_interval = 0.05

app = Celery("demo", broker=os.environ.get("DEMO_BROKER"))
# A worker then has no messages but those it works on: this broker never delivers one again.
app.conf.worker_prefetch_multiplier = 1
app.conf.task_acks_late = True
if guard := os.environ.get("DEMO_GUARD"):
    install(app, guard)

# By the database's clock: what is written under a lock is stamped under it.
NOW = "(julianday('now') - 2440587.5) * 86400.0"


@app.task(bind=True, name="docs.tasks.create_pages_for_pdf", ignore_result=True)  # type: ignore[untyped-decorator]
def create_pages_for_pdf(self: Any, pdf_id: int, title: str) -> None:
    """Work on a PDF for a moment and mark it done; the witness's records are kept beside."""
    worker = self.request.hostname.partition("@")[0]
    with closing(sqlite3.connect(os.environ["DEMO_DATABASE"], timeout=30)) as database:
        started = (
            "INSERT INTO execution (task_id, pdf_id, worker, started) "
            f"VALUES (?, ?, ?, {NOW}) RETURNING id"
        )
        with database:
            run = database.execute(started, (self.request.id, pdf_id, worker))
            number = run.fetchone()[0]
        time.sleep(random.uniform(0.5, 0.9))
        with database:
            database.execute("UPDATE pdf SET pages_created = 1 WHERE id = ?", (pdf_id,))
            database.execute(f"UPDATE execution SET ended = {NOW} WHERE id = ?", (number,))
