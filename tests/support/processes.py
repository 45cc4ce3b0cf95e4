"""Processes that tests start, freeze and kill."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import psutil


class Process:
    """A child process in a session of its own, which does not outlive the process that started it.

    Signals for freezing and killing go to it and all its descendants: a PostgreSQL backend or a
    Celery pool's child does not stop because its parent does. Start it from the main thread: when
    the thread that started it ends, the kernel takes the process along.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        user: str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.command = [str(part) for part in command]
        self.log_file = log
        self._user = user
        self._env = dict(os.environ if env is None else env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._paused: list[psutil.Process] = []

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} was not started: call start() first")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def log(self) -> str:
        """All it has written so far."""
        if not self.log_file.exists():
            return ""
        return self.log_file.read_text(errors="replace")

    def start(self) -> Self:
        if self.running:
            return self
        with self.log_file.open("ab") as output:
            self._process = subprocess.Popen(
                [*tied_to_parent(self._user), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,
            )
        return self

    def wait(self, timeout: float = 30) -> int:
        """Wait for its end, and return its exit code."""
        if self._process is None:
            raise RuntimeError(f"{self.command[0]} was not started: call start() first")
        return self._process.wait(timeout)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone."""
        if self.running:
            os.kill(self.pid, number)

    def stop(self, number: signal.Signals = signal.SIGTERM, timeout: float = 15) -> None:
        """Ask it to end, and kill what is left after `timeout` seconds."""
        if self._process is None:
            return
        family = self.family()
        self._signal(family, signal.SIGCONT)  # a frozen process could not obey
        self.send(number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout)
        self._finish(family)

    def kill(self) -> None:
        """SIGKILL for it and all its descendants; returns when they are gone."""
        if self._process is None:
            return
        self._finish(self.family())

    def pause(self) -> None:
        """Freeze it and its descendants: they neither answer nor close a connection."""
        self._paused = self.family()
        self._signal(self._paused, signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on, also those that have outlived it."""
        self._signal(self._paused, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _finish(self, family: list[psutil.Process]) -> None:
        if self._process is None:
            return
        self._signal(family, signal.SIGKILL)
        self._process.wait(15)  # before psutil could reap it, and keep the exit code to itself
        deadline = time.monotonic() + 15
        while any(map(lives, family)) and time.monotonic() < deadline:
            time.sleep(0.01)

    def family(self) -> list[psutil.Process]:
        """Itself and its descendants; itself first, so that it can't replace one that is killed."""
        try:
            parent = psutil.Process(self.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _signal(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue


def lives(process: psutil.Process) -> bool:
    """Whether it is more than a zombie, which an init process may take seconds to bury."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def has_port(pid: int, port: int) -> bool:
    """Whether a process has a TCP connection from this port of its own."""
    with contextlib.suppress(psutil.Error):
        connections = psutil.Process(pid).net_connections("tcp4")
        return any(each.laddr.port == port for each in connections)
    return False


def tied_to_parent(user: str | None = None) -> list[str]:
    """What to put before a command so that it dies with its parent, and runs as `user` if given.

    `setpriv` replaces itself by the command, so the process id stays the same.
    """
    identity = [f"--reuid={user}", f"--regid={user}", "--init-groups"] if user else []
    return ["setpriv", "--pdeathsig=KILL", *identity, "--"]
