"""What is due when, for several threads that work it off."""

import heapq
import itertools
import threading
import time
from typing import Generic, TypeVar

T = TypeVar("T")


class Agenda(Generic[T]):
    """Things, each with the `time.time()` at which it is due."""

    def __init__(self) -> None:
        self._things: list[tuple[float, int, T]] = []
        self._order = itertools.count()
        self._changed = threading.Condition()
        self._closed = False

    def add(self, thing: T, due: float = 0) -> None:
        with self._changed:
            heapq.heappush(self._things, (due, next(self._order), thing))
            self._changed.notify()

    def next(self) -> T | None:
        """Wait until something is due, and return that; None if the agenda is closed."""
        with self._changed:
            while not self._closed:
                wait = self._things[0][0] - time.time() if self._things else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._things)[2]
                self._changed.wait(wait)
            return None

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def reopen(self) -> None:
        """What was left when it was closed is still to be done."""
        self._closed = False
