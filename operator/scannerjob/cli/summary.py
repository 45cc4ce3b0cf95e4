"""What `status` shows: of each ScannerJob a line, of a single one all that its status tells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from scannerjob.cli.printing import ago, brief, columns, fields, styled
from scannerjob.model.conditions import find
from scannerjob.model.ledger import Phase, time_of_others
from scannerjob.ports import Snapshot

_COUNTS = ("active", "waiting", "parked", "cooling", "launched", "succeeded", "failed", "lost")
_HEADER = (
    "NAME",
    "READY",
    "REASON",
    "SUSPENDED",
    "ACTIVE",
    "CAP",
    "WAITING",
    "PARKED",
    "LAST LAUNCH",
)
# The condition that is good news when it is True.
_GOOD_IF_TRUE = ("Ready", "DatabaseReachable", "TargetReachable")
_MOST_ITEMS = 40


def summary(snapshot: Snapshot) -> dict[str, Any]:
    """One ScannerJob, for programs."""
    status = snapshot.status
    ready = find(status, "Ready")
    return {
        "namespace": snapshot.ref.namespace,
        "name": snapshot.ref.name,
        "ready": ready.get("status", "Unknown"),
        "reason": ready.get("reason", "NotSeenYet"),
        "message": ready.get("message", "no operator has looked at it so far"),
        "suspended": bool(snapshot.spec.get("suspend", False)),
        "concurrency": snapshot.spec.get("concurrency"),
        **{name: status.get(name, 0) for name in _COUNTS},
        "lastScanTime": status.get("lastScanTime"),
        "lastLaunchTime": status.get("lastLaunchTime"),
    }


def details(snapshot: Snapshot) -> dict[str, Any]:
    """As `summary`, with the conditions and every remembered row."""
    status = snapshot.status
    return {
        **summary(snapshot),
        "conditions": list(status.get("conditions", ())),
        "items": list(status.get("items", ())),
    }


def overview(snapshots: Sequence[Snapshot], now: datetime, *, everywhere: bool) -> Iterator[str]:
    """A line for each."""
    header = ("NAMESPACE", *_HEADER) if everywhere else _HEADER
    told = [summary(each) for each in snapshots]
    rows = [_line(each, now, everywhere=everywhere) for each in told]
    return columns(header, rows, [each["ready"] == "False" for each in told])


def _line(told: Mapping[str, Any], now: datetime, *, everywhere: bool) -> list[object]:
    launched = ago(time_of_others(told["lastLaunchTime"]), now)
    namespace = [told["namespace"]] if everywhere else []
    return [
        *namespace,
        *(told["name"], told["ready"], told["reason"], told["suspended"], told["active"]),
        *(told["concurrency"], told["waiting"], told["parked"], launched or "never"),
    ]


def report(snapshot: Snapshot, now: datetime) -> Iterator[str]:
    """All of one, for a person."""
    told = details(snapshot)
    yield styled(str(snapshot.ref), bold=True)
    yield from _indented(_conditions(told["conditions"], now))
    yield ""
    yield from _indented(
        fields(
            [
                ("slots", f"{told['active']} of {told['concurrency']} taken"),
                ("rows", ", ".join(f"{told[name]} {name}" for name in _COUNTS[1:4])),
                ("so far", ", ".join(f"{told[name]} {name}" for name in _COUNTS[4:])),
                ("last scan", _when(told["lastScanTime"], now)),
                ("last launch", _when(told["lastLaunchTime"], now)),
                ("suspended", "nothing is launched" if told["suspended"] else ""),
            ]
        )
    )
    if told["items"]:
        yield ""
        yield from _indented(_items(told["items"], now))


def _conditions(conditions: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    if not conditions:
        yield "no operator has looked at it so far"
        return
    ordered = sorted(conditions, key=lambda each: (not _is_bad(each), str(each.get("type"))))
    rows = [
        [
            *(each.get("type"), each.get("status"), each.get("reason")),
            ago(time_of_others(each.get("lastTransitionTime")), now),
            each.get("message", ""),
        ]
        for each in ordered
    ]
    header = ("CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE")
    yield from columns(header, rows, map(_is_bad, ordered))


def _is_bad(condition: Mapping[str, Any]) -> bool:
    return (condition.get("status") == "True") != (condition.get("type") in _GOOD_IF_TRUE)


def _items(items: Sequence[Mapping[str, Any]], now: datetime) -> Iterator[str]:
    shown = items[:_MOST_ITEMS]
    rows = [
        [
            *(each.get("key"), each.get("phase"), each.get("attempt")),
            ago(time_of_others(each.get("since")), now),
            _until(time_of_others(each.get("until")), now),
            each.get("reason", ""),
        ]
        for each in shown
    ]
    header = ("ROW", "PHASE", "ATTEMPT", "SINCE", "UNTIL", "REASON")
    yield from columns(header, rows, [each.get("phase") == Phase.PARKED for each in shown])
    if len(items) > len(shown):
        yield f"and {len(items) - len(shown)} more: --output json shows all"


def _until(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return ""
    return f"in {brief(moment - now)}" if moment > now else "now"


def _when(text: str | None, now: datetime) -> str:
    moment = time_of_others(text)
    return f"{ago(moment, now)} ago" if moment else "never"


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)
