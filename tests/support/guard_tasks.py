"""The Celery app of `tests.support.guard_stage`: tasks that write a journal of what they do."""

TASKS = """\
import ctypes, json, os, threading, time
from pathlib import Path
from celery import Celery, Task, signals
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from scannerjob.worker import LeaseLostError, fenced, install, records

records.LEASE, records.BEAT, records.THREAD_LEASE = json.loads(os.environ["LEASES"])
app = Celery("guarded", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
app.conf.update(json.loads(os.environ["CONF"]))

def note(what, task, **more):
    entry = {"what": what, "id": task.request.id, "task": task.name, "pid": os.getpid(), **more}
    with open("journal", "a") as journal:
        journal.write(json.dumps({**entry, "retries": task.request.retries}) + "\\n")

def wait_for(name):
    while not Path(name).exists():
        time.sleep(0.02)

@app.task(bind=True)
def work(self):
    note("begin", self)
    wait_for("release")
    note("end", self)
    return "worked"

install(app, os.environ["GUARD"], **json.loads(os.environ["INSTALL"]))
# What comes after this is not waited for by Celery, nor by the guard.
app.finalize()
install(app, os.environ["GUARD"], **json.loads(os.environ["INSTALL"]))

class Told(Task):
    def before_start(self, task_id, args, kwargs):
        note("before_start", self)
    def on_success(self, *_):
        note("on_success", self)
    def on_failure(self, *_):
        note("on_failure", self)

@signals.task_prerun.connect
def prerun(task, **_):
    note("prerun", task)

@signals.task_postrun.connect
def postrun(task, state, **_):
    note("postrun", task, state=state)

@app.task(bind=True, base=Told)
def told(self, fails=False):
    note("begin", self)
    if fails:
        raise ValueError("no such page")

@app.task
def not_found():
    raise ValueError("no file " + os.fsdecode(bytes([255])))

class Fails(Task):
    def before_start(self, task_id, args, kwargs):
        raise KeyError("no such book")

@app.task(bind=True, base=Fails)
def never_begun(self):
    note("begin", self)

@app.task(bind=True)
def retry(self, countdown=0):
    note("begin", self)
    if self.request.retries < 2:
        raise self.retry(countdown=countdown)

@app.task(bind=True)
def replace(self, chained=False):
    note("begin", self)
    sig = follow.si() if not chained else (follow.si() | follow.si())
    raise self.replace(sig)

@app.task(bind=True)
def follow(self):
    note("begin", self)

@app.task(bind=True)
def ignore(self):
    note("begin", self)
    raise Ignore()

@app.task(bind=True)
def reject_once(self, requeue=True):
    note("begin", self)
    if not Path("rejected").exists():
        Path("rejected").touch()
        raise Reject("not now", requeue=requeue)

@app.task(bind=True)
def run_out_of_memory(self):
    note("begin", self)
    raise MemoryError

@app.task(bind=True)
def sleep_in_c(self, seconds):
    note("begin", self)
    ctypes.PyDLL(None).sleep(seconds)  # holds the GIL
    note("end", self)

@app.task(bind=True)
def fork(self):
    child = os.fork()
    if child:
        note("fork", self, child=child)
    wait_for("never")

@app.task(bind=True)
def commit(self):
    note("begin", self)
    wait_for("release")
    try:
        with fenced():
            note("commit", self)
    except LeaseLostError as error:
        note("lost", self, error=str(error))
"""
