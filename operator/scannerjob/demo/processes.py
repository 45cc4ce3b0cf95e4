"""The processes of the demo: two Celery workers and the scanner, each with a log of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from scannerjob.demo.stage import Stage

# A worker on this broker takes longer for its orderly end, and has nothing left to do.
_PATIENCE = 2.0


class Process:
    """A child in a process group of its own, so that Ctrl-C reaches only the demo itself."""

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, env: Mapping[str, str]
    ) -> None:
        self.name = name
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                # A worker that is killed leaves temporary files behind: here they are removed.
                env={**os.environ, "TMPDIR": str(log.parent), **env},
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def log_says(self, words: str) -> bool:
        """Whether it wrote this so far."""
        return words in self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to it and all its descendants."""
        for pid in _descendants(self._process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        # Those who have lost their parent are in its group all the same.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL for it and its descendants; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM, for itself alone: it looks after its children."""
        if self.running:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        """Give it this long to end, then kill what is left of it."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()


def _descendants(pid: int) -> set[int]:
    """All that came of a process: the guard's heartbeats have a process group of their own."""
    found, parents = {pid}, _parents()
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def _parents() -> dict[int, int]:
    """The parent of each process there is."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            # Its name, in brackets, may hold anything; state and parent follow.
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
    return parents


def start_worker(stage: Stage, name: str) -> Process:
    """A Celery worker with two processes, by Celery's own command line."""
    arguments = [
        *("celery", "-A", "scannerjob.demo.app", "worker", "--hostname", f"{name}@demo"),
        *("--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]
    env = {
        "DEMO_BROKER": stage.broker_url,
        "DEMO_DATABASE": str(stage.application),
        "DEMO_GUARD": stage.guard_url,
    }
    return Process(name, arguments, stage.log(name), env)


def start_scanner(stage: Stage) -> Process:
    """`scannerjob run`, as one would type it."""
    arguments = [
        *("scannerjob", "run", "-f", str(stage.scanner_job), "--secrets", str(stage.secrets)),
        *("--state", f"sqlite:///{stage.ledger}"),
    ]
    return Process("scanner", arguments, stage.log("scanner"), {})


def stop_all(processes: Sequence[Process]) -> None:
    """Stop these, all at the same time; whatever has not ended after some seconds is killed."""
    deadline = time.monotonic() + _PATIENCE
    for process in processes:
        process.ask_to_stop()
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
