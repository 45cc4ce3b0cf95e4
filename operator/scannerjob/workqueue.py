"""A delaying queue of keys, as Kubernetes' own controllers use it, for one event loop.

A key is worked on by one worker at a time. One that is added while it waits, or while it is worked
on, is worked on once more; it waits until the earliest time for which it was added.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_NEVER = float("inf")
# A key that is woken often and waits long leaves many behind.
_VOID_LINES = 1000


@dataclass(slots=True)
class _Entry:
    """Times are the event loop's; `due` is when to work on the key next."""

    due: float = _NEVER
    rest_until: float = 0.0
    taken: bool = False


class WorkQueue(Generic[_Key]):
    """Keys that are due now or later. All methods must be called in the event loop.

    Due keys are handed out in the order of their times, so that one which is added again and again
    stands behind all that were due before. While the queue is paused nothing is handed out, and
    what is added is remembered.
    """

    def __init__(self) -> None:
        self._entries: dict[_Key, _Entry] = {}
        # Lines whose time is no longer that of their entry are void.
        self._line: list[tuple[float, int, _Key]] = []
        self._number = itertools.count()
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        self._moved_on = 0.0
        self._paused = False

    def __contains__(self, key: _Key) -> bool:
        """Whether this key waits or is worked on."""
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def paused(self) -> bool:
        """Whether nothing is handed out."""
        return self._paused

    def add(self, key: _Key, delay: float = 0.0) -> None:
        """Have this key worked on after so many seconds, or at the earlier time it waits for."""
        entry = self._entries.setdefault(key, _Entry())
        due = max(_now() + delay, entry.rest_until)
        if due < entry.due:
            entry.due = due
            if not entry.taken:
                self._line_up(key, entry)

    async def get(self) -> _Key:
        """The key that has been due for longest, as soon as one is; call `done` when it is done.

        Any number of workers may wait.
        """
        # One at a time looks at the clock; the others wait for their turn.
        async with self._turn:
            while (seconds := self._until_next()) > 0:
                self._changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._changed.wait()
            return self._take_next()

    def take(self, key: _Key) -> bool:
        """Take this very key, due or not, paused or not. False if it is worked on, or unknown."""
        entry = self._entries.get(key)
        if entry is None or entry.taken:
            return False
        self._hand_out(entry)
        return True

    def done(self, key: _Key, rest: float = 0.0) -> None:
        """The work on this key has ended; it is not handed out again within `rest` seconds.

        A key that was not added meanwhile is forgotten.
        """
        entry = self._entries[key]
        entry.taken = False
        if entry.due == _NEVER:
            del self._entries[key]
            return
        entry.rest_until = _now() + rest
        entry.due = max(entry.due, entry.rest_until)
        self._line_up(key, entry)

    def pause(self) -> None:
        """Hand out nothing from now on."""
        self._paused = True
        self._changed.set()

    def resume(self) -> None:
        """Hand out again; all keys are due now."""
        if not self._paused:
            return
        self._paused = False
        self._moved_on = _now()
        for key in self._entries:
            self.add(key)
        self._changed.set()

    def stuck(self) -> float:
        """For how many seconds keys have been due, and none was handed out; 0 while paused."""
        if self._paused:
            return 0.0
        return max(0.0, _now() - max(self._first_due(), self._moved_on))

    def _line_up(self, key: _Key, entry: _Entry) -> None:
        heapq.heappush(self._line, (entry.due, next(self._number), key))
        if self._line[0][2] == key:
            self._changed.set()
        if len(self._line) > 2 * len(self._entries) + _VOID_LINES:
            self._drop_void_lines()

    def _drop_void_lines(self) -> None:
        self._line = [line for line in self._line if not self._is_void(line)]
        heapq.heapify(self._line)

    def _until_next(self) -> float:
        return _NEVER if self._paused else self._first_due() - _now()

    def _first_due(self) -> float:
        while self._line and self._is_void(self._line[0]):
            heapq.heappop(self._line)
        return self._line[0][0] if self._line else _NEVER

    def _is_void(self, line: tuple[float, int, _Key]) -> bool:
        due, _, key = line
        entry = self._entries.get(key)
        return entry is None or entry.taken or entry.due != due

    def _take_next(self) -> _Key:
        _, _, key = heapq.heappop(self._line)
        self._hand_out(self._entries[key])
        return key

    def _hand_out(self, entry: _Entry) -> None:
        entry.taken, entry.due = True, _NEVER
        self._moved_on = _now()


def _now() -> float:
    return asyncio.get_running_loop().time()
