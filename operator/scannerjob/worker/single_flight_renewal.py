"""Renews the locks that this process holds, while their work runs.

One thread for each client of Redis, so that one that hangs costs only its own locks. A thread is
enough here, where the guard has a process: what stops it for longer than a lease (a call in C that
keeps all other threads waiting) loses a lock that `held` tells of, and a longer lease prevents it.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from redis import Redis
from redis.exceptions import RedisError

from scannerjob.worker.single_flight_lock import Lock

log = logging.getLogger(__name__)

# A thread that has nothing to renew stays for so many seconds, for the next call.
_LINGER = 30.0
# How soon a renewal that failed is tried again, at the latest.
_AGAIN = 1.0


def keep(lock: Lock) -> None:
    """Renew it from now on. Raises RuntimeError where no thread can be started."""
    with _guard:
        renewal = _renewals.get(lock.client) or _start(lock.client)
        renewal.add(lock)


def drop(lock: Lock) -> None:
    """Renew it no longer."""
    with _guard:
        if renewal := _renewals.get(lock.client):
            renewal.locks.discard(lock)


class _Renewal(threading.Thread):
    """Its `locks` belong to whoever has `_guard`."""

    def __init__(self, client: Redis) -> None:
        super().__init__(name="single_flight renewal", daemon=True)
        self.locks: set[Lock] = set()
        self._client = client
        self._woken = threading.Event()
        self._wakes = 0.0

    def add(self, lock: Lock) -> None:
        self.locks.add(lock)
        if lock.due < self._wakes:
            self._woken.set()

    def run(self) -> None:
        while self._rest():
            for lock in self._due():
                _renew(lock)

    def _rest(self) -> bool:
        """Sleep until something is due; whether there is anything to do any more."""
        with _guard:
            idle = not self.locks
            self._woken.clear()
            self._wakes = min((lock.due for lock in self.locks), default=time.monotonic() + _LINGER)
        woken = self._woken.wait(max(self._wakes - time.monotonic(), 0.0))
        return woken or not idle or not self._ended()

    def _ended(self) -> bool:
        with _guard:
            if not self.locks:
                _renewals.pop(self._client, None)
            return not self.locks

    def _due(self) -> list[Lock]:
        with _guard:
            return [lock for lock in self.locks if lock.due <= time.monotonic()]


def _start(client: Redis) -> _Renewal:
    renewal = _Renewal(client)
    renewal.start()
    _renewals[client] = renewal
    return renewal


def _renew(lock: Lock) -> None:
    try:
        lock.renew()
    except RedisError as error:
        lock.due = time.monotonic() + min(lock.lease / 3, _AGAIN)
        log.debug("the lock %r could not be renewed yet: %s", lock.name, error)


def _after_fork() -> None:
    """The threads are the parent's, and so are the locks; `_guard` may have been taken by one."""
    global _guard
    _guard = threading.Lock()
    _renewals.clear()


_guard = threading.Lock()
_renewals: dict[Redis, _Renewal] = {}
os.register_at_fork(after_in_child=_after_fork)
