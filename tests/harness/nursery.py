"""Processes of `scannerjob` that start in a moment, so that they can be killed by the thousand.

The start of an interpreter with all that an operator imports takes two seconds of a processor. The
nursery is one that has imported it and done nothing else: what it forks goes on as a process of its
own, in its own session and with its own log, and runs the command line that it is given. Each dies
with the nursery, and that with whoever opened it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

# What is done in a new process before its command runs: functions of modules, and their arguments.
Preparation = tuple[str, Mapping[str, Any]]

_PR_SET_PDEATHSIG = 1
_IMPORTED = (
    "scannerjob.cli.commands",
    "scannerjob.controller.process",
    "scannerjob.standalone",
    "scannerjob.connect",
    "scannerjob.targets.celery",
    "scannerjob.targets.celery.target",
    "scannerjob.targets.celery.publisher",
    "scannerjob.targets.celery.amqp_broker",
    "scannerjob.targets.celery.redis_broker",
    "scannerjob.targets.celery.guard",
    "scannerjob.targets.celery.outcomes",
    "scannerjob.stores.sql",
    "scannerjob.sources.postgresql",
    "kombu.transport.redis",
    "kombu.transport.pyamqp",
    "psycopg",
    "redis",
    "sqlglot",
    "sqlalchemy.dialects.postgresql.psycopg",
    "sqlalchemy.dialects.sqlite",
    "tests.crash.points",
)


class Child:
    """A process that the nursery has forked. Signals go to it alone: it has no children."""

    def __init__(self, pid: int, log: Path) -> None:
        self.pid = pid
        self.log_file = log
        self.began = time.time()
        try:
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # it has ended already
            self._handle = None

    @property
    def running(self) -> bool:
        return not self.wait(0)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after so many seconds at most."""
        if self._handle is None:
            return True
        if not select.select([self._handle], [], [], seconds)[0]:
            return False
        os.close(self._handle)
        self._handle = None
        return True

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self._handle is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> bool:
        """SIGKILL; returns when it is gone, and whether it was there until then."""
        there = self.running
        self.send(signal.SIGKILL)
        self.wait(30)
        return there

    def limit_file_size(self, size: int) -> None:
        """Let it write no file beyond this size, as on a full disk; -1 takes the limit away.

        The soft limit alone, which any user may raise again. What it gets is EFBIG.
        """
        _, hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size if size >= 0 else hard, hard))

    def log(self) -> str:
        """All it has written so far."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


class Nursery:
    """Forks processes on demand; use it as a context manager."""

    def __enter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        command = ["setpriv", "--pdeathsig=KILL", "--", sys.executable, "-m", __name__]
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno())], pass_fds=[theirs.fileno()]
            )
        self._lines = self._socket.makefile("rw")
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait(30)

    def fork(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        prepare: Sequence[Preparation] = (),
    ) -> Child:
        """A new process that runs `scannerjob` with these arguments."""
        request = {
            "arguments": list(arguments),
            "log": str(log.absolute()),
            "env": dict(env or {}),
            "cwd": str((cwd or log.parent).absolute()),
            "prepare": list(prepare),
        }
        self._lines.write(json.dumps(request) + "\n")
        self._lines.flush()
        return Child(int(self._lines.readline()), log)


def _serve(connection: socket.socket) -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the dead
    lines = connection.makefile("rw")
    while line := lines.readline():
        request = json.loads(line)
        if (pid := os.fork()) == 0:
            _become(connection, request)
        lines.write(f"{pid}\n")
        lines.flush()


def _become(connection: socket.socket, request: Mapping[str, Any]) -> NoReturn:
    """From here on this is a process as one from the command line."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Without shutdown, which would end the nursery's own.
        os.close(connection.detach())
        with Path(request["log"]).open("ab") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ.update(request["env"])
        os.chdir(request["cwd"])
        code = _run(request)
    except BaseException:  # noqa: BLE001 - the parent's code must never go on here
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run(request: Mapping[str, Any]) -> int:
    for name, arguments in request["prepare"]:
        module, _, function = name.partition(":")
        getattr(importlib.import_module(module), function)(**arguments)
    sys.argv = ["scannerjob", *request["arguments"]]
    from scannerjob.cli import main

    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
