"""Which states of the small model are the same state, and what of a state can no longer matter.

Two states are the same if they differ only in which operator, which row and which launch is which,
or in what nothing that is still to come depends on. Each rule here says why that is so.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from scannerjob.model.facts import Fact, Report
from scannerjob.model.ledger import Item, Ledger, Phase
from tests.model.small import NOW, Message, Model, Operator, Sending, State, is_live, known_ids


def tidied(model: Model, state: State) -> State:
    """The state without what can no longer matter."""
    ledger = _ledger(model, state.ledger)
    operators = tuple(_operator(model, each, ledger) for each in state.operators)
    late = tuple(each for each in state.late if each.until >= NOW)
    state = state._replace(ledger=ledger, late=late, operators=operators)
    known, wanted = known_ids(state), _wanted_ids(state)
    messages = (_message(model, each) for each in state.messages)
    return state._replace(
        messages=tuple(each for each in messages if each.id in wanted or is_live(state, each)),
        superseded=state.superseded & known,
        closed=state.closed & known,
    )


def _ledger(model: Model, ledger: Ledger) -> Ledger:
    """That a launch settled matters to those which were out before, if time alone ends a launch."""
    items, settled = tuple(map(_item, ledger.items)), ledger.last_settled
    out = [item.since for item in ledger.outstanding]
    if settled is not None and not (model.lifetime and any(since < settled for since in out)):
        settled = None
    if items == ledger.items and settled == ledger.last_settled:
        return ledger
    return replace(ledger, items=items, last_settled=settled)


def _item(item: Item) -> Item:
    """Reasons are for people; since when a row rests is, too."""
    since = item.since if item.outstanding else NOW
    if item.reason is None and item.since == since:
        return item
    return replace(item, since=since, reason=None)


def _operator(model: Model, operator: Operator, ledger: Ledger) -> Operator:
    """A cycle that will lose its write is over, unless it may still supersede a launch."""
    reports = operator.reports and tuple(_reports(operator, ledger))
    if operator.step in ("read", "send") or _is_in_vain(model, operator):
        sends = tuple(sorted(operator.sends))
        return Operator("send" if sends else "read", sends=sends, reports=reports)
    return operator._replace(
        reports=reports,
        ledger=ledger if operator.current else operator.ledger and _ledger(model, operator.ledger),
    )


def _is_in_vain(model: Model, operator: Operator) -> bool:
    if operator.current or model.ignore_conflicts:
        return False
    return operator.step == "write" or not _may_supersede(model, operator.ledger)


def _may_supersede(model: Model, ledger: Ledger | None) -> bool:
    claims = ledger is not None and ledger.count(Phase.CLAIMED) > 0
    return claims and model.idempotent and not model.jobs


def _reports(operator: Operator, ledger: Ledger) -> Iterator[tuple[str, Report]]:
    """Only claims await reports; what became of a send that is not the last one tells little."""
    sends = {item.id: item.sends for item in ledger.items if item.phase is Phase.CLAIMED}
    sends |= {each.id: each.sends for each in operator.sends}
    for launch, report in operator.reports:
        lasts = report.observation.fact in (Fact.ACCEPTED, Fact.SUPERSEDED)
        if launch in sends and (lasts or report.sends >= sends[launch]):
            yield launch, report


def _wanted_ids(state: State) -> frozenset[str]:
    """The launches that may still be sent, or settled: it matters whether they have landed."""
    ids = [item.id for item in state.ledger.outstanding] + [each.id for each in state.late]
    for each in state.operators:
        ids += [item.id for item in each.ledger.outstanding] if each.ledger else []
        ids += [sending.id for sending in each.sends]
    return frozenset(ids)


def _message(model: Model, message: Message) -> Message:
    """Where ends are not told, a task that has done its work is no different from one that died.

    When it expires matters to a message in the queue, since when it runs to a task with a limit.
    """
    expires_at, state, started, result = message[2:]
    if state == "done" and not model.outcomes:
        state = "gone"
    if state != "queued" and expires_at is not None:
        expires_at = NOW
    if state == "gone" or expires_at is None:
        started = None
    told = result if model.outcomes else None
    return Message(message.id, message.key, expires_at, state, started, told)


def identity(state: State) -> int:
    """A number that is the same for states which are the same, and for no others, by all odds."""
    one, other = state.operators
    if (first := _head(one)) == (second := _head(other)):
        form = min(_form(state, one, other), _form(state, other, one))
    elif first < second:
        form = _form(state, one, other)
    else:
        form = _form(state, other, one)
    return int.from_bytes(blake2b(form, digest_size=8).digest(), "big")


def _head(operator: Operator) -> tuple[object, ...]:
    return operator.step, operator.current, operator.read_at


def _form(state: State, *operators: Operator) -> bytes:
    heads = tuple((each.step, each.current, _time(each.read_at)) for each in operators)
    rows = sorted(_row(state, n, operators) for n in range(len(state.pending)))
    return b"".join([_bytes((_time(state.ledger.last_settled), heads)), *rows])


def _row(state: State, n: int, operators: Iterable[Operator]) -> bytes:
    """All that there is of one row; its launches are called by numbers, in order of mention."""
    key = f"[{n}]"
    names: dict[str, int] = {}

    def name(launch: str) -> int:
        return names.setdefault(launch, len(names))

    def named(ids: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted(names[each] for each in ids if each in names))

    def item(ledger: Ledger | None) -> tuple[object, ...] | None:
        found = [each for each in ledger.items if each.key == key] if ledger else []
        return _item_form(found[0], name(found[0].id)) if found else None

    def of(operator: Operator) -> tuple[object, ...]:
        return (
            None if operator.current else item(operator.ledger),
            key in operator.rows,
            [_sending(each, name(each.id)) for each in operator.sends if each.key == key],
            sorted((names[i], seen.fact.value) for i, seen in operator.seen if i in names),
            sorted(
                (names[i], report.sends, report.observation.fact.value)
                for i, report in operator.reports
                if i in names
            ),
        )

    form = (
        state.pending[n],
        key in state.done,
        item(state.ledger),
        [_message_form(each, name(each.id)) for each in state.messages if each.key == key],
        [_sending(each, name(each.id)) for each in state.late if each.key == key],
        [of(each) for each in operators],
    )
    return _bytes((form, named(state.superseded), named(state.closed)))


def _item_form(item: Item, name: int) -> tuple[object, ...]:
    times = (_time(item.since), _time(item.claimed), _time(item.until))
    return (name, item.phase.value, item.attempt, item.sends, *times)


def _message_form(message: Message, name: int) -> tuple[object, ...]:
    times = (_time(message.expires_at), _time(message.started))
    return (name, message.state, message.result and message.result.value, *times)


def _sending(sending: Sending, name: int) -> tuple[object, ...]:
    return (name, sending.sends, _time(sending.expires_at), _time(sending.until))


@lru_cache(10_000)
def _time(moment: datetime | None) -> int | None:
    return None if moment is None else int((moment - NOW).total_seconds())


def _bytes(form: Any) -> bytes:
    # Version 2 knows no references, so that equal things give equal bytes.
    return marshal.dumps(form, 2)
