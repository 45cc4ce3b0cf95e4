"""What one worker's executions hold: their leases, renewed, and their ends, written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Protocol

from scannerjob.worker.records import Execution, State, Store

_AGAIN = 1.0
"""In seconds: when a store that could not be asked is asked again."""

DIED = "its worker process died"
"""The reason of what a process held when it ended."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class End:
    """How an execution ended, where the store has not been told yet; see `Store.finish`."""

    execution: Execution
    state: State
    reason: str = ""
    delay: float = 0.0


class Heir(Protocol):
    """Who knows what is to be written if nobody is left to do so; see `journal.Journal`."""

    def put(self, end: End) -> None:
        """Have this written then."""
        ...

    def drop(self, owner: str) -> None:
        """There is nothing to be written of it any more."""
        ...


class _Nobody:
    def put(self, end: End) -> None: ...
    def drop(self, owner: str) -> None: ...


class Leases:
    """Renews leases every `beat` seconds, for `lease` seconds each. For the use of one thread."""

    def __init__(self, store: Store, lease: float, beat: float, heir: Heir | None = None) -> None:
        self._store = store
        self._lease = lease
        self._beat = beat
        self._heir = heir or _Nobody()
        self._next = 0.0
        self._held: dict[str, Execution] = {}
        self._ends: list[End] = []
        self._troubled = False

    def hold(self, execution: Execution) -> None:
        """Renew its lease from the next beat on."""
        self._held[execution.owner] = execution
        self.watch(execution)

    def watch(self, execution: Execution) -> None:
        """Have it end as failed if nobody is left to tell of it; its lease is not renewed."""
        self._heir.put(End(execution, State.FAILED, DIED))

    def release(self, owner: str) -> None:
        """Leave it alone from now on."""
        self._held.pop(owner, None)
        self._heir.drop(owner)

    def end(self, end: End) -> None:
        """Have the store told, with the next `act`, and again until it has been."""
        self._held.pop(end.execution.owner, None)
        self._heir.put(end)
        self._ends.append(end)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._held and not self._ends

    @property
    def due(self) -> float:
        """In seconds: when `act` is to be called next."""
        return 0.0 if self._has_news else max(0.0, self._next - time.monotonic())

    def act(self, frozen: Callable[[], Collection[str]] = frozenset) -> list[Execution]:
        """Do what is due; the executions that have lost their launches.

        `frozen` tells of the owners whose leases are to lapse: their processes do not run.
        """
        beats = time.monotonic() >= self._next
        if not beats and not self._has_news:
            return []
        lost: list[Execution] = []
        try:
            if beats:
                lost.extend(self._renew(frozen()))
                self._next = time.monotonic() + self._beat
            self._write_ends()
        except Exception as error:  # noqa: BLE001 - whatever a client raises, it is asked again
            self._tell(error)
            self._next = time.monotonic() + _AGAIN
        else:
            self._troubled = False
        return lost

    @property
    def _has_news(self) -> bool:
        """Whether there are ends that were not tried yet."""
        return bool(self._ends) and not self._troubled

    def _renew(self, frozen: Collection[str]) -> Iterator[Execution]:
        left = [each for owner, each in self._held.items() if owner not in frozen]
        while left:
            # A store answers by id, and a launch may be held twice: once by who has lost it.
            batch = {each.id: each for each in left}
            for each in self._store.renew(list(batch.values()), self._lease):
                self.release(batch[each].owner)
                yield batch[each]
            left = [each for each in left if each is not batch[each.id]]

    def _write_ends(self) -> None:
        # There may be many, and leases are renewed in between.
        while self._ends and time.monotonic() < self._next:
            # To the end of the line, lest one that fails should keep others waiting.
            end = self._ends.pop(0)
            self._ends.append(end)
            self._store.finish(end.execution, end.state, end.reason, end.delay)
            self._ends.pop()
            self._heir.drop(end.execution.owner)

    def _tell(self, error: Exception) -> None:
        if not self._troubled:
            _logger.warning(
                "the guard's store cannot be asked, and leases are not renewed: %s; "
                "trying again every second",
                error,
            )
        self._troubled = True
