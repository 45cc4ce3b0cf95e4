"""One at a time: a lock in Redis around a task, a function or a block, held while it runs.

    @app.task
    @single_flight("process_item({0})", url="redis://redis.example/3")
    def process_item(item_id): ...

It needs redis alone, of ours nothing else, and neither Celery nor the guard.
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from types import TracebackType
from typing import Any, Literal, ParamSpec, TypeVar

from redis import Redis
from redis.backoff import ExponentialBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.retry import Retry

from scannerjob.worker.redis_client import open_redis
from scannerjob.worker.single_flight_lock import BusyError, Lock, LockUnavailableError
from scannerjob.worker.single_flight_names import Naming, placeholders, plain
from scannerjob.worker.single_flight_renewal import drop, keep
from scannerjob.worker.single_flight_tasks import decorate_task

__all__ = ["BusyError", "Lock", "LockUnavailableError", "SingleFlight", "held", "single_flight"]

log = logging.getLogger(__name__)

_P = ParamSpec("_P")
_R = TypeVar("_R")

# In seconds. How long others are kept waiting where a process dies, and how long one that lives may
# be kept from renewing it.
LEASE = 60.0
_REFUSED = (
    "nothing was run. Check Redis and its URL, or choose on_error='run' where two at a time do no"
    " harm"
)


def single_flight(
    name: str,
    *,
    url: str | None = None,
    client: Redis | None = None,
    wait: float | None = 0.0,
    on_busy: Literal["skip", "raise"] = "skip",
    lease: float = LEASE,
    on_error: Literal["refuse", "run"] = "refuse",
) -> SingleFlight:
    """Never two at a time of the same `name`, wherever they run: for a decorator or a `with`.

    Args:
        name: What the lock is called, in the manner of `str.format`, with the arguments of the
            call: `{0}`, `{item_id}`, `{item.pk}`. Without placeholders all calls are alike. The key
            in Redis is `scannerjob:lock:` and the name.
        url: Where the locks are: `redis://HOST/DATABASE`, or `rediss://` with `ssl_ca_certs` and
            other options of redis-py's. Who is to see each other's locks uses the same database.
        client: A client of redis-py's, in place of `url`. Give it a `socket_timeout`.
        wait: How many seconds to wait for one that is held. 0: not at all; None: for ever.
        on_busy: What follows then: `skip` returns None and runs nothing, `raise` raises BusyError.
            A `with` block cannot be skipped: there it is BusyError always.
        lease: After how many seconds a lock is free whose process has died. It is renewed three
            times as often while the work runs.
        on_error: What follows if Redis cannot be asked before the work begins: `refuse` raises
            LockUnavailableError and runs nothing, `run` runs it without a lock.

    A call within a call of the same name, by the same thread, runs: it is the same flight.

    Raises TypeError or ValueError, when it decorates, for what can't work: a placeholder that is no
    parameter, a coroutine or a generator.
    """
    if on_busy not in ("skip", "raise") or on_error not in ("refuse", "run"):
        raise ValueError("single_flight: expected on_busy='skip'|'raise', on_error='refuse'|'run'")
    if not lease > 0 or (wait is not None and not wait >= 0):
        raise ValueError("single_flight: expected a lease above 0 and a wait of at least 0 seconds")
    placeholders(name)
    return SingleFlight(
        name, _client(url, client), wait, skips=on_busy == "skip", lease=lease, on_error=on_error
    )


def held() -> bool:
    """Whether the work that this thread is in has its lock still, and had it all the time.

    For a check right before what must not be done twice: False after the process was frozen, or
    Redis away, for longer than the lease, and after Redis has forgotten the lock. Raises
    LockUnavailableError, and RuntimeError where the thread is in no single flight.
    """
    if not _holding.locks:
        raise RuntimeError("held() was called outside of any single_flight of this thread")
    return _holding.locks[-1].held()


class SingleFlight:
    """What `single_flight` returns. One object may be used by many threads."""

    def __init__(
        self,
        name: str,
        client: Redis,
        wait: float | None,
        *,
        skips: bool,
        lease: float,
        on_error: Literal["refuse", "run"],
    ) -> None:
        self._name, self._client, self._wait = name, client, wait
        self._skips, self._lease, self._on_error = skips, lease, on_error
        self._entered = _Entered()

    def __call__(self, function: Callable[_P, _R]) -> Callable[_P, _R | None]:
        """Decorate a function, a method, or a Celery task, which stays one."""
        return function if decorate_task(function, self._decorate) else self._decorate(function)

    def __enter__(self) -> Lock:
        """Take the lock. Raises BusyError and LockUnavailableError."""
        flight = self._flight(plain(self._name))
        lock = flight.__enter__()
        self._entered.flights.append(flight)
        return lock

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let others have it."""
        self._entered.flights.pop().__exit__(kind, error, trace)

    def _decorate(self, function: Callable[_P, _R]) -> Callable[_P, _R | None]:
        _check(function)
        naming = Naming(self._name, function)

        @functools.wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R | None:
            with ExitStack() as stack:
                try:
                    stack.enter_context(self._flight(naming.name(args, kwargs)))
                except BusyError as busy:
                    if not self._skips:
                        raise
                    log.info("skipped %s: %s", naming.called, busy)
                    return None
                return function(*args, **kwargs)

        # Celery reads this one, to refuse wrong arguments where a task is sent.
        call.__signature__ = naming.signature  # type: ignore[attr-defined]  # functions may have it
        return call

    @contextmanager
    def _flight(self, name: str) -> Iterator[Lock]:
        if mine := _holding.find(self._client, name):
            yield mine
            return
        lock = Lock(self._client, name, self._lease)
        try:
            self._take(lock)
            _holding.locks.append(lock)
            yield lock
        finally:
            _holding.forget(lock)
            drop(lock)
            lock.release()

    def _take(self, lock: Lock) -> None:
        try:
            if not lock.acquire(self._wait):
                raise BusyError(f"{lock.name!r} is running elsewhere{_waited(self._wait)}")
        except LockUnavailableError as error:
            if self._on_error == "refuse":
                raise LockUnavailableError(f"{error}; {_REFUSED}") from error
            log.warning("%r is run without its lock: %s", lock.name, error)
        else:
            keep(lock)


