"""Starting the heartbeat process beside a worker, and keeping it going."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from scannerjob.worker import records
from scannerjob.worker.journal import Journals

ADDRESS = "SCANNERJOB_GUARD"
"""The environment's variable that tells a worker's processes where its heartbeat process is."""

# In seconds. How long a start may take; and how long one that ended is left alone.
_START = 30.0
_PAUSE = 1.0

_logger = logging.getLogger(__name__)


class Beside:
    """The heartbeat process of this worker, started anew whenever it ends.

    The socket it listens on is the worker's: connections that are made while there is none wait
    for the next. So is its journal, which all processes that the worker forks keep locked. `store`
    is the name of the store at `url`, without a password; `tasks` are the names that it announces.
    """

    def __init__(self, url: str, store: str, tasks: Sequence[str]) -> None:
        self._url = url
        self._store = store
        self._tasks = _in_memory(tasks)
        self._journal: tuple[Path, int] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start(self) -> None:
        """Start it, and say in ADDRESS where it is. Raises OSError if that fails."""
        os.environ.pop(ADDRESS, None)
        # Of no file system, since that may be read-only; who connects must be the same user.
        name = f"scannerjob-guard-{secrets.token_hex(16)}"
        self._listener.bind(f"\0{name}")
        self._listener.listen(1024)
        self._journal = _open_journal(self._store)
        self._start()
        os.environ[ADDRESS] = name
        # Only the worker's own end of the pipe tells that it lives.
        os.register_at_fork(after_in_child=self._let_go)
        threading.Thread(target=self._keep, name="guard-process", daemon=True).start()

    def _start(self) -> None:
        if self._journal and not _is_open(*self._journal):
            self._journal = None
        process = self._popen()
        self._process = process
        assert process.stdin
        told = {
            "url": self._url,
            "lease": records.LEASE,
            "beat": records.BEAT,
            "listener": self._listener.fileno(),
            "tasks": self._tasks,
            "journal": self._journal and (str(self._journal[0]), self._journal[1]),
        }
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.flush()
            self._await_start(process)
        except OSError:
            process.kill()
            process.wait()
            raise

    def _popen(self) -> subprocess.Popen[bytes]:
        journal = [self._journal[1]] if self._journal else []
        return subprocess.Popen(
            # With the very path of this process, so that it finds what is installed here.
            [sys.executable, "-P", "-m", "scannerjob.worker.heartbeat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[self._listener.fileno(), self._tasks, *journal],
            # A terminal's signals are for the worker, which ends its tasks first.
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )

    def _await_start(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout
        with process.stdout as output:
            ready, _, _ = select.select([output], [], [], _START)
            if not ready or not output.read(1):
                raise ChildProcessError("it did not start")

    def _keep(self) -> None:
        while True:
            assert self._process
            self._process.wait()
            _logger.warning("the guard's heartbeat process has ended: it is started anew")
            self._restart()

    def _restart(self) -> None:
        while True:
            time.sleep(_PAUSE)
            try:
                return self._start()
            except OSError as error:
                _logger.warning("the guard's heartbeat process cannot be started: %s", error)

    def _let_go(self) -> None:
        if self._process and self._process.stdin:
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def _in_memory(tasks: Sequence[str]) -> int:
    """A file of these: they may be more than a pipe takes before they are read.

    Written once, since a process that is started anew must not need anything to be written.
    """
    memory = os.memfd_create("scannerjob-guard")
    with os.fdopen(memory, "w", encoding="utf-8", closefd=False) as file:
        json.dump(tasks, file)
    return memory


def _open_journal(store: str) -> tuple[Path, int] | None:
    try:
        return Journals.of(store).create()
    except OSError as error:
        _logger.info("if this worker dies as a whole, its leases will lapse: no journal: %s", error)
        return None


def _is_open(path: Path, descriptor: int) -> bool:
    """Whether it is still that file's: somebody may have closed it, or taken the file away."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
