"""What a person may ask for: annotations `scannerjob.dev/requested-NAME`, each heeded once.

The value is a nonce, any text that was not there before; the ledger keeps the last one of each name
that was heeded. What is asked for never edits the ledger itself: the operator does, in its cycle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import ORPHAN_AFTER, SEND_WITHIN

# Launch again, though the ledger vanished: nothing of the launches that stood in it runs any more.
ACCEPT_LOST_LEDGER = "accept-lost-ledger"
# Look at the rows now.
SCAN = "scan"
# Launch a row that waits or is parked anew, now. The nonce ends with a blank and the row's key, or
# with `*` in place of the key: all that are parked.
RETRY = "retry"
# Give up what is out, while suspended: nothing of it runs any more, nor ever will.
FORCE_DRAIN = "force-drain"

NAMES = (ACCEPT_LOST_LEDGER, SCAN, RETRY, FORCE_DRAIN)
ALL_PARKED = "*"
# In characters: a nonce that the schema of the status refuses would block every write.
MAX_NONCE = 253

# Who claimed it may still be sending it.
_SENDERS_OWN = SEND_WITHIN + ORPHAN_AFTER


def known(requests: Mapping[str, str]) -> dict[str, str]:
    """Those that mean something. Others are whatever a person wrote, and as many as they like."""
    return {name: nonce for name, nonce in requests.items() if name in NAMES}


def asks_anew(name: str, requests: Mapping[str, str], ledger: Ledger) -> bool:
    """Whether this was asked for, and was not heeded yet."""
    nonce = requests.get(name)
    return nonce is not None and nonce != ledger.handled_requests.get(name)


def heed(ledger: Ledger, requests: Mapping[str, str], *, suspended: bool, now: datetime) -> Ledger:
    """The ledger once all that is asked for anew is done, as far as it is done in the ledger."""
    asked = {
        name: nonce for name, nonce in known(requests).items() if asks_anew(name, requests, ledger)
    }
    if not asked:
        return ledger
    second = now.replace(microsecond=0)
    if ACCEPT_LOST_LEDGER in asked:
        ledger = replace(ledger, lost_at=None, lost_until=None)
    if RETRY in asked:
        ledger = _retry(ledger, asked[RETRY].partition(" ")[2], second)
    if FORCE_DRAIN in asked and suspended:
        ledger = _give_up(ledger, second)
    return replace(ledger, handled_requests={**known(ledger.handled_requests), **asked})


def _retry(ledger: Ledger, key: str, now: datetime) -> Ledger:
    def wanted(item: Item) -> bool:
        if key == ALL_PARKED:
            return item.phase is Phase.PARKED
        return item.key == key and item.phase in (Phase.WAITING, Phase.PARKED)

    items = tuple(
        replace(item, phase=Phase.WAITING, attempt=1, since=now, until=now)
        if wanted(item)
        else item
        for item in ledger.items
    )
    return replace(ledger, items=items)


def _give_up(ledger: Ledger, now: datetime) -> Ledger:
    """Free the slots: the rows that still match are launched again once it is resumed.

    No attempt is spent, since how it ended is not known. What may be about to be sent stays: a
    claim, and a launch that is sent once more.
    """
    gone = [item for item in ledger.outstanding if _was_sent(item, now)]
    ids = {item.id for item in gone}
    items = tuple(_given_up(item, now) if item.id in ids else item for item in ledger.items)
    return replace(
        ledger,
        items=items,
        # A claim that is given up may have been sent, even if nobody lived to say so.
        launched=ledger.launched + sum(item.phase is Phase.CLAIMED for item in gone),
        lost=ledger.lost + len(gone),
    )


def _was_sent(item: Item, now: datetime) -> bool:
    sent_once = item.phase is Phase.LAUNCHED and item.sends == 1
    return sent_once or item.since + _SENDERS_OWN <= now


def _given_up(item: Item, now: datetime) -> Item:
    return replace(
        item,
        phase=Phase.WAITING,
        since=now,
        claimed=None,
        until=now,
        reason="GivenUp",
        query_hash=None,
    )
