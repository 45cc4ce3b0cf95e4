"""Each program of docs/single-flight.md runs, and does what the guide says of it."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.flights import REPOSITORY, program_of
from tests.support.rivals import rivals
from tests.support.servers import RedisServer

GUIDE = (REPOSITORY / "docs" / "single-flight.md").read_text()

# What stands around a program of the guide: the work it does, and how a call looks from outside.
FRAME = """\
import threading
import redis

locks = redis.Redis.from_url({locks!r}, decode_responses=True)
began, go_on, done = threading.Semaphore(0), threading.Semaphore(0), []

def create_pages(item):
    began.release()
    go_on.acquire()
    done.append(item)

def build_index():
    create_pages("index")

def publish_index():
    done.append("published")

def begin(function, *args, **kwargs):
    thread = threading.Thread(target=function, args=args, kwargs=kwargs, daemon=True)
    thread.start()
    began.acquire()
    return thread

def end(*threads):
    for _ in threads:
        go_on.release()
    for thread in threads:
        thread.join()

def refuses(kind, call, *args):
    try:
        call(*args)
    except kind:
        return True

"""

Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, redis_server: RedisServer, redis_url: str) -> Iterator[Run]:
    """Runs a program of the guide, and then some lines that try it."""
    locks = redis_server.database_url(3)

    def run(block: str, trial: str, *libraries: Path) -> None:
        program = "\n".join([FRAME.format(locks=locks), block, trial])
        program = program.replace("redis://redis.example/3", locks)
        program = program.replace("redis://redis.example/0", redis_url)
        process = program_of(tmp_path, "guide", program, *libraries)
        processes.callback(process.kill)
        assert process.start().wait(60) == 0, process.log()

    with ExitStack() as processes:
        yield run


def blocks() -> dict[str, list[str]]:
    """The programs under each heading."""
    found = re.findall(r"^#+ ([^\n]+)$|^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
    headed, heading = [], ""
    for title, program in found:
        heading = title or heading
        if program:
            headed.append((heading, program))
    return {
        heading: [program for _, program in programs]
        for heading, programs in groupby(headed, key=lambda pair: pair[0])
    }


BLOCKS = blocks()

# One that runs, a second one that is skipped, another one that is not, and then it is free again.
IN_TURN = """
first = begin(process_item, 5)
assert locks.keys() == ["scannerjob:lock:process_item(5)"]
assert process_item(5) is None
other = begin(process_item, 6)
end(first, other)
assert sorted(done) == [5, 6]
go_on.release()
process_item(5)
assert sorted(done) == [5, 5, 6]
"""


def test_each_program_of_the_guide_is_tried() -> None:
    assert {heading: len(programs) for heading, programs in BLOCKS.items()} == {
        "One at a time: `single_flight`": 1,
        "In Celery": 1,
        "In Django and anywhere else": 1,
        "Which Redis": 1,
        "From a hand-written lock": 2,
        "From celery-once": 2,
        "From celery-singleton": 2,
    }


@pytest.mark.parametrize(
    "block",
    [
        BLOCKS["One at a time: `single_flight`"][0],
        BLOCKS["In Celery"][0],
        BLOCKS["Which Redis"][0],
        BLOCKS["From a hand-written lock"][1],
        BLOCKS["From celery-once"][1],
        BLOCKS["From celery-singleton"][1],
    ],
)
def test_there_is_one_at_a_time(run: Run, block: str) -> None:
    run(block, IN_TURN)


def test_tasks_wait_or_raise(run: Run) -> None:
    trial = """
first = begin(report, "May")
second = threading.Thread(target=report, args=["May"], daemon=True)
second.start()
end(first)
began.acquire()
end(second)
first = begin(import_file, "a")
assert refuses(BusyError, import_file, "a")
end(first)
assert done == ["May", "May", "a"]
"""
    run(BLOCKS["In Celery"][0], trial)


def test_blocks_and_methods(run: Run) -> None:
    trial = """
from scannerjob.worker import BusyError
first = begin(reindex)
assert locks.exists("scannerjob:lock:reindex")
assert refuses(BusyError, reindex)
end(first)
assert done == ["index", "published"]

importer = Importer()
importer.shop = "north"
first = begin(importer.run, "Monday")
assert locks.exists("scannerjob:lock:import(north, Monday)")
locks.flushdb()
end(first)
assert done == ["index", "published", "index"]
"""
    run(BLOCKS["In Django and anywhere else"][0], trial)


def test_a_hand_written_lock_lets_two_run(run: Run) -> None:
    """It has expired under a slow one, which then deletes the next one's: a third one begins."""
    trial = """
first = begin(process_item, 5)
assert refuses(TypeError, lambda: process_item(item_id=5))
locks.delete("process_item(5)")    # 600 s have passed
second = begin(process_item, 5)
go_on.release()
while locks.exists("process_item(5)"):
    pass
third = begin(process_item, 5)
end(second, third)
"""
    run(BLOCKS["From a hand-written lock"][0], trial)


def test_celery_once_deletes_the_lock_of_another(run: Run) -> None:
    trial = """
from celery.exceptions import OperationalError
assert process_item.delay(5).id
assert process_item.delay(5).state == "REJECTED"
assert len(locks.keys()) == 1
process_item.after_return("SUCCESS", None, "sent by name", [5], {}, None)
assert locks.keys() == []

lost = Celery("lost", broker="redis://127.0.0.1:1/0", set_as_current=False)
lost.conf.ONCE = app.conf.ONCE
task = lost.task(base=QueueOnce, shared=False, name="lost")(process_item.run)
assert refuses(OperationalError, lambda: task.apply_async([5], retry=False))
assert len(locks.keys()) == 1
"""
    run(BLOCKS["From celery-once"][0], trial, rivals())


def test_celery_singleton_tells_by_how_arguments_are_passed(run: Run) -> None:
    trial = """
first = process_item.delay(5)
assert process_item.delay(5).id == process_item.delay(item_id=5).id == first.id
process_item.on_success(None, "sent by name", [5], {})
assert locks.keys() == []

process_item.unique_on = None
process_item.lock_expiry = None
assert process_item.delay(5).id != process_item.delay(item_id=5).id
assert [locks.ttl(key) for key in locks.keys()] == [-1, -1]
"""
    run(BLOCKS["From celery-singleton"][0], trial, rivals())
