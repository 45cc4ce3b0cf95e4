"""A campaign: trials by the hundred, several stages at once, each verdict appended to a record."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.harness.stage import Stage
from tests.harness.trial import KEPT


@contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a folder of its own, which stays where something is kept in it.

    SIGTERM ends it as Ctrl-C does: nothing that was started outlives it.
    """
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="proof-"))
    with Stage(folder) as opened:
        yield opened
    if not any(folder.glob(f"*/{KEPT}")):
        shutil.rmtree(folder, ignore_errors=True)


def progress(text: str) -> None:
    """One line for each trial."""
    now = time.strftime("%H:%M:%S")
    print(f"{now} {text}", flush=True)


def side_by_side(module: str, arguments: Sequence[str], parts: int) -> int:
    """Run a command so many times at once, each told which part is its own; the worst exit code."""
    commands = [
        [sys.executable, "-m", module, *arguments, "--part", f"{part}/{parts}"]
        for part in range(parts)
    ]
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    processes = [subprocess.Popen(command) for command in commands]
    try:
        return max(process.wait() for process in processes)
    finally:
        for process in processes:
            process.terminate()
