"""Runs many ScannerJobs: a queue of those that are due, and a few workers that run their cycles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from scannerjob.clock import SystemClock
from scannerjob.model.limits import MIN_LOOK_DISTANCE
from scannerjob.ports import Clock, Connector, LedgerStore, Recorder, Ref
from scannerjob.scan import Scanner
from scannerjob.workqueue import WorkQueue

log = logging.getLogger(__name__)

# How many cycles may be begun at once: enough to wait for many databases at a time, few enough for
# thousands of ScannerJobs that are all due to take their turns.
WORKERS = 32
# What a cycle may take before another is begun in its place: it is waiting for something that
# hangs, and must keep no worker from the others.
_LET_GO_AFTER = 1.0
# What a crashed cycle waits: a bug in one ScannerJob's cycle must neither stop it for ever nor
# spin.
_AFTER_A_BUG = 10.0
_MIN_CYCLE_DISTANCE = timedelta(milliseconds=5)
# How long a stop waits for cycles that are under way: a send has 30 s, then its outcome is
# recorded.
STOP_WITHIN = 40.0
_LAST_TRIES = 3


def _always() -> bool:
    return True


class Engine:
    """Runs the cycles of all ScannerJobs it was told of. Must be made in the event loop.

    Cycles of one ScannerJob never overlap, and wake-ups that come while one runs count as one. A
    ScannerJob that waits, for a database that hangs for instance, delays no other: after a second
    its worker goes on to the next.

    `may_begin` is asked before each cycle: where it says no, the engine pauses itself.
    """

    def __init__(
        self,
        store: LedgerStore,
        connector: Connector,
        clock: Clock | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.may_begin: Callable[[], bool] = _always
        self._store = store
        self._connector = connector
        self._clock = clock or SystemClock()
        self._recorder = recorder
        self._queue: WorkQueue[Ref] = WorkQueue()
        # What they remember is worth keeping between two cycles, and nothing more.
        self._scanners: dict[Ref, Scanner] = {}
        self._under_way: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._workers = [asyncio.create_task(self._work()) for _ in range(WORKERS)]

    def wake(self, ref: Ref) -> None:
        """Look at this ScannerJob as soon as it may be. Must be called in the event loop."""
        if not self._closing:
            self._queue.add(ref)

    def wake_from_thread(self, ref: Ref) -> None:
        """As `wake`, from any thread; nothing once the event loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.wake, ref)

    def forget(self, ref: Ref) -> None:
        """The object may be gone, or something of it: its next cycle sees for itself, now."""
        if ref in self._queue:
            self.wake(ref)

    def pause(self) -> None:
        """Begin no cycle. Those under way end, their sends included, and are written down."""
        if not self._queue.paused:
            self._queue.pause()
            self._write_reports()

    def _write_reports(self) -> None:
        for ref, scanner in list(self._scanners.items()):
            if scanner.has_reports and self._queue.take(ref):
                self._start(ref)

    def resume(self) -> None:
        """Run all that is known, and go on."""
        if not self._closing:
            self._queue.resume()

    @property
    def stuck(self) -> float:
        """For how many seconds ScannerJobs have been due and not one was begun; 0 while paused."""
        return self._queue.stuck()

    async def close(self) -> None:
        """Stop: cycles under way end, their sends included, and what is known is written down.

        Takes at most STOP_WITHIN.
        """
        self._closing = True
        self._queue.pause()
        self._write_reports()
        for worker in self._workers:
            worker.cancel()
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=STOP_WITHIN)
            for task in late:
                task.cancel()

    async def _work(self) -> None:
        while True:
            ref = await self._queue.get()
            if self.may_begin():
                await asyncio.wait([self._start(ref)], timeout=_LET_GO_AFTER)
            else:
                self._queue.add(ref)
                self._queue.done(ref)
                self.pause()

    def _start(self, ref: Ref) -> asyncio.Task[None]:
        task = asyncio.create_task(self._run(ref), name=str(ref))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _run(self, ref: Ref) -> None:
        """One cycle, of a key that was taken from the queue."""
        scanner = self._scanners.get(ref)
        if scanner is None:
            scanner = Scanner(
                ref, self._store, self._connector, self._clock, recorder=self._recorder
            )
            self._scanners[ref] = scanner
        delay: float | None = 0.0
        if not self._queue.paused:
            delay = await self._cycle(scanner)
        if self._queue.paused:
            await self._report(scanner)
        self._plan(ref, delay)

    def _plan(self, ref: Ref, delay: float | None) -> None:
        if delay is None:
            # Woken while its last cycle found the object gone, it may have been created anew.
            del self._scanners[ref]
            self._queue.done(ref)
        else:
            self._queue.add(ref, delay)
            # Wake-ups in quick succession count as one. One that only wrote down what it knew keeps
            # nothing from the next look.
            rest = MIN_LOOK_DISTANCE if self._scanners[ref].looked else _MIN_CYCLE_DISTANCE
            self._queue.done(ref, rest=min(delay, rest.total_seconds()))

    async def _report(self, scanner: Scanner) -> None:
        """Write down what is known of our sends: nobody else knows it."""
        # Another process's write may come between: it is worth a few tries.
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
