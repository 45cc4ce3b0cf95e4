"""The evidence: what has to be known before a slot is freed or a row forgotten."""

from __future__ import annotations

from datetime import datetime

from scannerjob.model.book import Book
from scannerjob.model.facts import Fact, Facts, Observation, Report
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.reading import (
    guarded,
    is_gone,
    life_is_over,
    may_be_on_its_way,
    seen_of,
    told_by_target,
)
from scannerjob.model.row import Presence, Rows

_SENT = (Fact.ACCEPTED, Fact.STARTED, Fact.NOT_STARTED, Fact.RUNNING, Fact.SILENT, Fact.LAPSED)


def settle(book: Book, facts: Facts) -> None:
    """Book what became of every remembered row. What is unknown changes nothing."""
    observations = facts.observations or {}
    for item in book:
        if item.phase is Phase.CLAIMED:
            seen, report = observations.get(item.id), facts.reports.get(item.id)
            if _never_came(item, seen, facts) and not _was_sent(report, seen):
                book.release(item, "NeverCreated")
            else:
                _take_report(book, item, report, seen)
    if facts.observations is not None:
        _settle_outstanding(book, facts)
    if facts.rows is not None:
        for item in book:
            if not item.outstanding:
                _tidy(book, item, facts.rows, facts.read_at)


def _settle_outstanding(book: Book, facts: Facts) -> None:
    told, by_guard = told_by_target(book.ledger, facts), guarded(book.ledger, facts)
    for item in book:
        if item.outstanding and by_guard:
            _settle_guarded(book, _adopted(book, item, facts.rows), facts)
        elif item.outstanding:
            _settle(book, _adopted(book, item, facts.rows), facts, told)
    if by_guard:
        return
    # Last: whether the others worked meanwhile must not depend on the order of the items.
    for item in book:
        if item.outstanding and facts.rows is not None and life_is_over(item, facts):
            _lapse(book, item, seen_of(item, facts))


def _never_came(item: Item, seen: Observation | None, facts: Facts) -> bool:
    """Whether a claim was looked for when no send of it could still be on its way, in vain."""
    return seen is not None and seen.fact is Fact.GONE and not may_be_on_its_way(item, facts)


def _take_report(book: Book, item: Item, report: Report | None, seen: Observation | None) -> None:
    """Whether a claim was sent: what the target says first, then what our own sending told."""
    superseded = report is not None and report.observation.fact is Fact.SUPERSEDED
    superseded |= seen is not None and seen.fact is Fact.SUPERSEDED
    if superseded and book.is_remembered(item):
        book.release(item, Fact.SUPERSEDED.value)
    elif _was_sent(report, seen):
        book.accept(item)
    elif report is not None and report.sends == item.sends:
        _take_failure(book, item, report.observation)


def _take_failure(book: Book, item: Item, told: Observation) -> None:
    # Of a claim that was sent more than once, an earlier send may have arrived after all.
    if told.fact is Fact.NOT_SENT and item.sends == 1:
        book.release(item, told.reason)
    elif told.fact is Fact.REFUSED and item.sends == 1:
        book.refuse(item, told.reason)
    else:
        book.doubt(item, told.reason)


def _was_sent(report: Report | None, seen: Observation | None) -> bool:
    accepted = report is not None and report.observation.fact is Fact.ACCEPTED
    return accepted or (seen is not None and seen.fact in _SENT)


def _adopted(book: Book, item: Item, rows: Rows | None) -> Item:
    """The item; under the present query, once that one was seen to match its row too."""
    foreign = item.query_hash is not None
    if foreign and rows is not None and rows.presence(item.key) is Presence.PRESENT:
        return book.adopt(item)
    return item


def _settle(book: Book, item: Item, facts: Facts, told: bool) -> None:
    seen = seen_of(item, facts)
    if seen is not None and seen.fact is Fact.SUCCEEDED:
        book.succeed(item)
    elif facts.rows is not None:
        # Whether it failed or was lost, or did its work all the same, only its row can say.
        _settle_by_row(book, item, facts, _presence(item, facts.rows), told)


def _settle_by_row(book: Book, item: Item, facts: Facts, presence: Presence, told: bool) -> None:
    seen = seen_of(item, facts)
    failed = seen is not None and seen.fact is Fact.FAILED
    gone = is_gone(item, seen, facts)
    left = presence is Presence.ABSENT
    if left and not failed and (gone or life_is_over(item, facts)):
        book.succeed(item, ran=False)
    elif left and (failed or _leaving_settles(item, facts, told)):
        book.succeed(item)
    elif failed and seen is not None:
        book.fail(item, seen.reason or "Failed")
    elif gone and seen is not None:
        book.lose(item, seen.reason or "Gone")


def _settle_guarded(book: Book, item: Item, facts: Facts) -> None:
    """By the guard's word alone: that nothing of it runs any more is proven, or it is held."""
    seen = seen_of(item, facts)
    if seen is None or (seen.fact is not Fact.SUCCEEDED and facts.rows is None):
        return
    left = facts.rows is not None and _presence(item, facts.rows) is Presence.ABSENT
    match seen.fact:
        case Fact.SUCCEEDED:
            book.succeed(item)
        case Fact.FAILED | Fact.LAPSED if left:
            book.succeed(item)
        case Fact.FAILED:
            book.fail(item, seen.reason or "Failed")
        case Fact.LAPSED:
            book.lose(item, "LeaseLapsed")
        case Fact.SUPERSEDED if left:
            book.succeed(item, ran=False)
        case Fact.SUPERSEDED:
            book.lose_unstarted(item)


def _presence(item: Item, rows: Rows) -> Presence:
    """Whether the row matches; absence counts only under the query it was claimed by."""
    presence = rows.presence(item.key)
    foreign = item.query_hash is not None
    return Presence.UNKNOWN if foreign and presence is Presence.ABSENT else presence


def _leaving_settles(item: Item, facts: Facts, told: bool) -> bool:
    # A claim whose row has left is not dropped while a late sender may still hold it.
    late_send_possible = item.phase is Phase.CLAIMED and may_be_on_its_way(item, facts)
    return not told and not late_send_possible


def _lapse(book: Book, item: Item, seen: Observation | None) -> None:
    """Its life is over and nothing was heard: lost, or never started if nobody worked.

    That others worked tells nothing of one that may never have been sent.
    """
    others = book.ledger.last_settled
    was_sent = item.phase is Phase.LAUNCHED
    others_ran = was_sent and others is not None and others > item.since
    if seen is not None and seen.fact in (Fact.STARTED, Fact.NOT_STARTED):
        others_ran = seen.fact is Fact.STARTED
    if others_ran:
        book.lose(item, "Lost")
    else:
        book.lose_unstarted(item)


def _tidy(book: Book, item: Item, rows: Rows, read_at: datetime) -> None:
    """Forget what left; try again what finished and still matches."""
    presence = rows.presence(item.key)
    if item.phase is not Phase.COOLING:
        if presence is Presence.ABSENT:
            book.forget(item)
    elif item.until is None or item.until <= read_at:
        if presence is Presence.PRESENT:
            book.spend_attempt(item, "StillMatches")
        elif presence is Presence.ABSENT or not rows.absence_knowable:
            book.forget(item)
