"""What a cycle tells the log: launches, rows that are given up, and changes of `Ready`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from scannerjob.model.conditions import find
from scannerjob.model.facts import Fact, Observation
from scannerjob.model.ledger import Item, Ledger, Phase, format_time
from scannerjob.ports import Ref

log = logging.getLogger(__name__)

# A cycle in which a thousand rows fail needs no thousand lines: the ledger names them all.
_MAX_ROWS = 10


def tell_launched(ref: Ref, outcomes: Sequence[Observation], ledger: Ledger, cap: int) -> None:
    """How many of a cycle's sends were accepted, and how many slots are taken now."""
    accepted = sum(seen.fact is Fact.ACCEPTED for seen in outcomes)
    if accepted:
        taken = len(ledger.outstanding)
        log.info("%s: launched %d; %d of %d slots are taken", ref, accepted, taken, cap)


def tell_ended(ref: Ref, before: Ledger, after: Ledger) -> None:
    """Which rows have to wait after a failure or a loss, and which are out of attempts."""
    ended = [item for item in after.items if _is_new(item, before)]
    for item in ended[:_MAX_ROWS]:
        parked = item.phase is Phase.PARKED
        fate = (
            f"parked after attempt {item.attempt}"
            if parked
            else f"to be tried again at {format_time(item.until)}"
        )
        log.warning("%s: row %s: %s; %s", ref, item.key, item.reason, fate)
    if len(ended) > _MAX_ROWS:
        log.warning("%s: the same of %d more rows", ref, len(ended) - _MAX_ROWS)


def _is_new(item: Item, before: Ledger) -> bool:
    known = before.by_id.get(item.id)
    given_up = item.phase in (Phase.WAITING, Phase.PARKED)
    return given_up and (known is None or known.phase is not item.phase)


def tell_ready(
    ref: Ref, before: Mapping[str, Any], after: Mapping[str, Any], *, told: bool
) -> None:
    """What `Ready` says, when its reason changes; not if its trouble was `told` as it happened."""
    was, ready = find(before, "Ready"), find(after, "Ready")
    if told or not ready or ready["reason"] == was.get("reason"):
        return
    level = logging.INFO if ready["reason"] == "Scanning" else logging.WARNING
    log.log(level, "%s: %s: %s", ref, ready["reason"], ready["message"])
