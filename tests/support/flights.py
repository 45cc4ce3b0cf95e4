"""Processes that use single_flight as any program does, and print what they come to."""

import os
import sys
from pathlib import Path

from tests.support.processes import Process
from tests.support.waiting import eventually

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
