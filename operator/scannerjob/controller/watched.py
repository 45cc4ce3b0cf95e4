"""A ledger store that knows from the watch what it would otherwise have to ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from scannerjob.apiserver import is_older
from scannerjob.clock import boottime
from scannerjob.ports import (
    ConflictError,
    LedgerStore,
    Ref,
    Snapshot,
    UnknownOutcomeError,
)
from scannerjob.stores.kubernetes import snapshot_of

# What was neither shown, written nor confirmed for so long is read anew, in case the watch was lost
# without a word. Resync confirms all that is unchanged more often than that.
TRUSTED_FOR = 90.0


@dataclass(frozen=True, slots=True)
class _Known:
    snapshot: Snapshot
    at: float


class WatchedStore:
    """A LedgerStore that answers `read` with the newest it was shown, or has written itself.

    That may be old, and costs nothing but a lost write: the next read after one asks the API
    server. `clock` gives seconds that never go back.
    """

    def __init__(self, store: LedgerStore, clock: Callable[[], float] = boottime) -> None:
        self._store = store
        self._clock = clock
        self._known: dict[Ref, _Known] = {}

    def seen(self, document: Mapping[str, Any]) -> None:
        """The watch has shown this ScannerJob."""
        self._learn(snapshot_of(document))

    def gone(self, document: Mapping[str, Any]) -> None:
        """The watch has shown that this ScannerJob was deleted; the next read asks whether it is.

        A deletion that is shown late says nothing of a later object of the same name.
        """
        deleted = snapshot_of(document)
        known = self._known.get(deleted.ref)
        if known and (known.snapshot.uid == deleted.uid or _at_least(deleted, known.snapshot)):
            self.doubt(deleted.ref)

    def doubt(self, ref: Ref) -> None:
        """Believe nothing of this ScannerJob: the next read asks the API server."""
        self._known.pop(ref, None)

    def confirm(self, ref: Ref, version: str) -> None:
        """The API server says that this is still its version."""
        known = self._known.get(ref)
        if known and known.snapshot.version == version:
            self._known[ref] = replace(known, at=self._clock())

    async def read(self, ref: Ref) -> Snapshot | None:
        """See LedgerStore."""
        known = self._known.get(ref)
        if known and self._clock() - known.at < TRUSTED_FOR:
            return known.snapshot
        # What the watch shows while this is under way may be newer; what it showed before is not.
        self.doubt(ref)
        read = await self._store.read(ref)
        return self._learn(read) if read else None

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        """See LedgerStore."""
        with self._doubting(snapshot.ref):
            return self._learn(await self._store.write(snapshot, status))

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        """See LedgerStore."""
        with self._doubting(snapshot.ref):
            return self._learn(await self._store.mark(snapshot))

    def _learn(self, new: Snapshot) -> Snapshot:
        """Keep the newer one; gives back what was learnt."""
        known = self._known.get(new.ref)
        if known is None or _at_least(new, known.snapshot):
            self._known[new.ref] = _Known(new, self._clock())
        return new

    @contextmanager
    def _doubting(self, ref: Ref) -> Iterator[None]:
        try:
            yield
        except (ConflictError, UnknownOutcomeError):
            self.doubt(ref)
            raise


def _at_least(new: Snapshot, old: Snapshot) -> bool:
    return not is_older(new.version, old.version)
