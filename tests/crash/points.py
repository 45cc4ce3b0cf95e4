"""Where a crash is tried: at each place that a comment in the code names, and a few more.

A point is armed in the process that is to die there, by `arm`. Nothing of this is in the operator.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import random
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

_WITHIN_SECONDS = 0.02


def _always(*_: Any, **__: Any) -> bool:
    return True


def _sends(_: Any, snapshot: Any, status: Any, decision: Any) -> bool:
    return bool(decision.sends)


def _any_ids(_: Any, ids: Any) -> bool:
    return bool(ids)


@dataclass(frozen=True)
class Point:
    """A place to die at.

    `where` is told of the call of a function, `module:Class.name`: just before it, within its first
    moments (in another thread, so amid whatever it waits for), or just after it. `when` picks calls
    by their arguments. `comment` is how the comment in the code begins that names the gap.
    """

    name: str
    call: str
    where: Literal["before", "within", "after"]
    comment: str = ""
    when: Callable[..., bool] = _always


# How the comments begin.
_BEFORE_WRITE = "A crash before the write: nothing happened. After it"
_UNKNOWN = "A crash in here leaves messages of which the caller does not know"
_NEVER_SENT = "A crash after this leaves records of what was never sent"
_SUPERSEDED = "A crash after this leaves records that"
# The one point that is come to only where a row leaves by itself.
SUPERSEDED = "superseded"

_SCAN = "scannerjob.scan:Scanner."
_KUBERNETES = "scannerjob.stores.kubernetes:KubernetesStore."
_SQL = "scannerjob.stores.sql:"
_JOBS = "scannerjob.targets.job."
_CELERY = "scannerjob.targets.celery."
_REDIS, _AMQP, _SQLA = (f"{_CELERY}{each}_broker:" for each in ("redis", "amqp", "sql"))

POINTS = {
    point.name: point
    for point in (
        Point("observed", "scannerjob.observer:Observer.observe", "after"),
        Point("queried", "scannerjob.observer:Observer.query", "after"),
        Point("before the claim", f"{_SCAN}_claim", "before", _BEFORE_WRITE, _sends),
        Point("between ledger and mark", f"{_KUBERNETES}mark", "before", "A crash between the two"),
        Point("between ledger and mark in SQL", f"{_SQL}SqlStore.mark", "before"),
        Point("amid the mark", f"{_KUBERNETES}mark", "within"),
        Point("amid the mark in SQL", f"{_SQL}_insert_once", "before", "A crash here leaves a new"),
        Point("amid the claim", f"{_KUBERNETES}write", "within"),
        Point("amid the claim in SQL", f"{_SQL}SqlStore.write", "within"),
        Point("after the claim", f"{_SCAN}_claim", "after", _BEFORE_WRITE, _sends),
        Point("amid the launch", f"{_JOBS}target:JobTarget.launch", "within", "A crash while it"),
        Point("before a create", f"{_JOBS}api:JobsApi.create", "before"),
        Point("amid a create", f"{_JOBS}api:JobsApi.create", "within", "A crash here, or a lost"),
        Point("after a create", f"{_JOBS}api:JobsApi.create", "after"),
        Point("before a publish", f"{_CELERY}target:CeleryTarget._register", "before"),
        Point("registered", f"{_CELERY}target:CeleryTarget._register", "after", _NEVER_SENT),
        Point(
            "amid a publish on Redis",
            f"{_REDIS}RedisBroker.publish",
            "within",
            f"{_UNKNOWN}; sending",
        ),
        Point("after a publish on Redis", f"{_REDIS}RedisBroker.publish", "after"),
        Point("amid a publish on AMQP", f"{_AMQP}AmqpBroker.publish", "within", f"{_UNKNOWN}, and"),
        Point("after a publish on AMQP", f"{_AMQP}AmqpBroker.publish", "after"),
        Point("amid a publish on SQL", f"{_SQLA}SqlBroker.publish", "within"),
        Point(
            "before the commit on SQL",
            f"{_SQLA}SqlBroker._commit",
            "before",
            "A crash before the commit",
        ),
        Point("after the commit on SQL", f"{_SQLA}SqlBroker._commit", "after"),
        Point("before the report", f"{_SCAN}_launch", "after", "A crash before it: as above"),
        Point(
            SUPERSEDED, f"{_CELERY}target:CeleryTarget.supersede", "after", _SUPERSEDED, _any_ids
        ),
        Point(
            "before a removal", f"{_JOBS}api:JobsApi.delete", "before", "a crash before that leaves"
        ),
        Point("after a removal", f"{_JOBS}api:JobsApi.delete", "after"),
        Point("amid the Lease", "scannerjob.controller.lease:LeaseStore.write", "within"),
        Point("after the Lease", "scannerjob.controller.lease:LeaseStore.write", "after"),
    )
}


def arm(name: str, passes: int, seed: int) -> None:
    """Have this process die at a point, when it comes by for the time after so many passes."""
    point = POINTS[name]
    module_name, _, path = point.call.partition(":")
    owner: Any = importlib.import_module(module_name)
    *classes, function_name = path.split(".")
    for each in classes:
        owner = getattr(owner, each)
    original = getattr(owner, function_name)
    trap = _Trap(point, passes, random.Random(seed))
    setattr(owner, function_name, trap.around(original))


class _Trap:
    def __init__(self, point: Point, passes: int, rng: random.Random) -> None:
        self._point = point
        self._passes = passes
        self._delay = rng.uniform(0, _WITHIN_SECONDS)
        self._lock = threading.Lock()

    def around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(original):

            @functools.wraps(original)
            async def waiting(*args: Any, **options: Any) -> Any:
                due = self._is_due(*args, **options)
                self._enter(due)
                try:
                    return await original(*args, **options)
                finally:
                    self._leave(due)

            return waiting

        @functools.wraps(original)
        def calling(*args: Any, **options: Any) -> Any:
            due = self._is_due(*args, **options)
            self._enter(due)
            try:
                return original(*args, **options)
            finally:
                self._leave(due)

        return calling

    def _is_due(self, *args: Any, **options: Any) -> bool:
        if not self._point.when(*args, **options):
            return False
        with self._lock:
            self._passes -= 1
            return self._passes < 0

    def _enter(self, due: bool) -> None:
        if due and self._point.where == "before":
            self._die()
        if due and self._point.where == "within":
            threading.Timer(self._delay, self._die).start()

    def _leave(self, due: bool) -> None:
        if due and self._point.where == "after":
            self._die()

    def _die(self) -> None:
        # Written at once, by this very call: nothing else of this process comes after it.
        os.write(2, f"{DIES_AT} {self._point.name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


DIES_AT = "the process dies here:"
