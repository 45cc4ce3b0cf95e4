"""The work as each system has it written; SYSTEM says which one. Run by workers, in any folder.

    python tasks.py    submits every row that is not done, each interval, as people use beat

The task records its executions in a database that nothing in the comparison kills. It does not
look whether its row is done, so that whatever is run twice is seen twice.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from uuid import uuid4

import psycopg
import redis
from celery import Celery

SYSTEM, LOCKS, LOCK = os.environ["SYSTEM"], os.environ["LOCKS"], int(os.environ["LOCK"])

app = Celery("compare", broker=os.environ["BROKER"])
app.conf.worker_prefetch_multiplier = 1
app.conf.task_ignore_result = True
app.conf.task_acks_late = os.environ["LATE"] == "yes"
app.conf.broker_connection_retry_on_startup = True
if app.conf.broker_url.startswith("redis"):
    app.conf.broker_transport_options = {"visibility_timeout": float(os.environ["VISIBILITY"])}


@cache
def database() -> "psycopg.Connection[tuple[Any, ...]]":
    """This process's connection."""
    return psycopg.connect(os.environ["DATABASE"].replace("+psycopg", ""), autocommit=True)


@contextmanager
def lock(row: int) -> Iterator[bool]:
    """The lock that people write by hand; True if it is ours, or if none is asked for."""
    if not LOCK:
        yield True
        return
    client = redis.Redis.from_url(LOCKS)
    if not client.set(f"lock:{row}", "1", nx=True, ex=LOCK):
        yield False
        return
    try:
        yield True
    finally:
        client.delete(f"lock:{row}")


def work(task: Any, pdf_id: int) -> None:
    """The task."""
    with lock(pdf_id) as ours:
        if ours:
            execute(task.request, pdf_id)


def execute(request: Any, row: int) -> None:
    """The work itself, and the record of it."""
    execution = str(uuid4())
    worker = f"{request.hostname}/{os.getpid()}"
    database().execute(
        "INSERT INTO execution (id, task_id, pdf_id, worker, started) VALUES (%s, %s, %s, %s, %s)",
        (execution, request.id, row, worker, time.time()),
    )
    time.sleep(float(os.environ["WORK"]))
    with database().transaction():
        database().execute("UPDATE pdf SET done = 1 WHERE id = %s", (row,))
        database().execute(
            "UPDATE execution SET ended = %s WHERE id = %s", (time.time(), execution)
        )


def options() -> dict[str, Any]:
    """What the system has its users write where the task is declared."""
    if SYSTEM == "celery-once":
        from celery_once import QueueOnce

        app.conf.ONCE = {"backend": "celery_once.backends.Redis", "settings": {"url": LOCKS}}
        return {"base": QueueOnce, "once": {"graceful": True}}
    if SYSTEM == "celery-singleton":
        from celery_singleton import Singleton

        app.conf.singleton_backend_url = LOCKS
        return {"base": Singleton}
    if SYSTEM == "ScannerJob":
        from scannerjob.worker import install

        install(app, LOCKS)
    return {}


submitted = app.task(name="site.work", bind=True, **options())(work)


def feed(interval: float) -> None:
    """Submit what is not done, for ever."""
    print("scanning", flush=True)
    tick = time.monotonic()
    while True:
        rows = database().execute("SELECT id FROM pdf WHERE done = 0 ORDER BY id").fetchall()
        try:
            for (row,) in rows:
                submitted.apply_async(kwargs={"pdf_id": row}, retry=False)
        except Exception as error:  # noqa: BLE001 - beat goes on as well, whatever the broker says
            print(f"not submitted: {error!r}", flush=True)
        tick += interval
        time.sleep(max(0.0, tick - time.monotonic()))


if __name__ == "__main__":
    feed(float(os.environ["INTERVAL"]))
