"""The decision: what a cycle does, from what it read. Pure; nothing else reckons with the cap.

`decide` takes the ledger as it was, and what is known of its launches and of the rows that match.
It gives the ledger as it must be written before anything is sent, and the sends which that write
allows. Nothing here reads a clock, draws a random number or touches the outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from scannerjob.model.book import Book
from scannerjob.model.facts import Decision, Facts, Hold, Send, Stray
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import RESEND_AFTER_LOOK
from scannerjob.model.reading import (
    endpoint_changed,
    guarded,
    is_forgotten,
    is_orphan,
    key_changed,
)
from scannerjob.model.requests import ACCEPT_LOST_LEDGER
from scannerjob.model.row import Row
from scannerjob.model.settle import settle
from scannerjob.model.spec import ScannerJobSpec


def decide(
    spec: ScannerJobSpec,
    ledger: Ledger,
    facts: Facts,
    now: datetime,
    new_id: Callable[[], str],
) -> Decision:
    """What follows from `facts`: the next ledger and the sends that its write allows.

    `now` (UTC) is when the claims are made, after `facts` were read; what was read is judged by the
    time at which reading began. `new_id` gives a fresh random launch id. Launches are added only
    while fewer than `spec.concurrency` items are outstanding; what is outstanding beyond a lowered
    cap stays.
    """
    if key_changed(spec, ledger, facts):
        # The present rows tell nothing of those that are remembered, not even that they left.
        facts = replace(facts, rows=None, hold=facts.hold or _changed_key(ledger))
    book = Book(spec, _rebase(ledger, facts), facts.traits, now)
    _rest_of_loss(book)
    duplicates = list(_take_in(book, facts))
    settle(book, facts)
    holds = [*_holds(book, facts), *(_duplicate(stray) for stray in duplicates)]
    if holds:
        return Decision(book.close(), holds=tuple(holds))
    sends = [*_resend(book, facts), *_retry(book, facts, new_id)]
    left_over: list[Row] = []
    brakes: list[Hold] = []
    for row in _new_rows(book, facts):
        if not book.slot_is_free():
            left_over.append(row)
        elif not book.failure_would_fit(row):
            brakes.append(_too_many(book))
            break
        else:
            sends.append(book.claim(row, 1, new_id()))
    return Decision(book.close(), tuple(sends), brakes=tuple(brakes), more_rows=bool(left_over))


def _rebase(ledger: Ledger, facts: Facts) -> Ledger:
    """The ledger under the present query and endpoints.

    Items claimed under another query keep that query's hash: that they are absent from this one
    proves nothing. Endpoints and key columns are taken over once nothing is outstanding under the
    old ones.
    """
    endpoints = ledger.endpoints if endpoint_changed(ledger, facts) else facts.endpoints
    items = ledger.items
    if ledger.query_hash != facts.query_hash:
        items = tuple(_under(item, ledger.query_hash, facts.query_hash) for item in items)
    key = facts.rows.key if facts.rows else ledger.key
    if ledger.key and key != ledger.key:
        # What rests is known by keys that now name other rows, or none.
        items = ()
    return replace(ledger, items=items, query_hash=facts.query_hash, key=key, endpoints=endpoints)


def _under(item: Item, old_hash: str | None, new_hash: str) -> Item:
    if not item.outstanding:
        return item
    claimed_under = item.query_hash or old_hash
    return replace(item, query_hash=None if claimed_under == new_hash else claimed_under)


def _rest_of_loss(book: Book) -> None:
    """Let a ledger that vanished hold launches only as long as it must."""
    if book.ledger.lost_until is not None and book.ledger.lost_until <= book.now:
        book.ledger = replace(book.ledger, lost_at=None, lost_until=None)


def _take_in(book: Book, facts: Facts) -> Iterator[Stray]:
    """Give a slot to launches that run without; gives those whose row has another launch out."""
    for stray in facts.strays:
        if book.outstanding(stray.key):
            yield stray
        else:
            book.take_in(stray)


def _holds(book: Book, facts: Facts) -> Iterator[Hold]:
    """Why nothing at all may be sent now."""
    if facts.hold is not None:
        yield facts.hold
    if book.spec.suspend:
        yield Hold("Suspended", "spec.suspend is true: nothing is sent; what is out is watched")
    if book.ledger.lost_at is not None:
        yield _lost_ledger()
    if dict(book.ledger.endpoints) != dict(facts.endpoints):
        yield _changed_endpoint(book, facts)


def _resend(book: Book, facts: Facts) -> Iterator[Send]:
    """The same id again, for claims of which nobody knows whether they were sent.

    Only where a second send cannot become a second execution, and only with the row itself at hand.
    """
    if facts.traits.sees_all and book.now - facts.read_at > RESEND_AFTER_LOOK:
        return
    by_guard = guarded(book.ledger, facts)
    for item in book:
        row = _row_of(item, facts)
        orphan = is_orphan(item, facts, book.now) and book.may_send_again(item)
        if row and (orphan or (by_guard and is_forgotten(item, facts))):
            yield book.claim_again(item, row)


def _retry(book: Book, facts: Facts, new_id: Callable[[], str]) -> Iterator[Send]:
    """The next attempt of rows whose rest is over, the longest due first."""
    waiting = [item for item in book if item.phase is Phase.WAITING]
    for item in sorted(waiting, key=lambda item: item.until or book.now):
        row = _row_of(item, facts)
        due = item.until is None or item.until <= book.now
        if due and row and book.slot_is_free():
            yield book.claim(row, item.attempt, new_id(), item.reason)


def _new_rows(book: Book, facts: Facts) -> Iterator[Row]:
    """Rows that are not remembered, in the query's order."""
    rows = facts.rows.rows if facts.rows else ()
    return (row for row in rows if row.key not in book)


def _row_of(item: Item, facts: Facts) -> Row | None:
    return facts.rows.find(item.key) if facts.rows else None


def _lost_ledger() -> Hold:
    return Hold(
        "LedgerLost",
        "the ledger in status has vanished, and launches of which nothing is known may be running; "
        "nothing is launched until they must have ended (expires + deadline, where both were set; "
        "15 minutes for Jobs, which are found by their labels) or the annotation "
        f"scannerjob.dev/requested-{ACCEPT_LOST_LEDGER} is set to any new value",
    )


def _duplicate(stray: Stray) -> Hold:
    return Hold(
        "DuplicateJob",
        f"{stray.name} runs for row {stray.key}, for which another launch is outstanding; nothing "
        "is launched until it has ended: delete it if it should not be there",
    )


def _changed_key(ledger: Ledger) -> Hold:
    return Hold(
        "KeyChanged",
        f"rows are no longer known by {', '.join(ledger.key)} while {len(ledger.outstanding)} "
        "launches are outstanding, or others cool down; nothing is launched until they have "
        "settled: change spec.key or the query's first column back until then",
    )


def _changed_endpoint(book: Book, facts: Facts) -> Hold:
    now, before = facts.endpoints, book.ledger.endpoints
    changed = sorted(name for name in {*now, *before} if now.get(name) != before.get(name))
    return Hold(
        "EndpointChanged",
        f"{' and '.join(changed)} changed while {book.active} launches are outstanding at the old "
        "one; nothing is launched until they have settled",
    )


def _too_many(book: Book) -> Hold:
    return Hold(
        "TooManyFailures",
        f"{len(book)} rows are remembered, most of them failed: no new row is launched until some "
        "leave the query; retries go on",
    )
