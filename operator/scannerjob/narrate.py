"""What a cycle tells people: the log of launches and failures, and of changes the events too."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from scannerjob.model.conditions import find
from scannerjob.model.facts import Fact, Observation
from scannerjob.model.ledger import Item, Ledger, Phase, format_time
from scannerjob.model.notice import Notice
from scannerjob.model.printable import printable
from scannerjob.ports import Recorder, Ref, Snapshot

log = logging.getLogger(__name__)

# A cycle in which a thousand rows fail needs no thousand lines: the ledger names them all.
_MAX_ROWS = 10
_SHOWN_KEY = 80
# What is wrong while these are True; `Ready` is the other way round.
_ABNORMAL = ("ScanNotIndexed", "Stalled", "WorkersMissing")


def tell_launched(ref: Ref, outcomes: Sequence[Observation], ledger: Ledger, cap: int) -> None:
    """How many of a cycle's sends were accepted, and how many slots are taken now."""
    accepted = sum(seen.fact is Fact.ACCEPTED for seen in outcomes)
    if accepted:
        taken = len(ledger.outstanding)
        log.info("%s: launched %d; %d of %d slots are taken", ref, accepted, taken, cap)


def tell_waiting(ref: Ref, before: Ledger, after: Ledger) -> None:
    """Which rows have to wait after a failure or a loss, or are launched again without a wait."""
    _tell_again(ref, _newly(Phase.WAITING, before, after))
    _tell_again(ref, _relaunched(before, after))


def _tell_again(ref: Ref, items: Sequence[Item]) -> None:
    for item in items[:_MAX_ROWS]:
        again = f"at {format_time(item.until)}" if item.phase is Phase.WAITING else "at once"
        log.warning("%s: row %s: %s; to be tried again %s", ref, item.key, item.reason, again)
    if len(items) > _MAX_ROWS:
        log.warning("%s: the same of %d more rows", ref, len(items) - _MAX_ROWS)


def tell_parked(
    snapshot: Snapshot, before: Ledger, after: Ledger, recorder: Recorder | None
) -> None:
    """Which rows are out of attempts, in one notice for all of a cycle's."""
    if parked := _newly(Phase.PARKED, before, after):
        _tell(snapshot, _parked(parked), recorder)


def tell_changes(
    snapshot: Snapshot, status: Mapping[str, Any], recorder: Recorder | None, *, told: bool
) -> None:
    """What the conditions say now, where it is something else than before.

    Not to the log if the trouble of `Ready` was `told` there as it happened.
    """
    for notice in _ready(snapshot.status, status):
        _tell(snapshot, notice, recorder, logged=not told)
    for kind in _ABNORMAL:
        for notice in _abnormal(kind, snapshot.status, status):
            _tell(snapshot, notice, recorder)


def _tell(
    snapshot: Snapshot, notice: Notice, recorder: Recorder | None, *, logged: bool = True
) -> None:
    if logged:
        level = logging.INFO if notice.type == "Normal" else logging.WARNING
        log.log(level, "%s: %s: %s", snapshot.ref, notice.reason, notice.message)
    if recorder is not None:
        recorder.record(snapshot.ref, snapshot.uid, notice)


def _newly(phase: Phase, before: Ledger, after: Ledger) -> list[Item]:
    """The rows that are in this phase and were not."""
    there = {item.id for item in before.items if item.phase is phase}
    return [item for item in after.items if item.phase is phase and item.id not in there]


def _relaunched(before: Ledger, after: Ledger) -> list[Item]:
    """The rows of which one launch has ended and the next is claimed, in the same write."""
    was_out = {item.key: item.id for item in before.outstanding}
    return [item for item in after.outstanding if was_out.get(item.key, item.id) != item.id]


def _parked(parked: Sequence[Item]) -> Notice:
    keys = ", ".join(item.key[:_SHOWN_KEY] for item in parked[:_MAX_ROWS])
    more = f", and {len(parked) - _MAX_ROWS} more" if len(parked) > _MAX_ROWS else ""
    rows = "1 row is" if len(parked) == 1 else f"{len(parked)} rows are"
    message = f"{rows} out of attempts: {keys}{more}; last reason: {parked[-1].reason}"
    return Notice("Warning", "RowsParked", printable(message))


def _ready(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Notice]:
    """`Ready`, when its reason has changed."""
    was, ready = find(before, "Ready"), find(after, "Ready")
    if ready and ready["reason"] != was.get("reason"):
        good = ready["status"] == "True"
        yield Notice("Normal" if good else "Warning", ready["reason"], ready["message"])


def _abnormal(kind: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Notice]:
    """A condition that is True when something is wrong: when it becomes so, and when no longer."""
    was, now = find(before, kind), find(after, kind)
    wrong = now.get("status") == "True"
    if not now or wrong == (was.get("status") == "True"):
        return
    message = now["message"] or f"{kind} is {now['status']}"
    yield Notice("Warning" if wrong else "Normal", now["reason"], message)
