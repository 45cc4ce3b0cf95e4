"""The ledger: every row the operator remembers and why, as it stands in `status`.

Nothing is launched that was not first written here. One list of items, one phase each; the counters
stand beside them, so that an outcome and its count change in the same write.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

LEDGER_VERSION = 1

# What no program of ours ever wrote. There is room for what is added before it is read again: a
# number that the schema does not take, or a time that no clock shows, would keep all from being
# written.
_MAX_COUNT = 2**53
_MAX_TRIES = 1_000_000
_YEARS = range(1970, 9000)


class LedgerError(ValueError):
    """A ledger that this version cannot read. Nothing may be launched on top of it."""


class Phase(StrEnum):
    """Why a row is remembered."""

    CLAIMED = "Claimed"  # recorded; whether the launch happened is not known
    LAUNCHED = "Launched"  # the broker or the API server accepted it
    COOLING = "Cooling"  # finished; not looked at again until `until`
    WAITING = "Waiting"  # failed or lost; the next attempt is due at `until`
    PARKED = "Parked"  # out of attempts; a person must look, or the row must leave the query


OUTSTANDING = frozenset({Phase.CLAIMED, Phase.LAUNCHED})


@dataclass(frozen=True, slots=True)
class Item:
    """One remembered row.

    `id` names the launch (a Celery task id, part of a Job's name) and is new for every attempt;
    `sends` counts how often that launch was claimed for sending. `since` is the time of the last
    claim while the item holds a slot, else of its last change of phase; `claimed` that of the first
    claim, set only where there were more. `until` is when a launch can no longer be alive
    (outstanding), when a rest ends (Waiting, Cooling), or absent. `query_hash` is set only where
    the row was claimed under another query than the ledger's present one.
    """

    key: str
    id: str
    phase: Phase
    attempt: int
    sends: int
    since: datetime
    claimed: datetime | None = None
    until: datetime | None = None
    reason: str | None = None
    query_hash: str | None = None

    @property
    def outstanding(self) -> bool:
        """Whether this item holds a slot."""
        return self.phase in OUTSTANDING

    @property
    def first_claimed(self) -> datetime:
        """When this launch was first claimed; it may have been sent ever since."""
        return self.claimed or self.since


@dataclass(frozen=True)
class Ledger:
    """All remembered rows, in the order in which they were first claimed, and the counters.

    `key` names the columns that they are known by. `last_settled` is when a launch last ended as
    one does that a worker has run. `lost_at` is set while the ledger stands in for one that
    vanished: launches may be out of which nothing is known; `lost_until` is when they must have
    ended, where that can be told.
    """

    items: tuple[Item, ...] = ()
    launched: int = 0
    succeeded: int = 0
    failed: int = 0
    lost: int = 0
    query_hash: str | None = None
    key: tuple[str, ...] = ()
    endpoints: Mapping[str, str] = field(default_factory=dict)
    last_launch: datetime | None = None
    last_settled: datetime | None = None
    lost_at: datetime | None = None
    lost_until: datetime | None = None
    handled_requests: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def outstanding(self) -> tuple[Item, ...]:
        """The items that hold a slot."""
        return tuple(item for item in self.items if item.outstanding)

    def count(self, phase: Phase) -> int:
        """How many items are in this phase."""
        return sum(item.phase is phase for item in self.items)


def ledger_to_status(ledger: Ledger) -> dict[str, Any]:
    """The part of `status` that is the ledger; nothing that is empty is written."""
    status: dict[str, Any] = {
        "ledgerVersion": LEDGER_VERSION,
        "items": [_item_to_status(item) for item in ledger.items],
        "active": len(ledger.outstanding),
        "waiting": ledger.count(Phase.WAITING),
        "parked": ledger.count(Phase.PARKED),
        "cooling": ledger.count(Phase.COOLING),
        "launched": ledger.launched,
        "succeeded": ledger.succeeded,
        "failed": ledger.failed,
        "lost": ledger.lost,
        "queryHash": ledger.query_hash,
        "key": list(ledger.key) or None,
        "endpoints": dict(ledger.endpoints),
        "lastLaunchTime": format_time(ledger.last_launch),
        "lastSettledTime": format_time(ledger.last_settled),
        "ledgerLostTime": format_time(ledger.lost_at),
        "ledgerLostUntil": format_time(ledger.lost_until),
        "handledRequests": dict(ledger.handled_requests) or None,
    }
    return {name: value for name, value in status.items() if value is not None}


def ledger_from_status(status: Mapping[str, Any]) -> Ledger | None:
    """The ledger in this `status`, or None where there is none yet.

    Raises LedgerError for one that a newer version wrote, or that was damaged: it is refused rather
    than guessed at, since whatever it held may still be running.
    """
    version = status.get("ledgerVersion")
    if version is None:
        return None
    if version != LEDGER_VERSION:
        raise LedgerError(
            f"status.ledgerVersion is {version}, this program writes {LEDGER_VERSION}: "
            "upgrade it again, or drain the ScannerJob with the program that wrote this"
        )
    try:
        return Ledger(
            items=_items_from_status(status.get("items", ())),
            launched=_number(status, "launched", _MAX_COUNT, default=0),
            succeeded=_number(status, "succeeded", _MAX_COUNT, default=0),
            failed=_number(status, "failed", _MAX_COUNT, default=0),
            lost=_number(status, "lost", _MAX_COUNT, default=0),
            query_hash=status.get("queryHash"),
            key=tuple(str(name) for name in status.get("key", ())),
            endpoints=dict(status.get("endpoints", {})),
            last_launch=parse_time(status.get("lastLaunchTime")),
            last_settled=parse_time(status.get("lastSettledTime")),
            lost_at=parse_time(status.get("ledgerLostTime")),
            lost_until=parse_time(status.get("ledgerLostUntil")),
            handled_requests=dict(status.get("handledRequests", {})),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise LedgerError(
            f"the ledger in status cannot be read ({error!r}): restore it, or delete the "
            "ScannerJob and create it anew once nothing of it is running"
        ) from None


def _item_to_status(item: Item) -> dict[str, Any]:
    entry = {
        "key": item.key,
        "id": item.id,
        "phase": item.phase.value,
        "attempt": item.attempt,
        "sends": item.sends,
        "since": format_time(item.since),
        "claimed": format_time(item.claimed),
        "until": format_time(item.until),
        "reason": item.reason,
        "queryHash": item.query_hash,
    }
    return {name: value for name, value in entry.items() if value is not None}


def _items_from_status(entries: Iterable[Mapping[str, Any]]) -> tuple[Item, ...]:
    items = tuple(_item_from_status(entry) for entry in entries)
    if len({item.key for item in items}) < len(items):
        raise ValueError("a key that stands there twice")
    return items


def _item_from_status(entry: Mapping[str, Any]) -> Item:
    since = parse_time(entry["since"])
    if since is None:
        raise ValueError("an item without since")
    return Item(
        key=str(entry["key"]),
        id=str(entry["id"]),
        phase=Phase(entry["phase"]),
        attempt=_number(entry, "attempt", _MAX_TRIES),
        sends=_number(entry, "sends", _MAX_TRIES),
        since=since,
        claimed=parse_time(entry.get("claimed")),
        until=parse_time(entry.get("until")),
        reason=entry.get("reason"),
        query_hash=entry.get("queryHash"),
    )


def _number(part: Mapping[str, Any], name: str, below: int, default: int | None = None) -> int:
    number = int(part[name] if default is None else part.get(name, default))
    if not 0 <= number < below:
        raise ValueError(f"{name}: {number}")
    return number


def format_time(moment: datetime | None) -> str | None:
    """RFC 3339 to the second, in UTC, as Kubernetes writes times."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def parse_time(text: str | None) -> datetime | None:
    """The reverse of `format_time`. Raises ValueError or TypeError for what it never wrote."""
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"a time without a zone: {text}")
    if moment.year not in _YEARS:
        raise ValueError(f"a time that no clock shows: {text}")
    return moment


def time_of_others(text: str | None) -> datetime | None:
    """A time that whoever may write a status may have written; None for what is none.

    The API server takes the year 0 too.
    """
    try:
        return parse_time(text)
    except (TypeError, ValueError):
        return None
