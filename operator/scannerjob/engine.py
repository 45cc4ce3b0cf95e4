"""Runs many ScannerJobs at once: one task for each, woken by an event or when its time has come."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from scannerjob.clock import SystemClock
from scannerjob.model.limits import MIN_LOOK_DISTANCE
from scannerjob.ports import Clock, Connector, LedgerStore, Ref
from scannerjob.scan import Scanner

log = logging.getLogger(__name__)

# What a crashed cycle waits: a bug in one ScannerJob's cycle must neither stop it for ever nor
# spin.
_AFTER_A_BUG = 10.0
# How long a stop waits for cycles that are under way: a send has 30 s, then its outcome is
# recorded.
STOP_WITHIN = 40.0
_LAST_TRIES = 3


class Engine:
    """Runs the cycles of all ScannerJobs it was told of.

    Cycles of one ScannerJob never overlap, and wake-ups that come while one runs count as one. A
    ScannerJob that waits, for a database that hangs for instance, delays no other: nothing is
    shared between their tasks but what the adapters bound.
    """

    def __init__(
        self, store: LedgerStore, connector: Connector, clock: Clock | None = None
    ) -> None:
        self._store = store
        self._connector = connector
        self._clock = clock or SystemClock()
        self._wakes: dict[Ref, asyncio.Event] = {}
        self._tasks: dict[Ref, asyncio.Task[None]] = {}
        self._stopping = asyncio.Event()

    def wake(self, ref: Ref) -> None:
        """Look at this ScannerJob now. Must be called in the event loop."""
        if self._stopping.is_set():
            return
        self._wakes.setdefault(ref, asyncio.Event()).set()
        if ref not in self._tasks:
            task = asyncio.create_task(self._run(ref), name=str(ref))
            self._tasks[ref] = task
            task.add_done_callback(lambda _: self._ended(ref))

    def forget(self, ref: Ref) -> None:
        """The object may be gone: the next cycle sees for itself, and ends the task if it is."""
        if ref in self._tasks:
            self._wakes[ref].set()

    async def close(self) -> None:
        """Stop: cycles under way end, their sends included, and what is known is written down."""
        self._stopping.set()
        for wake in self._wakes.values():
            wake.set()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=STOP_WITHIN)
            for task in late:
                task.cancel()

    def _ended(self, ref: Ref) -> None:
        self._tasks.pop(ref, None)
        wake = self._wakes.pop(ref, None)
        # Woken while its last cycle found the object gone: it may have been created anew.
        if wake is not None and wake.is_set():
            self.wake(ref)

    async def _run(self, ref: Ref) -> None:
        scanner = Scanner(ref, self._store, self._connector, self._clock)
        wake = self._wakes[ref]
        while not self._stopping.is_set():
            wake.clear()
            delay = await self._cycle(scanner)
            if delay is None:
                return
            await _wait(wake, delay)
        # Another process's write may come between: what is known of our sends is worth a few tries.
        for _ in range(_LAST_TRIES):
            if scanner.has_reports:
                await self._cycle(scanner, stopping=True)

    async def _cycle(self, scanner: Scanner, *, stopping: bool = False) -> float | None:
        try:
            return await scanner.cycle(stopping=stopping)
        except Exception:
            log.exception(
                "%s: a bug ended its cycle; next try in %.0f s", scanner.ref, _AFTER_A_BUG
            )
            return _AFTER_A_BUG


async def _wait(wake: asyncio.Event, seconds: float) -> None:
    """Return after this long, or when woken; wake-ups in quick succession count as one."""
    await asyncio.sleep(min(seconds, MIN_LOOK_DISTANCE.total_seconds()))
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wake.wait()
