"""A campaign: trials by the hundred, several stages at once, each verdict appended to a record."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.harness.stage import Stage


@contextmanager
def stage() -> Iterator[Stage]:
    """A stage in a folder of its own, which stays where something is kept in it."""
    folder = Path(tempfile.mkdtemp(prefix="proof-"))
    with Stage(folder) as opened:
        yield opened


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
    processes = [subprocess.Popen(command) for command in commands]
    try:
        return max(process.wait() for process in processes)
    finally:
        for process in processes:
            process.terminate()
