"""What a cycle must read before it can decide: the questions, not the answers."""

from __future__ import annotations

from datetime import datetime, timedelta

from scannerjob.model.facts import Fact, Facts, Observation, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import LATEST_SEND, ORPHAN_AFTER, SEND_WITHIN
from scannerjob.model.row import Presence, Rows
from scannerjob.model.spec import ScannerJobSpec

_TERMINAL = (Fact.SUCCEEDED, Fact.FAILED)


def is_gone(item: Item, seen: Observation | None, read_at: datetime) -> bool:
    """Whether a launch that was there is there no more, and will not be again.

    A claim may only not be there yet; and of one that was sent more than once, another send may
    still be on its way.
    """
    if item.phase is not Phase.LAUNCHED or seen is None or seen.fact is not Fact.GONE:
        return False
    return item.sends == 1 or read_at >= item.since + LATEST_SEND


def free_slots(spec: ScannerJobSpec, active: int) -> int:
    """How many launches the cap allows beyond the `active` ones; none while suspended."""
    return 0 if spec.suspend else max(0, spec.concurrency - active)


def rows_to_read(spec: ScannerJobSpec, ledger: Ledger) -> int:
    """How many rows a look must read: all that are remembered may stand before the first new one.

    One more than could be used, so that it shows whether rows wait for a slot.
    """
    return len(ledger.items) + free_slots(spec, len(ledger.outstanding)) + 1


def worth_a_look(spec: ScannerJobSpec, ledger: Ledger, facts: Facts, now: datetime) -> bool:
    """Whether rows could change anything: a slot is free, or a row is missing evidence."""
    return free_slots(spec, len(ledger.outstanding)) > 0 or any(
        row_matters(item, ledger, facts, now) for item in ledger.items
    )


def urgent(ledger: Ledger, facts: Facts, now: datetime) -> bool:
    """Whether something waits for its row now, without regard to the interval."""
    return any(_is_urgent(item, facts, now) for item in ledger.items)


def _is_urgent(item: Item, facts: Facts, now: datetime) -> bool:
    return _ended(item, facts) or _is_due(item, now) or is_orphan(item, facts, now)


def row_matters(item: Item, ledger: Ledger, facts: Facts, now: datetime) -> bool:
    """Whether it makes a difference now that this item's row matches."""
    if item.outstanding:
        return not told_by_target(ledger, facts) or _is_urgent(item, facts, now)
    return _is_due(item, now) or item.phase is Phase.PARKED


def keys_to_look_up(ledger: Ledger, facts: Facts, rows: Rows, now: datetime) -> list[str]:
    """The remembered keys of which `rows` does not tell whether they match, where that matters."""
    return [
        item.key
        for item in ledger.items
        if rows.presence(item.key) is Presence.UNKNOWN and row_matters(item, ledger, facts, now)
    ]


def orphans_that_left(ledger: Ledger, facts: Facts, now: datetime) -> list[str]:
    """The ids of claims nobody answers for whose rows have left.

    They need no launch, but a late sender may still hold them: they must be superseded first, where
    the target still remembers what was sent. Another broker than the one they were claimed for
    cannot remember it.
    """
    within = facts.traits.resend_within
    if facts.rows is None or within is None or endpoint_changed(ledger, facts):
        return []
    return [
        item.id
        for item in ledger.outstanding
        if is_orphan(item, facts, now)
        and now - item.first_claimed < within
        and facts.rows.presence(item.key) is Presence.ABSENT
    ]


def next_time(ledger: Ledger, traits: TargetTraits, now: datetime) -> timedelta | None:
    """How long until a rest, a life or the wait for another sender ends, if any will."""
    times = [item.until for item in ledger.items if item.until is not None]
    claims = [item for item in ledger.items if item.phase is Phase.CLAIMED]
    times += [item.since + _orphan_after(traits) for item in claims]
    if traits.sees_all:
        times += [item.since + LATEST_SEND for item in ledger.outstanding if _in_doubt(item)]
    times += [ledger.lost_until] if ledger.lost_until else []
    return min((time - now for time in times if time > now), default=None)


def _in_doubt(item: Item) -> bool:
    """Whether it may settle only when no send of it can be on its way any more."""
    return item.phase is Phase.CLAIMED or item.sends > 1


def endpoint_changed(ledger: Ledger, facts: Facts) -> bool:
    """Whether launches are out at another broker or result backend than the present one."""
    if not ledger.outstanding or not ledger.endpoints:
        return False
    return dict(ledger.endpoints) != dict(facts.endpoints)


def key_changed(ledger: Ledger, facts: Facts) -> bool:
    """Whether launches are out, or cool down, under other key columns than the present rows'.

    A finished row that is still seen would be launched anew if it were not known any more.
    """
    if facts.rows is None or not ledger.key or facts.rows.key == ledger.key:
        return False
    return any(item.outstanding or _cools(item, facts.read_at) for item in ledger.items)


def _cools(item: Item, now: datetime) -> bool:
    return item.phase is Phase.COOLING and item.until is not None and item.until > now


def told_by_target(ledger: Ledger, facts: Facts) -> bool:
    """Whether the target will tell how the outstanding launches ended.

    Not where a result backend was only now added: what is out was launched without one.
    """
    was_there = not ledger.endpoints or "resultBackend" in ledger.endpoints
    return facts.traits.tells_outcomes and (was_there or "resultBackend" not in facts.endpoints)


def is_orphan(item: Item, facts: Facts, now: datetime) -> bool:
    """Whether this claim may have been sent or not, with nobody about to say which."""
    if item.phase is not Phase.CLAIMED:
        return False
    report = facts.reports.get(item.id)
    if report is None or report.sends != item.sends:
        return item.since + _orphan_after(facts.traits) <= now
    # Our own send of it has ended. That nothing was sent is known for the first send alone.
    fact = report.observation.fact
    return fact is Fact.UNCERTAIN or (fact is Fact.NOT_SENT and item.sends > 1)


def _orphan_after(traits: TargetTraits) -> timedelta:
    """How long a claim is left to whoever made it.

    To send it again is harmless where the target remembers; elsewhere its sender must have given
    up.
    """
    return ORPHAN_AFTER if traits.resend_within is not None else SEND_WITHIN + ORPHAN_AFTER


def _is_due(item: Item, now: datetime) -> bool:
    if item.until is None:
        return item.phase is Phase.COOLING
    return item.until <= now


def _ended(item: Item, facts: Facts) -> bool:
    seen = (facts.observations or {}).get(item.id)
    ended = item.outstanding and seen is not None and seen.fact in _TERMINAL
    return ended or is_gone(item, seen, facts.read_at)
