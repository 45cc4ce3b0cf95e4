"""A process's wall clock that a test can set, hours forwards or back, while it runs.

What measures how long something takes (CLOCK_BOOTTIME, CLOCK_MONOTONIC) is left alone, as by a
person or an NTP daemon who sets a machine's time.
"""

from __future__ import annotations

import datetime as standard
import importlib
import mmap
import struct
import time
from pathlib import Path

_SECONDS = struct.Struct("d")
# They read the wall clock by themselves.
_READERS = (
    "scannerjob.clock",
    "scannerjob.controller.lease",
    "scannerjob.targets.celery.messages",
    "scannerjob.targets.job.target",
    "scannerjob.targets.job.view",
)


def set_offset(file: Path, seconds: float) -> None:
    """Let the processes that follow this file be so many seconds ahead of this machine."""
    if file.exists():
        with file.open("r+b") as opened, mmap.mmap(opened.fileno(), _SECONDS.size) as memory:
            _SECONDS.pack_into(memory, 0, seconds)
    else:
        file.write_bytes(_SECONDS.pack(seconds))


def follow(file: str) -> None:
    """Have this process's wall clock follow a file; called before its command runs."""
    with Path(file).open("rb") as opened:
        memory = mmap.mmap(opened.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)
    of_machine = time.time

    def now() -> float:
        (offset,) = _SECONDS.unpack_from(memory)
        return of_machine() + float(offset)

    class Shifted(standard.datetime):
        @classmethod
        def now(cls, tz: standard.tzinfo | None = None) -> standard.datetime:  # type: ignore[override]
            return standard.datetime.fromtimestamp(now(), tz)

    time.time = now
    for name in _READERS:
        module = importlib.import_module(name)
        assert vars(module)["datetime"] is standard.datetime
        module.datetime = Shifted  # type: ignore[attr-defined]
