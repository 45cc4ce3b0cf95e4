"""One execution of a launch, from its claim to its end, in the process that executes it."""

from __future__ import annotations

import logging
import secrets
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from scannerjob.worker.heartbeats import Heartbeats
from scannerjob.worker.leases import End
from scannerjob.worker.records import HEADER, Execution, State, Store

OnError = Literal["refuse", "run"]
"""What to do about a task if the store cannot be asked."""

_AGAIN = 1.0
"""In seconds: when a store that could not be asked is asked again."""

# A task that replaces another has its id, and counts its retries from 0: it comes after all of
# those that it replaces. Fewer than this many retries, and 2000 replacements, fit into a record.
_REPLACED = 1_000_000
_MAX_REASON = 200

_logger = logging.getLogger(__name__)


class Launch:
    """The execution of a launch that `task` is about to be, in its current request."""

    def __init__(self, task: Any, store: Store, heartbeats: Heartbeats, on_error: OnError) -> None:
        request = task.request
        self.execution = execution_of(request)
        self.request = request
        self.replaced = False
        """Whether a task that replaces this one, under the same id, was sent."""
        # One acknowledged early cannot be requeued.
        self._requeues = bool(task.acks_late)
        self._store = store
        self._heartbeats = heartbeats
        self._on_error = on_error

    def begin(self) -> bool:
        """Claim the launch, and have it held; False if it must not run."""
        if not self._claim():
            self._heartbeats.release(self.execution)
            return False
        # A crash in here leaves a lease that lapses.
        self._heartbeats.hold(self.execution)
        return True

    def check(self) -> str | None:
        """Why it is not held, or may not be; None if it is, for a whole lease from now."""
        if self._heartbeats.has_lost(self.execution):
            return "its lease had lapsed, and it was given up or begun anew"
        try:
            with undisturbed():
                lost = self._store.renew([self.execution], self._heartbeats.lease)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, nothing is known
            _let_pass(error)
            unknown = f"the guard's store cannot be asked: {error}"
            return None if self._on_error == "run" else unknown
        return "it was given up or begun anew" if lost else None

    def end(self, state: str | None, outcome: Any) -> None:
        """Have it written down that this execution has ended, by Celery's state and outcome.

        Never fails: what cannot be written now is left to the heartbeats.
        """
        end = End(self.execution, *self._verdict(state, outcome))
        try:
            held = self._store.finish(end.execution, end.state, end.reason, end.delay)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, it is tried again
            _logger.warning("the end of launch %s is written later: %s", self.execution.id, error)
            self._heartbeats.finish(end)
            return
        self._heartbeats.release(self.execution)
        # A retry may have begun before this one could say that it is on its way.
        if not held and end.state is not State.RETRYING:
            _logger.warning(
                "launch %s has ended as %s, and was not this execution's any more",
                self.execution.id,
                end.state,
            )

    def _claim(self) -> bool:
        waits = False
        while True:
            try:
                with undisturbed():
                    return self._store.claim(self.execution, self._heartbeats.lease)
            except Exception as error:  # noqa: BLE001 - whatever a client raises, nothing is known
                _let_pass(error)
                if self._on_error == "run":
                    self._warn("runs unguarded", error)
                    return True
                if not waits:
                    self._warn("waits until it can be", error)
                    self._heartbeats.watch(self.execution)
            waits = True
            time.sleep(_AGAIN)

    def _warn(self, what: str, error: Exception) -> None:
        _logger.warning(
            "the guard's store cannot be asked, launch %s %s: %s", self.execution.id, what, error
        )

    def _verdict(self, state: str | None, outcome: Any) -> tuple[State, str, float]:
        match state:
            case "SUCCESS":
                return State.DONE, "", 0.0
            case "RETRY":
                return State.RETRYING, "", _delay(outcome.when)
            case "IGNORED":
                # By the task itself: it has seen that there is nothing to do, or was replaced.
                return State.RETRYING if self.replaced else State.DONE, "", 0.0
            case "REJECTED" if outcome.requeue and self._requeues:
                return State.QUEUED, "", 0.0
            case "REJECTED":
                return State.FAILED, _cut(f"the task was rejected: {_said(outcome.reason)}"), 0.0
            case "FAILURE":
                return State.FAILED, _reason(outcome), 0.0
            case _:
                return State.FAILED, "its worker process was terminated", 0.0


_current: ContextVar[Launch | None] = ContextVar("scannerjob_launch", default=None)


def current() -> Launch | None:
    """The launch that is executed here, if this is one."""
    return _current.get()


def enter(launch: Launch | None) -> None:
    """Make it the one that is executed here."""
    _current.set(launch)


def execution_of(request: Any) -> Execution:
    """The execution that a request is, with an owner of its own."""
    generation = request.retries + _REPLACED * (request.replaced_task_nesting or 0)
    return Execution(request.id, generation, secrets.token_hex(16))


def is_launch(request: Any) -> bool:
    """Whether a task was launched by the operator.

    A retry keeps id and headers; the tasks of a chain after it have ids of their own.
    """
    return bool(request.id) and (request.headers or {}).get(HEADER) == request.id


@contextmanager
def undisturbed() -> Iterator[None]:
    """Put off Celery's soft time limit, which would leave an answer of the store unread.

    It is raised by a signal's handler, in the main thread of a pool's process.
    """
    theirs = signal.getsignal(signal.SIGUSR1)
    if threading.current_thread() is not threading.main_thread() or not callable(theirs):
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, theirs)
        if came:
            signal.raise_signal(signal.SIGUSR1)


def _let_pass(error: Exception) -> None:
    """Raise what is the task's own affair, not the store's."""
    from celery.exceptions import SoftTimeLimitExceeded

    if isinstance(error, SoftTimeLimitExceeded):
        raise error


def _delay(when: Any) -> float:
    """In seconds: how long until a retry, by the clock that Celery made its time with."""
    if isinstance(when, datetime):
        at = when if when.tzinfo else when.replace(tzinfo=UTC)
        return max(0.0, (at - datetime.now(UTC)).total_seconds())
    return float(when or 0)


def _reason(error: Any) -> str:
    said, kind = _said(error), type(error).__name__
    return _cut(f"{kind}: {said}" if said else kind)


def _said(error: Any) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - an author's own exception may fail to say anything
        return ""


def _cut(reason: str) -> str:
    # What is no character, such as a part of a file's name may be, no store takes.
    return reason[:_MAX_REASON].encode(errors="replace").decode()
