"""The status as it is written: the ledger, the conditions, and whether it is worth a write."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from scannerjob.model.conditions import Condition, stamped
from scannerjob.model.ledger import Ledger, format_time, ledger_to_status, time_of_others
from scannerjob.model.limits import LAST_SCAN_EVERY
from scannerjob.ports import Snapshot


def unusable_status(
    snapshot: Snapshot, said: Iterable[Condition], ledger: Ledger | None, now: datetime
) -> dict[str, Any]:
    """The status of a ScannerJob that cannot be run: its ledger is left as it is, if None is new.

    Another one is there only if a person asked for the change.
    """
    changed = ledger_to_status(ledger) if ledger else {}
    return dict(snapshot.status) | _common(snapshot, said, now) | changed


def cycle_status(
    snapshot: Snapshot, ledger: Ledger, said: Iterable[Condition], looked: bool, now: datetime
) -> dict[str, Any]:
    """The status after a cycle; `looked` says that the database was read in it."""
    status = _common(snapshot, said, now) | ledger_to_status(ledger)
    last_scan = format_time(now) if looked else snapshot.status.get("lastScanTime")
    return status | ({"lastScanTime": last_scan} if last_scan else {})


def _common(snapshot: Snapshot, said: Iterable[Condition], now: datetime) -> dict[str, Any]:
    previous = snapshot.status.get("conditions", ())
    return {
        "observedGeneration": snapshot.generation,
        "selector": f"scannerjob.dev/uid={snapshot.uid}",
        "conditions": stamped(said, previous, snapshot.generation, now),
    }


def differs(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether a status is worth a write: `lastScanTime` alone is only now and then."""
    if {**status, "lastScanTime": None} != {**before, "lastScanTime": None}:
        return True
    now, then = (time_of_others(each.get("lastScanTime")) for each in (status, before))
    return now is not None and (then is None or abs(now - then) >= LAST_SCAN_EVERY)
