"""Keeps a worker's journal, and looks for those of dead ones, in a thread of its own.

A disk may hang, or be frozen for a snapshot; leases are to be renewed all the same.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

from scannerjob.worker.journal import Journal, Journals
from scannerjob.worker.leases import End
from scannerjob.worker.records import BEAT


class Clerk:
    """Keeps the journal at `path`, of which `descriptor` is that of the locked file.

    Nothing here waits for a disk.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._journal = Journal(descriptor)
        self._to_do: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._left: SimpleQueue[End] = SimpleQueue()
        threading.Thread(target=self._work, name="journal", daemon=True).start()

    def put(self, end: End) -> None:
        """See `Journal`."""
        self._to_do.put(lambda: self._journal.put(end))

    def drop(self, owner: str) -> None:
        """See `Journal`."""
        self._to_do.put(lambda: self._journal.drop(owner))

    def left(self) -> Iterator[End]:
        """What was found since of workers that have died."""
        with suppress(Empty):
            while True:
                yield self._left.get_nowait()

    def remove(self) -> None:
        """There is nobody left who could leave anything."""
        with suppress(OSError):
            self._path.unlink()

    def _work(self) -> None:
        others, look_at = Journals.beside(self._path), time.monotonic()
        while True:
            with suppress(Empty):
                self._to_do.get(timeout=max(0.0, look_at - time.monotonic()))()
            if time.monotonic() >= look_at:
                self._inherit(others.left())
                look_at = time.monotonic() + BEAT

    def _inherit(self, ends: Iterable[End]) -> None:
        for end in ends:
            # Before it is removed from where it stood.
            self._journal.put(end)
            self._left.put(end)
