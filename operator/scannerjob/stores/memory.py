"""A ledger in memory: the same compare-and-swap as the others, for tests and models."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from scannerjob.ports import ConflictError, Ref, Snapshot
from scannerjob.stores import reference


@dataclass
class _Record:
    spec: Mapping[str, Any]
    version: int
    generation: int = 1
    status: Mapping[str, Any] = field(default_factory=dict)
    uid: str = field(default_factory=lambda: str(uuid4()))


class MemoryStore:
    """A LedgerStore that lasts as long as its process. Versions are never used twice."""

    def __init__(self) -> None:
        self._records: dict[Ref, _Record] = {}
        self._marks: set[Ref] = set()
        self._requests: dict[Ref, dict[str, str]] = {}
        self._last_version = 0

    async def apply(self, document: Mapping[str, Any]) -> Ref:
        """Create the ScannerJob of this document, or give it this spec and a new generation."""
        ref, spec = reference(document), copy.deepcopy(document["spec"])
        record = self._records.get(ref)
        if record is None:
            self._records[ref] = _Record(spec, self._next_version())
        elif record.spec != spec:
            record.spec, record.version = spec, self._next_version()
            record.generation += 1
        return ref

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        """Ask the operator for something, as `scannerjob.dev/requested-NAME: NONCE` does."""
        self._requests.setdefault(ref, {})[name] = nonce

    def delete(self, ref: Ref) -> None:
        """Delete the ScannerJob and everything that is remembered of it."""
        del self._records[ref]
        self._marks.discard(ref)
        self._requests.pop(ref, None)

    def wipe(self, ref: Ref) -> None:
        """Lose the status, as a backup restored without it does."""
        record = self._records[ref]
        record.status, record.version = {}, self._next_version()

    async def read(self, ref: Ref) -> Snapshot | None:
        """See LedgerStore."""
        record = self._records.get(ref)
        return None if record is None else self._snapshot(ref, record)

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        """See LedgerStore."""
        record = self._unchanged(snapshot)
        # Through JSON and back, as the other stores do: what has no JSON form fails here too.
        record.status = json.loads(json.dumps(status))
        record.version = self._next_version()
        return self._snapshot(snapshot.ref, record)

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        """See LedgerStore."""
        record = self._unchanged(snapshot)
        self._marks.add(snapshot.ref)
        record.version = self._next_version()
        return self._snapshot(snapshot.ref, record)

    def _unchanged(self, snapshot: Snapshot) -> _Record:
        record = self._records.get(snapshot.ref)
        if record is None or str(record.version) != snapshot.version:
            raise ConflictError(f"{snapshot.ref} changed since it was read")
        return record

    def _next_version(self) -> int:
        self._last_version += 1
        return self._last_version

    def _snapshot(self, ref: Ref, record: _Record) -> Snapshot:
        return Snapshot(
            ref=ref,
            uid=record.uid,
            generation=record.generation,
            spec=copy.deepcopy(record.spec),
            status=copy.deepcopy(record.status),
            version=str(record.version),
            marked=ref in self._marks,
            requests=dict(self._requests.get(ref, {})),
        )
