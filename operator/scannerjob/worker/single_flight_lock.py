"""A lock in Redis that only its holder can release or renew."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from scannerjob.worker.redis_client import place

log = logging.getLogger(__name__)

PREFIX = "scannerjob:lock:"
_WAKE_PREFIX = "scannerjob:wake:"

# Those who wait look again after so many seconds, for a holder that died tells nobody.
_LOOK = 1.0
# A wake-up is for those who wait already, or are about to: so many milliseconds.
_WAKE = 2000

# It may be ours: the answer to the same question was lost, and the client has asked again.
_TAKE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) and 1 or 0
"""
# Apart from _TAKE, so that a renewal which is late on the network, and comes after the release,
# leaves no lock behind.
_RENEW = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0
"""
_HELD = "return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0"
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('RPUSH', KEYS[2], '1')
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
"""


class BusyError(RuntimeError):
    """Someone else holds the lock, and was still holding it after the time to wait for it."""


class LockUnavailableError(RuntimeError):
    """Redis could not be asked, so that nobody knows who holds the lock."""


class Lock:
    """One holding of a name: taken once, renewed while it lasts, released once.

    It is the process's that made it: in a child that is forked it is not held, and its release does
    nothing. `lease` is in seconds, and counted by Redis.
    """

    def __init__(self, client: Redis, name: str, lease: float) -> None:
        self.client, self.name, self.lease = client, name, lease
        self.due = 0.0
        """When to renew it, by `time.monotonic()`."""
        self._keys = (PREFIX + name, _WAKE_PREFIX + name)
        self._token = secrets.token_hex(16)
        self._process = os.getpid()
        self._mutex = threading.Lock()
        # Whether Redis may have our token: what was asked and not answered counts.
        self._taken = False
        # Whether it may have been another's meanwhile.
        self._lost = False

    def acquire(self, wait: float | None) -> bool:
        """Take it, waiting for it up to so many seconds (None: for ever); whether it was taken.

        Raises LockUnavailableError.
        """
        end = None if wait is None else time.monotonic() + wait
        try:
            while not self._take():
                left = _LOOK if end is None else end - time.monotonic()
                if left <= 0:
                    return False
                self._await_release(min(left, _LOOK))
        except RedisError as error:
            # If it was taken and the answer is lost, it lapses: it is never renewed.
            self._taken = False
            raise LockUnavailableError(self._describe(error)) from error
        return True

    def held(self) -> bool:
        """Whether it has been held since it was taken, and is now; asks Redis.

        Raises LockUnavailableError.
        """
        if self._process != os.getpid():
            return False
        try:
            with self._mutex:
                return bool(self._ask(_HELD)) and not self._lost
        except RedisError as error:
            raise LockUnavailableError(self._describe(error)) from error

    def renew(self) -> None:
        """Hold it for another lease. Raises RedisError.

        If Redis has it no more, because its lease has lapsed or its server forgot it, another may
        have had it meanwhile: `held` is False from then on. It is taken again all the same if it is
        free, so that whoever comes now finds it.
        """
        with self._mutex:
            if not self._taken:
                return
            began = time.monotonic()
            if not self._ask(_RENEW):
                self._lose("taken again" if self._ask(_TAKE) else "another's by now")
            self.due = began + self.lease / 3

    def release(self) -> None:
        """Let others have it. Never raises: what cannot be told to Redis lapses."""
        if self._process != os.getpid():
            return
        with self._mutex:
            taken, self._taken = self._taken, False
            if not taken:
                return
            try:
                if not self._ask(_RELEASE, _WAKE):
                    self._lose("free by now, or another's")
            except RedisError as error:
                log.warning("%s; it is free when its lease lapses", self._describe(error))

    def _take(self) -> bool:
        began, self._taken = time.monotonic(), True
        self._taken = bool(self._ask(_TAKE))
        self.due = began + self.lease / 3
        return self._taken

    def _lose(self, now_it_is: str) -> None:
        if not self._lost:
            log.warning(
                "the lock %r was gone from Redis while its work ran, and is %s: another copy may"
                " have run, or still run. This process was kept from renewing it for %g s, or Redis"
                " has forgotten it",
                *(self.name, now_it_is, self.lease),
            )
        self._lost = True

    def _await_release(self, seconds: float) -> None:
        """Wait for it, asleep; a client that is impatient with Redis is not kept so long."""
        patience = self.client.connection_pool.connection_kwargs.get("socket_timeout")
        most = seconds if patience is None else min(seconds, float(patience) / 2)
        self.client.blpop([self._keys[1]], timeout=max(most, 0.01))

    def _ask(self, script: str, milliseconds: int | None = None) -> Any:
        kept = milliseconds or max(int(self.lease * 1000), 1)
        return self.client.eval(script, 2, *self._keys, self._token, str(kept))

    def _describe(self, error: RedisError) -> str:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return f"the lock {self.name!r} cannot be asked for at {place(self.client)} ({said})"
