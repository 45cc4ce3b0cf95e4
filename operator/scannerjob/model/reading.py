"""What a cycle must read before it can decide: the questions, not the answers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from scannerjob.model.facts import Fact, Facts, Observation, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import (
    LATEST_SEND,
    LATEST_START,
    ORPHAN_AFTER,
    RESEND_FORGOTTEN,
    SEND_WITHIN,
)
from scannerjob.model.row import Presence, Rows
from scannerjob.model.spec import NO_TIME, ScannerJobSpec

_TERMINAL = (Fact.SUCCEEDED, Fact.FAILED)
# What a guard tells that has to be acted on.
_ALARMING = (Fact.SILENT, Fact.LAPSED, Fact.SUPERSEDED)
# What it tells of a launch that a worker has begun, and may go on with.
_BEGUN = (Fact.RUNNING, Fact.STARTED)


def is_gone(item: Item, seen: Observation | None, facts: Facts) -> bool:
    """Whether a launch that was there is there no more, and will not be again.

    A claim may only not be there yet; and of one that was sent more than once, another send may
    still be on its way.
    """
    if item.phase is not Phase.LAUNCHED or seen is None or seen.fact is not Fact.GONE:
        return False
    return item.sends == 1 or not may_be_on_its_way(item, facts)


def may_be_on_its_way(item: Item, facts: Facts) -> bool:
    """Whether the last send of a claim may still arrive.

    Its date alone proves nothing: another operator's wall clock made it, and ours may have been set
    since. So this process must have known the claim for as long.
    """
    known_for = LATEST_SEND if facts.known_for is None else facts.known_for.get(item.id, NO_TIME)
    return facts.read_at < item.since + LATEST_SEND or known_for < LATEST_SEND


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
        return _leaving_matters(item, ledger, facts) or _is_urgent(item, facts, now)
    return _is_due(item, now) or item.phase is Phase.PARKED


def _leaving_matters(item: Item, ledger: Ledger, facts: Facts) -> bool:
    if guarded(ledger, facts):
        return not _has_begun(item, facts)
    return not told_by_target(ledger, facts)


def keys_to_look_up(ledger: Ledger, facts: Facts, rows: Rows, now: datetime) -> list[str]:
    """The remembered keys of which `rows` does not tell whether they match, where that matters."""
    return [
        item.key
        for item in ledger.items
        if rows.presence(item.key) is Presence.UNKNOWN and row_matters(item, ledger, facts, now)
    ]


def to_supersede(spec: ScannerJobSpec, ledger: Ledger, facts: Facts, now: datetime) -> list[str]:
    """The ids of launches that must be superseded before they can be settled.

    Where rows are still to be read, those which are over whether their row matches or not: were
    they superseded later, one that did its work in the meantime would still be seen to match. Then
    those whose rows have left. Another broker or guard than the one they were claimed for knows
    nothing of them.
    """
    if _is_another(_superseding(ledger, facts), ledger, facts):
        return []
    if guarded(ledger, facts):
        over = _is_over if facts.rows is None else _has_left_unbegun
        return [item.id for item in ledger.outstanding if over(item, spec, facts, now)]
    return [item.id for item in ledger.outstanding if _orphan_that_left(item, facts, now)]


def _superseding(ledger: Ledger, facts: Facts) -> Sequence[str]:
    """The endpoints that supersede launches: a guard does, wherever their messages went."""
    return ("guard",) if guarded(ledger, facts) else ("broker", "guard")


def _is_another(names: Sequence[str], ledger: Ledger, facts: Facts) -> bool:
    """Whether one of these endpoints is not that of the launches which are out."""
    now, before = facts.endpoints, ledger.endpoints
    return bool(before) and any(now.get(name) != before.get(name) for name in names)


def _orphan_that_left(item: Item, facts: Facts, now: datetime) -> bool:
    """Whether this claim needs no launch, but a late sender may still hold it.

    It can be superseded where the target still remembers what was sent.
    """
    within = facts.traits.resend_within
    remembered = within is not None and now - item.first_claimed < within
    return remembered and is_orphan(item, facts, now) and _has_left(item, facts)


def _is_over(item: Item, spec: ScannerJobSpec, facts: Facts, now: datetime) -> bool:
    """Whether a guarded launch has lapsed, or outlived its message without a start.

    To supersede does nothing to a launch that runs, whatever was known of it here.
    """
    seen = seen_of(item, facts)
    if _is_settled(seen):
        return False
    if seen is not None and seen.fact is Fact.SILENT:
        return True
    if life_is_over(item, facts):
        return seen is None or seen.fact is not Fact.RUNNING
    return not _has_begun(item, facts) and _is_stale(item, spec, now)


def _has_left_unbegun(item: Item, _: ScannerJobSpec, facts: Facts, __: datetime) -> bool:
    """Whether the row of a guarded launch has left and no worker is known to have begun it."""
    seen = seen_of(item, facts)
    return _has_left(item, facts) and not _is_settled(seen) and not _has_begun(item, facts)


def _is_settled(seen: Observation | None) -> bool:
    return seen is not None and seen.fact in (*_TERMINAL, Fact.LAPSED, Fact.SUPERSEDED)


def _has_left(item: Item, facts: Facts) -> bool:
    # That it is absent from another query than its own proves nothing.
    absent = facts.rows is not None and facts.rows.presence(item.key) is Presence.ABSENT
    return absent and item.query_hash is None


def _is_stale(item: Item, spec: ScannerJobSpec, now: datetime) -> bool:
    """Whether its message has expired, so that no worker will begin it."""
    expires = spec.celery.expires if spec.celery else None
    return expires is not None and item.first_claimed + expires + LATEST_START <= now


def _has_begun(item: Item, facts: Facts) -> bool:
    seen = seen_of(item, facts)
    return seen is not None and seen.fact in _BEGUN


def seen_of(item: Item, facts: Facts) -> Observation | None:
    """What the target told of this launch; None if nothing."""
    return (facts.observations or {}).get(item.id)


def life_is_over(item: Item, facts: Facts) -> bool:
    """Whether its life was over before it was looked for: else its end may not show yet."""
    return item.until is not None and item.until <= facts.read_at


def is_forgotten(item: Item, facts: Facts) -> bool:
    """Whether it was sent, and nothing is left of it: neither a message nor a worker's record.

    To send it again under its id is harmless, since whoever begins it first keeps it. A busy worker
    may have it in store, though, so that it is sent less and less often.
    """
    seen = seen_of(item, facts)
    if seen is None or seen.fact is not Fact.FORGOTTEN or item.phase is not Phase.LAUNCHED:
        return False
    rested = item.since + RESEND_FORGOTTEN * 2 ** min(item.sends - 1, 6) <= facts.read_at
    return rested and not life_is_over(item, facts)


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


def key_changed(spec: ScannerJobSpec, ledger: Ledger, facts: Facts) -> bool:
    """Whether launches are out, or ended just now, under other key columns than the present rows'.

    A finished row that is still seen would be launched anew if it were not known any more.
    """
    if facts.rows is None or not ledger.key or facts.rows.key == ledger.key:
        return False
    return any(item.outstanding or _cools(item, spec, facts.read_at) for item in ledger.items)


def _cools(item: Item, spec: ScannerJobSpec, now: datetime) -> bool:
    """Whether its row may be seen still, if it is finished: one that was lost may be, too."""
    cools = item.phase is Phase.COOLING and item.until is not None and item.until > now
    return cools or item.since + spec.cooldown > now


def told_by_target(ledger: Ledger, facts: Facts) -> bool:
    """Whether the target will tell how the outstanding launches ended.

    Not where a result backend was only now added: what is out was launched without one.
    """
    was_there = not ledger.endpoints or "resultBackend" in ledger.endpoints
    return facts.traits.tells_outcomes and (was_there or "resultBackend" not in facts.endpoints)


def guarded(ledger: Ledger, facts: Facts) -> bool:
    """Whether what is out was launched under the present guard, so that its word is the evidence.

    Not where the guard was only now added.
    """
    was_there = not ledger.endpoints or "guard" in ledger.endpoints
    return facts.traits.guarded and was_there


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
    seen = seen_of(item, facts)
    ended = item.outstanding and seen is not None and seen.fact in (*_TERMINAL, *_ALARMING)
    return ended or is_gone(item, seen, facts) or is_forgotten(item, facts)