class _Entered(threading.local):
    """The blocks of one SingleFlight in which a thread is, the innermost last."""

    def __init__(self) -> None:
        self.flights: list[AbstractContextManager[Lock]] = []


class _Holding(threading.local):
    """The locks that a thread has, the innermost last."""

    def __init__(self) -> None:
        self.locks: list[Lock] = []

    def find(self, client: Redis, name: str) -> Lock | None:
        same = (lock for lock in self.locks if lock.client is client and lock.name == name)
        return next(same, None)

    def forget(self, lock: Lock) -> None:
        if lock in self.locks:
            self.locks.remove(lock)


_holding = _Holding()
# What a child is forked from may be in a flight, but the child is not.
os.register_at_fork(after_in_child=lambda: _holding.locks.clear())  # noqa: PLW0108 - each thread's own


def _client(url: str | None, client: Redis | None) -> Redis:
    if (url is None) == (client is None):
        raise TypeError("single_flight: expected either a url or a client of Redis")
    if url is not None:
        return _client_at(url)
    if not isinstance(client, Redis):
        raise TypeError(
            f"single_flight: expected client to be a redis.Redis, got {type(client).__module__}."
            f"{type(client).__qualname__}"
        )
    return client


@functools.cache
def _client_at(url: str) -> Redis:
    """One client for each URL: those who share it share its connections."""
    # Celery accepts Python's own name for it in a URL, redis-py does not.
    text = re.sub(r"(ssl_cert_reqs=)CERT_(\w+)", lambda found: found[1] + found[2].lower(), url)
    try:
        return open_redis(
            text,
            retry=Retry(ExponentialBackoff(cap=0.5, base=0.05), 1),
            retry_on_error=[RedisConnectionError],
            health_check_interval=30,
        )
    except (ValueError, RedisError):
        # What the client says quotes parts of the URL, the password perhaps.
        raise ValueError(
            "single_flight: the url cannot be read; expected redis://USER:PASSWORD@HOST:PORT/DATABASE"
            " or rediss://..., with special characters in USER and PASSWORD percent-encoded"
        ) from None


def _check(function: Callable[..., Any]) -> None:
    called = getattr(function, "__qualname__", repr(function))
    if isinstance(function, (staticmethod, classmethod, type)) or not callable(function):
        raise TypeError(
            f"single_flight: {called} is a {type(function).__name__}; put @single_flight below it,"
            " next to a function"
        )
    asynchronous = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_one(function) for is_one in (*asynchronous, inspect.isgeneratorfunction)):
        raise TypeError(
            f"single_flight: {called} is a coroutine or a generator, which begins when its call has"
            " returned, and its lock is free again. Use a plain function"
        )


def _waited(wait: float | None) -> str:
    return f", and was after {wait:g} s" if wait else ""
