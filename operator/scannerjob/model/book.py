"""The ledger while it is being decided: what may happen to an item, each as one verb."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from zlib import crc32

from scannerjob.model.facts import Send, Stray, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import (
    ITEM_BYTES,
    MAX_LEDGER_BYTES,
    MAX_REASON,
    MAX_REMEMBERED,
    MAX_REPUBLISHED,
)
from scannerjob.model.reading import free_slots
from scannerjob.model.row import Row
from scannerjob.model.spec import ScannerJobSpec


class Book:
    """A ledger's items by key, and its counters, as of `now`, UTC.

    What is written down are whole seconds: `second` is the one that `now` lies in.
    """

    def __init__(
        self, spec: ScannerJobSpec, ledger: Ledger, traits: TargetTraits, now: datetime
    ) -> None:
        self.spec = spec
        self.now = now
        self.second = now.replace(microsecond=0)
        self.ledger = ledger
        self._traits = traits
        self._items = {item.key: item for item in ledger.items}
        self._active = len(ledger.outstanding)
        self._bytes = sum(_size(item.key) for item in ledger.items)

    def __contains__(self, key: str) -> bool:
        return key in self._items

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Item]:
        return iter(list(self._items.values()))

    @property
    def active(self) -> int:
        """How many items hold a slot."""
        return self._active

    def close(self) -> Ledger:
        """The ledger to write."""
        return replace(self.ledger, items=tuple(self._items.values()))

    def slot_is_free(self) -> bool:
        """Whether the cap allows one launch more."""
        return free_slots(self.spec, self._active) > 0

    def failure_would_fit(self, row: Row) -> bool:
        """Whether the ledger has room for this row even if it and all that are out fail."""
        fits = self._bytes + _size(row.key) <= MAX_LEDGER_BYTES
        return fits and len(self._items) < MAX_REMEMBERED + self.spec.concurrency

    # Taking a slot.

    def claim(self, row: Row, attempt: int, launch_id: str, reason: str | None = None) -> Send:
        """Record a launch of this row before it happens; `reason` is why there is one more."""
        lifetime = self.lifetime()
        until = whole(self.now + lifetime) if lifetime else None
        item = Item(row.key, launch_id, Phase.CLAIMED, attempt, 1, self.second, until=until)
        return self._send(replace(item, reason=reason), row)

    def claim_again(self, item: Item, row: Row) -> Send:
        """Record that the same launch is sent once more: the same id, and a count of its own."""
        again = replace(
            item, sends=item.sends + 1, since=self.second, claimed=item.first_claimed, reason=None
        )
        return self._send(again, row)

    def _send(self, item: Item, row: Row) -> Send:
        self._put(item)
        return Send(item, row, self._expires_at(item), self.spec.deadline)

    def is_remembered(self, item: Item) -> bool:
        """Whether the target still knows for certain if this launch was ever sent."""
        within = self._traits.resend_within
        return within is not None and self.now - item.first_claimed < within

    def may_send_again(self, item: Item) -> bool:
        """Whether one more send is wanted, and cannot outlive `until`.

        It is where it cannot become a second execution, or where the author put up with that.
        """
        republish = self._traits.republish and item.sends < MAX_REPUBLISHED
        wanted = republish or self.is_remembered(item)
        return wanted and (item.until is None or self.lifetime() is not None)

    def lifetime(self) -> timedelta | None:
        """How long after its claim a launch can be alive at most, differing clocks included."""
        return longest_life(self.spec, self._traits.life_margin)

    def _expires_at(self, item: Item) -> datetime | None:
        """When the message goes stale: reckoned from `until`, hence the same for every send."""
        expires = self.spec.celery.expires if self.spec.celery else None
        if expires is None:
            return None
        lifetime = self.lifetime()
        if lifetime is None or item.until is None:
            return item.first_claimed + expires
        return item.until - (lifetime - expires)

    # What became of a launch.

    def accept(self, item: Item) -> Item:
        """The broker or the API server has it."""
        self._count(launched=1)
        self.ledger = replace(self.ledger, last_launch=self.second)
        return self._put(replace(item, phase=Phase.LAUNCHED, reason=None))

    def doubt(self, item: Item, reason: str | None) -> None:
        """It may have been sent or not."""
        self._put(replace(item, reason=_brief(reason)))

    def release(self, item: Item, reason: str | None) -> None:
        """Nothing was sent: the row stands where it stood before the claim, no attempt is lost."""
        if item.attempt == 1:
            self.forget(item)
        else:
            self._rest(item, Phase.WAITING, self.second, reason)

    def refuse(self, item: Item, reason: str | None) -> None:
        """Nothing was sent, and never can be as the row is: it has used up this attempt."""
        self.spend_attempt(item, reason or "Refused")

    def take_in(self, stray: Stray) -> Item:
        """A launch that runs without a slot gets one, beyond the cap if need be."""
        known = self._items.get(stray.key)
        attempt = max(stray.attempt, known.attempt) if known else stray.attempt
        self._count(launched=1)
        since = stray.since.replace(microsecond=0)
        # Nobody knows how often it was sent: more than once, for all that follows from it.
        return self._put(Item(stray.key, stray.id, Phase.LAUNCHED, attempt, 2, since))

    def outstanding(self, key: str) -> Item | None:
        """The item of this key, if it holds a slot."""
        item = self._items.get(key)
        return item if item is not None and item.outstanding else None

    def adopt(self, item: Item) -> Item:
        """The present query shows its row too: from now on its leaving that one counts."""
        return self._put(replace(item, query_hash=None))

    def succeed(self, item: Item, *, ran: bool = True) -> Item:
        """It ended well: remembered until its cooldown is over and its row has left.

        `ran` says that it, and not a person who deleted a row for instance, is taken for the cause.
        """
        self._ended(item)
        self._count(succeeded=1)
        if ran:
            self.ledger = replace(self.ledger, last_settled=self.second)
        until = self.now + self.spec.cooldown if self.spec.cooldown else None
        return self._rest(item, Phase.COOLING, until, None)

    def fail(self, item: Item, reason: str) -> None:
        """A worker ran it and it failed: an attempt is spent."""
        self._ended(item)
        self._count(failed=1)
        self.ledger = replace(self.ledger, last_settled=self.second)
        self.spend_attempt(item, reason)

    def lose(self, item: Item, reason: str) -> None:
        """It began, or should have, and nothing is heard of it any more: an attempt is spent."""
        self._ended(item)
        self._count(lost=1)
        self.spend_attempt(item, reason)

    def lose_unstarted(self, item: Item) -> None:
        """Its life is over and nobody worked meanwhile: the same attempt again."""
        self._ended(item)
        self._count(lost=1)
        self._rest(item, Phase.WAITING, self.second, "NeverStarted")

    def spend_attempt(self, item: Item, reason: str) -> None:
        """Wait for the next attempt, or be parked after the last."""
        if item.attempt >= self.spec.retry.attempts:
            self._rest(item, Phase.PARKED, None, reason)
            return
        until = self.now + self._backoff(item)
        self._rest(replace(item, attempt=item.attempt + 1), Phase.WAITING, until, reason)

    def forget(self, item: Item) -> None:
        """Nothing needs to be known of this row any more."""
        self._leave(item)
        del self._items[item.key]

    def _backoff(self, item: Item) -> timedelta:
        retry = self.spec.retry
        rest: timedelta = min(retry.backoff * 2 ** min(item.attempt - 1, 30), retry.max_backoff)
        return rest * (1 - 0.1 * _fraction(item.id))

    def _rest(self, item: Item, phase: Phase, until: datetime | None, reason: str | None) -> Item:
        resting = replace(
            item,
            phase=phase,
            since=self.second,
            claimed=None,
            until=whole(until),
            reason=_brief(reason),
            query_hash=None,
        )
        return self._put(resting)

    def _ended(self, item: Item) -> None:
        # A claim that ended had been sent, even if nobody lived to say so.
        self._count(launched=item.phase is Phase.CLAIMED)

    def _put(self, item: Item) -> Item:
        before = self._items.get(item.key)
        if before is not None:
            self._leave(before)
        self._items[item.key] = item
        self._active += item.outstanding
        self._bytes += _size(item.key)
        return item

    def _leave(self, item: Item) -> None:
        self._active -= item.outstanding
        self._bytes -= _size(item.key)

    def _count(self, launched: int = 0, succeeded: int = 0, failed: int = 0, lost: int = 0) -> None:
        self.ledger = replace(
            self.ledger,
            launched=self.ledger.launched + launched,
            succeeded=self.ledger.succeeded + succeeded,
            failed=self.ledger.failed + failed,
            lost=self.ledger.lost + lost,
        )


def whole(moment: datetime | None) -> datetime | None:
    """The moment rounded up to the second, as it is read back: no rest or life is cut short."""
    if moment is None or moment.microsecond == 0:
        return moment
    return moment.replace(microsecond=0) + timedelta(seconds=1)


def longest_life(spec: ScannerJobSpec, margin: timedelta) -> timedelta | None:
    """How long a launch of this spec can be alive at most; None where nothing bounds it."""
    if spec.lifetime is None:
        return None
    return spec.lifetime + _clock_margin(spec.lifetime) + margin


def _clock_margin(lifetime: timedelta) -> timedelta:
    """What is added to a lifetime because clocks differ: a tenth of it, 2 s to 2 min."""
    return min(max(lifetime / 10, timedelta(seconds=2)), timedelta(minutes=2))


def _size(key: str) -> int:
    return len(json.dumps(key)) + ITEM_BYTES


def _brief(reason: str | None) -> str | None:
    return reason[:MAX_REASON] if reason else None


def _fraction(launch_id: str) -> float:
    """A number in [0, 1) that a random launch id stands for: jitter that needs no second draw."""
    return crc32(launch_id.encode()) / 2**32
