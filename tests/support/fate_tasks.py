"""The Celery app of `tests.support.fate_stage`: tasks to which something happens, once.

A victim, whose number ends with 01, waits in its first execution until it is released; then it does
what the worker's environment says.
"""

TASKS = """\
import json, os, time, uuid
from pathlib import Path
from celery import Celery
from celery.exceptions import Ignore
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

app = Celery("fates", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.task_track_started = True
app.conf.update(json.loads(os.environ["CONF"]))
engine = create_engine(os.environ["DATABASE"], poolclass=NullPool)

def begin(task, row):
    values = {"run": str(uuid.uuid4()), "row": row, "task": task.request.id, "now": time.time()}
    with engine.begin() as connection:
        earlier = connection.scalar(
            text("SELECT count(*) FROM execution WHERE pdf_id = :row"), values
        )
        connection.execute(text(
            "INSERT INTO execution (id, task_id, pdf_id, started) VALUES (:run, :task, :row, :now)"
        ), values)
    return earlier

def finish(row):
    with engine.begin() as connection:
        connection.execute(text("UPDATE pdf SET done = 1 WHERE id = :row"), {"row": row})

def wait_for_release():
    while not Path("release").exists():
        time.sleep(0.05)

@app.task(name="fates.block")
def block():
    wait_for_release()

def fail(*_):
    raise ValueError("no such page")

def finish_and_fail(task, row):
    finish(row)
    fail()

def retry(task, row):
    raise task.retry(countdown=1)

def retry_late(task, row):
    raise task.retry(countdown=12)

def ignore(*_):
    raise Ignore()

def finish_and_ignore(task, row):
    finish(row)
    raise Ignore()

def run_out_of_memory(*_):
    raise MemoryError

def nothing(*_):
    pass

def leave_undone(*_):
    return "undone"

@app.task(bind=True, name="fates.work")
def work(self, pdf_id):
    happens = begin(self, pdf_id) == 0 and pdf_id % 100 == 1
    if happens:
        wait_for_release()
        if globals()[os.environ["HAPPENS"]](self, pdf_id) == "undone":
            return
    finish(pdf_id)
"""
