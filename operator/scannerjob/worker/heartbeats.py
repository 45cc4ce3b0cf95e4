"""What a process of the worker has done about the leases of its executions."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from scannerjob.worker import records
from scannerjob.worker.beside import ADDRESS
from scannerjob.worker.leases import End, Leases
from scannerjob.worker.records import Execution, Store

_PAUSE = 0.5
"""In seconds: how long to wait before connecting to the heartbeat process again."""

_logger = logging.getLogger(__name__)


class Heartbeats(Protocol):
    """Keeps executions of this process held while they run; may be used by many threads."""

    lease: float
    """In seconds: for how long a lease must be taken at first."""

    def hold(self, execution: Execution) -> None:
        """Renew its lease from now on, and have it end as failed if this process dies."""
        ...

    def watch(self, execution: Execution) -> None:
        """Have it end as failed if this process dies; its lease is not renewed."""
        ...

    def release(self, execution: Execution) -> None:
        """Leave it alone from now on."""
        ...

    def finish(self, end: End) -> None:
        """Have the store told of its end once it can be."""
        ...

    def has_lost(self, execution: Execution) -> bool:
        """Whether a renewal found that it has lost its launch."""
        ...


def open_heartbeats(store: Store) -> Heartbeats:
    """Those of this process: by the process beside the worker, or by a thread if there is none."""
    address = os.environ.get(ADDRESS)
    return Beats(address) if address else ThreadBeats(store)


class Beats:
    """Heartbeats by the process that listens at `address`."""

    def __init__(self, address: str) -> None:
        self.lease = records.LEASE
        self._address = f"\0{address}"
        self._lock = threading.Lock()
        # By owner: what that process must know, and is told again if it had to be started anew.
        self._known: dict[str, tuple[str, Execution, tuple[str | float, ...]]] = {}
        self._lost: set[str] = set()
        self._connection: socket.socket | None = None
        # Its end is to tell of this process's, whatever others were forked.
        os.register_at_fork(after_in_child=self._let_go)

    def hold(self, execution: Execution) -> None:
        """See Heartbeats."""
        self._say("hold", execution)

    def watch(self, execution: Execution) -> None:
        """See Heartbeats."""
        self._say("watch", execution)

    def release(self, execution: Execution) -> None:
        """See Heartbeats."""
        self._lost.discard(execution.owner)
        self._say("release", execution)

    def finish(self, end: End) -> None:
        """See Heartbeats.

        If both the store and the process beside the worker fail, one after the other, the end is
        lost, and the lease lapses.
        """
        self._lost.discard(end.execution.owner)
        self._say("finish", end.execution, end.state.value, end.reason, end.delay)

    def has_lost(self, execution: Execution) -> bool:
        """See Heartbeats."""
        return execution.owner in self._lost

    def _say(self, verb: str, execution: Execution, *how: str | float) -> None:
        with self._lock:
            self._known[execution.owner] = verb, execution, how
            if self._connection is None:
                self._begin()
            else:
                self._send([execution.owner])

    def _begin(self) -> None:
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connect(self._connection)
        threading.Thread(target=self._listen, name="guard", daemon=True).start()

    def _connect(self, connection: socket.socket) -> None:
        """Tell all that is known. Where that fails, `_listen` tries again."""
        try:
            connection.connect(self._address)
        except OSError as error:
            _logger.debug("the guard's heartbeat process cannot be reached: %s", error)
            return
        self._connection = connection
        self._send(list(self._known))

    def _send(self, owners: Iterable[str]) -> None:
        """Tell what is known of these. What cannot be told now is told with the next connection.

        The connection is never closed here: its end is taken for a sign of this process's.
        """
        assert self._connection
        try:
            for owner in owners:
                verb, execution, how = self._known[owner]
                told = execution.id, execution.retries, execution.owner
                self._connection.send(json.dumps([verb, told, *how]).encode())
                if verb in ("release", "finish"):
                    del self._known[owner]
        except OSError as error:
            _logger.debug("the guard's heartbeat process has ended: %s", error)

    def _listen(self) -> None:
        """Hear of what was lost; connect again once the process was started anew."""
        while True:
            assert self._connection
            try:
                owner = self._connection.recv(1024).decode()
            except OSError:
                owner = ""
            if owner:
                self._note_lost(owner)
                continue
            time.sleep(_PAUSE)
            with self._lock:
                self._connect(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))

    def _let_go(self) -> None:
        if self._connection:
            self._connection.close()

    def _note_lost(self, owner: str) -> None:
        with self._lock:
            known = self._known.pop(owner, None)
        if known:
            self._lost.add(owner)
            _warn_lost(known[1])


class ThreadBeats:
    """Heartbeats by a thread of this process."""

    def __init__(self, store: Store) -> None:
        self.lease = records.THREAD_LEASE
        self._leases = Leases(store, records.THREAD_LEASE, records.BEAT)
        self._lost: set[str] = set()
        self._changed = threading.Condition()
        threading.Thread(target=self._beat, name="guard", daemon=True).start()

    def hold(self, execution: Execution) -> None:
        """See Heartbeats."""
        with self._changed:
            self._leases.hold(execution)

    def watch(self, execution: Execution) -> None:
        """See Heartbeats. Nobody is left who could do anything if this process dies."""

    def release(self, execution: Execution) -> None:
        """See Heartbeats."""
        with self._changed:
            self._lost.discard(execution.owner)
            self._leases.release(execution.owner)

    def finish(self, end: End) -> None:
        """See Heartbeats."""
        with self._changed:
            self._lost.discard(end.execution.owner)
            self._leases.end(end)
            self._changed.notify()

    def has_lost(self, execution: Execution) -> bool:
        """See Heartbeats."""
        return execution.owner in self._lost

    def _beat(self) -> None:
        while True:
            with self._changed:
                self._changed.wait(self._leases.due)
                for execution in self._leases.act():
                    self._lost.add(execution.owner)
                    _warn_lost(execution)


def _warn_lost(execution: Execution) -> None:
    _logger.warning(
        "launch %s is not this execution's any more: its lease had lapsed, and it was given up or "
        "begun anew; what this one still does is not recorded",
        execution.id,
    )
