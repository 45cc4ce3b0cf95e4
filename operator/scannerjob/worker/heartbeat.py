"""The process beside each worker that renews leases: `python -m scannerjob.worker.heartbeat`.

A thread of the worker could not: one call in C may hold all threads of its process. Each process of
the worker that executes launches keeps a connection to this one. Once such a process has ended,
what it held is written down as failed at once; while it is stopped, its leases lapse. What a whole
worker held that has died on this machine is written down from its journal. It announces the tasks
that the worker guards, too.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from scannerjob.worker.clerk import Clerk
from scannerjob.worker.leases import DIED, End, Leases
from scannerjob.worker.presence import keep_announcing
from scannerjob.worker.records import Execution, State
from scannerjob.worker.stores import open_store

# In seconds. How soon a process is looked at whose connection has ended: it may take a moment to
# die. How soon it is seen what a dead worker has left. And how long the store is tried once the
# worker is gone.
_GLANCE = 0.1
_LOOK = 1.0
_FAREWELL = 60.0
_MAX_MESSAGE = 65536

_logger = logging.getLogger(__name__)


@dataclass(eq=False)
class _Process:
    """A process of the worker, as it was when it connected; `held` by owner."""

    pid: int
    began: str
    held: dict[str, Execution] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        state, began = _look(self.pid)
        return began == self.began and state not in "ZX"

    @property
    def stopped(self) -> bool:
        return _look(self.pid)[0] == "T"


class Heartbeat:
    """Serves the processes that connect to `listener`, until the worker is gone.

    The worker is gone when `worker`, a pipe of which it has the other end, and all connections have
    ended.
    """

    def __init__(
        self,
        leases: Leases,
        listener: socket.socket,
        worker: BinaryIO,
        left: Callable[[], Iterable[End]],
    ) -> None:
        self._leases = leases
        self._left = left
        self._listener = listener
        self._processes: dict[socket.socket, _Process] = {}
        self._parted: list[_Process] = []
        self._worker: BinaryIO | None = worker
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(worker, selectors.EVENT_READ)

    def run(self) -> None:
        """Return once there is nothing left to do."""
        while self._worker or self._processes:
            self._turn(_GLANCE if self._parted else min(_LOOK, self._leases.due))
        deadline = time.monotonic() + _FAREWELL
        while (self._parted or not self._leases.idle) and time.monotonic() < deadline:
            self._turn(_GLANCE)

    def _turn(self, patience: float) -> None:
        for key, _ in self._selector.select(patience):
            self._read(key.fileobj)
        self._bury()
        self._inherit()
        for execution in self._leases.act(self._frozen):
            self._tell_lost(execution)

    def _read(self, source: Any) -> None:
        if source is self._listener:
            self._accept()
        elif not isinstance(source, socket.socket):
            self._selector.unregister(source)
            self._worker = None
        else:
            self._receive(source)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid, user, _ = struct.unpack("3i", _credentials(connection))
        if user != os.geteuid():
            connection.close()
            return
        self._processes[connection] = _Process(pid, _look(pid)[1])
        self._selector.register(connection, selectors.EVENT_READ)

    def _receive(self, connection: socket.socket) -> None:
        try:
            message = connection.recv(_MAX_MESSAGE)
        except OSError:
            message = b""
        process = self._processes[connection]
        if message:
            self._obey(process, *json.loads(message))
            return
        del self._processes[connection]
        self._selector.unregister(connection)
        connection.close()
        self._parted.append(process)

    def _obey(self, process: _Process, verb: str, told: list[Any], *how: Any) -> None:
        execution = Execution(*told)
        for other in self._all():
            other.held.pop(execution.owner, None)
        if verb in ("hold", "watch"):
            process.held[execution.owner] = execution
        if verb == "hold":
            self._leases.hold(execution)
        elif verb == "watch":
            self._leases.watch(execution)
        elif verb == "finish":
            state, reason, delay = how
            self._leases.end(End(execution, State(state), reason, delay))
        elif verb == "release":
            self._leases.release(execution.owner)

    def _bury(self) -> None:
        """Write down what those have left who have died.

        A connection may end without its process: what that one holds is renewed, and it connects
        again.
        """
        for process in self._parted:
            if not process.alive:
                for execution in process.held.values():
                    self._leases.end(End(execution, State.FAILED, DIED))
                process.held.clear()
        self._parted = [each for each in self._parted if each.held]

    def _inherit(self) -> None:
        """Write down what other workers on this machine have left that have died."""
        for end in self._left():
            _logger.warning("a worker has died that had launch %s", end.execution.id)
            self._leases.end(end)

    def _tell_lost(self, execution: Execution) -> None:
        for connection, process in self._processes.items():
            if process.held.pop(execution.owner, None):
                try:
                    # It may read late; nothing else waits for it.
                    connection.send(execution.owner.encode(), socket.MSG_DONTWAIT)
                except OSError as error:
                    _logger.debug(
                        "process %d was not told of a lost launch: %s", process.pid, error
                    )

    def _frozen(self) -> set[str]:
        """The owners in processes that are stopped."""
        return {owner for each in self._all() if each.stopped for owner in each.held}

    def _all(self) -> list[_Process]:
        return [*self._processes.values(), *self._parted]


def _credentials(connection: socket.socket) -> bytes:
    size = struct.calcsize("3i")
    return connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)


def _look(pid: int) -> tuple[str, str]:
    """The state of a process, and when it began; X and nothing if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return "X", ""
    fields = stat.rpartition(")")[2].split()
    return fields[0], fields[19]


def main() -> None:
    """Read from standard input what to do, say when it is being done, and do it."""
    # Whoever ends a whole group of processes (a terminal, systemd) has the worker finish its tasks
    # first: until then their leases are needed.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(format="[%(asctime)s: %(levelname)s/guard] %(message)s")
    worker = sys.stdin.buffer
    told = json.loads(worker.readline())
    store = open_store(told["url"])
    clerk = Clerk(Path(told["journal"][0]), told["journal"][1]) if told["journal"] else None
    leases = Leases(store, told["lease"], told["beat"], clerk)
    listener = socket.socket(fileno=told["listener"])
    with os.fdopen(told["tasks"], encoding="utf-8") as tasks:
        # Whoever has read it before has left its place at the end.
        tasks.seek(0)
        keep_announcing(store, json.load(tasks))
    os.write(sys.stdout.fileno(), b".")
    Heartbeat(leases, listener, worker, clerk.left if clerk else list).run()
    if clerk and leases.idle:
        clerk.remove()
    store.close()


if __name__ == "__main__":
    main()
