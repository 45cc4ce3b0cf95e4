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
from typing import Annotated, Any

import typer

from tests.harness.record import Record
from tests.harness.setting import Setting
from tests.harness.stage import Stage
from tests.harness.trial import KEPT, Verdict

# Options of each campaign's command.
Minutes = Annotated[float, typer.Option(help="Begin no trial after that.")]
Stages = Annotated[int, typer.Option(help="How many trials run at once.")]
Part = Annotated[str, typer.Option(hidden=True)]
RecordFile = Annotated[Path, typer.Option(help="The file that verdicts are appended to.")]


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


def note(
    record: Record,
    kind: str,
    seed: int | str,
    setting: Setting,
    verdict: Verdict,
    name: str,
    **more: Any,
) -> None:
    """Append a verdict to the record, and tell of it; of one that is broken, what was wrong."""
    seen = {"rows": verdict.done, "launches": verdict.launches, "seconds": round(verdict.seconds)}
    record.append(kind, seed, kept=verdict.kept, setting=str(setting), **more, **seen)
    told = ", ".join(f"{count} {what}" for what, count in seen.items())
    progress(f"{name}: {told}: {'kept' if verdict.kept else 'BROKEN'}")
    if not verdict.kept:
        progress(f"{verdict}\n{verdict.notes['folder']}")


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
