"""What was dated by a clock that was ahead, dated anew: else its rests would last for that long."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from scannerjob.model.book import whole
from scannerjob.model.ledger import Item, Ledger
from scannerjob.model.limits import CLOCKS_DIFFER


def redated(ledger: Ledger, now: datetime) -> Ledger:
    """The ledger as if all that it dates in the future had happened now.

    A clock was set back: that of the operator who wrote it, or ours. When a launch that is out can
    no longer be alive is left as it is, since its message bears times of the same clock.
    """
    items = tuple(_redated(item, now) for item in ledger.items)
    settled = ledger.last_settled
    if settled is not None and _is_ahead(settled, now):
        settled = now.replace(microsecond=0)
    return replace(ledger, items=items, last_settled=settled)


def _redated(item: Item, now: datetime) -> Item:
    if not _is_ahead(item.since, now):
        return item
    second = now.replace(microsecond=0)
    until = item.until
    if until is not None and not item.outstanding:
        until = whole(now + (until - item.since))
    claimed = min(item.claimed, second) if item.claimed else None
    return replace(item, since=second, claimed=claimed, until=until)


def _is_ahead(moment: datetime, now: datetime) -> bool:
    return moment > now + CLOCKS_DIFFER
