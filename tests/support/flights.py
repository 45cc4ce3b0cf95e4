"""Programs, threads and looks from outside: whoever else wants the lock of a test, named `item`."""

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import redis

from scannerjob.worker import BusyError, single_flight
from tests.support.processes import Process
from tests.support.waiting import eventually

R = TypeVar("R")

KEY = "scannerjob:lock:item"

REPOSITORY = Path(__file__).resolve().parents[2]

_HOLDER = """\
import os, time
from scannerjob.worker import single_flight

with single_flight("item", url={url!r}, lease={lease}) as lock:
    print("holds", flush=True)
    while not os.path.exists({go_on!r}):
        time.sleep(0.02)
    print("still held" if lock.held() else "lost", flush=True)
print("ended", flush=True)
"""

# What is inside at the same time is counted by Redis itself, in one step each.
_HAMMER = """\
import redis
from scannerjob.worker import single_flight

counts = redis.Redis.from_url({url!r})

@single_flight("item({{0}})", url={url!r}, wait=None)
def work(item):
    if counts.incr("inside") != 1:
        counts.incr("overlaps")
    counts.incr("executions")
    counts.decr("inside")

for _ in range({times}):
    work(1)
"""


def environment(*libraries: Path) -> dict[str, str]:
    """For a process that is to find this repository's code, and these libraries."""
    folders = map(str, [REPOSITORY / "operator", *libraries])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


class Holder:
    """A process that holds the lock `item` until it is told to go on."""

    def __init__(self, folder: Path, url: str, *, lease: float) -> None:
        self._go_on = folder / "go-on"
        program = _HOLDER.format(url=url, lease=lease, go_on=str(self._go_on))
        self.process = program_of(folder, "holder", program)

    def start(self) -> "Holder":
        """Return when it holds the lock."""
        self.process.start()
        self.says("holds")
        return self

    def go_on(self) -> None:
        self._go_on.touch()

    def says(self, line: str) -> None:
        eventually(lambda: line in self.process.log().splitlines(), 60, f"the holder says {line!r}")


def hammer(folder: Path, url: str, number: int, *, times: int) -> Process:
    """A process that takes the same lock so many times, one after the other."""
    return program_of(folder, f"hammer-{number}", _HAMMER.format(url=url, times=times))


def program_of(folder: Path, name: str, program: str, *libraries: Path) -> Process:
    """A process that runs this program; not started yet."""
    file = folder / f"{name}.py"
    file.write_text(program)
    log = folder / f"{name}.log"
    return Process([sys.executable, file], log=log, env=environment(*libraries), cwd=folder)


def is_busy(url: str) -> bool:
    """Whether it is, for a thread that does not hold it."""
    return not elsewhere(enters, url)


def enters(url: str, wait: float = 0.0) -> bool:
    """Whether the lock can be had."""
    try:
        with single_flight("item", url=url, wait=wait):
            return True
    except BusyError:
        return False


def elsewhere(function: Callable[..., R], *args: Any) -> R:
    """Call it in another thread, for which no lock of this one is its own."""
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(function(*args))
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            outcome.set_exception(error)

    threading.Thread(target=run).start()
    return outcome.result(60)


def await_renewal(client: redis.Redis, key: str = KEY) -> None:
    """Return once a lease has less than two thirds left, and then more again."""
    lowest = [float("inf")]

    def renewed() -> bool:
        left = client.pttl(key)
        assert isinstance(left, int)
        assert left > 0
        lowest[0] = min(lowest[0], left)
        return left > lowest[0]

    eventually(renewed, 60, "the lease is renewed", interval=0.02)
