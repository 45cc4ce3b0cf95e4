"""A small model of two operators: the real decision, an abstract world, and all that may happen.

An operator's cycle is four steps (read and observe, query, decide and write, send), with anything
in between: the other operator, workers, time, a crash. A read that is stale is a read after which
the other operator was quicker, and a process that freezes is one that time passes by; neither needs
a step of its own. What may go wrong (crashes, lost replies, refused, lost and late sends) and how
often time passes is bounded, or there would be no end.

A query gives its rows in any order, and the sends of a claim go out in any order, so that no row
differs from another but by what became of it. Times count from the present, which is NOW: a state
in which nothing has changed is the same state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import count, islice, permutations
from typing import Any, NamedTuple

from scannerjob.model.facts import (
    Decision,
    Fact,
    Facts,
    Observation,
    Report,
    Send,
    TargetTraits,
)
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.limits import LATEST_SEND, SEND_WITHIN
from scannerjob.model.reading import keys_to_look_up, rows_to_read, to_supersede
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import ScannerJobSpec, parse_spec

NOW = datetime(2030, 1, 1, tzinfo=UTC)
RESEND_WITHIN = timedelta(hours=23)
Decide = Callable[[ScannerJobSpec, Ledger, Facts, datetime, Callable[[], str]], Decision]


class Broken(AssertionError):
    """A promise was broken; says which, and by which steps."""


@dataclass(frozen=True)
class Model:
    """What is explored: a kind of target, a number of rows and slots, and how much may go wrong."""

    decide: Decide
    idempotent: bool
    outcomes: bool
    lifetime: bool
    rows: int = 2
    cap: int = 1
    attempts: int = 2
    faults: int = 1
    spells: tuple[int, ...] = (6, 40, 140)
    waits: int = 2
    # Nothing else goes wrong: each write and send has its answer, and no row leaves by itself.
    only_crashes: bool = False
    # Rows become Jobs: the API server is the broker, a Job is a message, and its pod the execution.
    jobs: bool = False
    # Mistakes that the exploration must find.
    query_first: bool = False
    ignore_conflicts: bool = False
    late_is_sent: bool = False

    @cached_property
    def spec(self) -> ScannerJobSpec:
        secret = {"urlSecretRef": {"name": "app", "key": "url"}}
        life = {"expires": "60s"} if self.lifetime else {}
        document: dict[str, Any] = {
            "database": secret,
            "query": "SELECT 1",
            "concurrency": self.cap,
            "retry": {"attempts": self.attempts, "backoff": "0s"},
        }
        if self.jobs:
            return parse_spec(document | {"job": {"template": {}}})
        document["celery"] = {"broker": secret, "task": "t", **life}
        return parse_spec(document | ({"deadline": "60s"} if self.lifetime else {}))

    def may_crash(self, state: State) -> bool:
        """Whether an operator may still be killed."""
        return state.faults < self.faults

    def may_fail(self, state: State) -> bool:
        """Whether anything else may still go wrong."""
        return self.may_crash(state) and not self.only_crashes

    @cached_property
    def traits(self) -> TargetTraits:
        if self.jobs:
            return TargetTraits(tells_outcomes=True, resend_within=timedelta.max, sees_all=True)
        return TargetTraits(self.outcomes, RESEND_WITHIN if self.idempotent else None)


class Message(NamedTuple):
    """A message on the broker, or the execution it became: queued, running, done or gone."""

    id: str
    key: str
    expires_at: datetime | None
    state: str = "queued"
    started: datetime | None = None
    result: Fact | None = None


class Sending(NamedTuple):
    """A send that was claimed: on its way in a process, or still in the network."""

    id: str
    key: str
    sends: int
    expires_at: datetime | None
    until: datetime


class Operator(NamedTuple):
    """A process between two steps of its cycle, with what it read and what it remembers."""

    step: str = "read"
    ledger: Ledger | None = None
    current: bool = False  # nobody wrote since it read
    read_at: datetime = NOW
    seen: tuple[tuple[str, Observation], ...] = ()
    rows: tuple[str, ...] = ()
    sends: tuple[Sending, ...] = ()
    reports: tuple[tuple[str, Report], ...] = ()


class State(NamedTuple):
    """Everything there is."""

    ledger: Ledger
    pending: tuple[bool, ...]
    operators: tuple[Operator, ...] = (Operator(), Operator())
    messages: tuple[Message, ...] = ()
    late: tuple[Sending, ...] = ()
    superseded: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    faults: int = 0
    waits: int = 0


Step = tuple[str, State]


ENDPOINTS = {"broker": "b"}


def begin(model: Model) -> State:
    """All rows match, and nothing was launched."""
    return State(Ledger(query_hash="q", endpoints=ENDPOINTS), (True,) * model.rows)


def steps(model: Model, state: State) -> Iterator[Step]:
    """All that may happen next."""
    for n, operator in enumerate(state.operators):
        for name, after in _STEPS[operator.step](model, state, n):
            yield f"operator {n}: {name}", after
        if model.may_crash(state) and operator != Operator():
            yield f"operator {n} is killed", _fault(_with(state, n, Operator()))
    yield from _worker_steps(model, state)
    for index, sending in enumerate(state.late):
        rest = state.late[:index] + state.late[index + 1 :]
        yield (
            f"a late send of {sending.id} arrives",
            _put(model, state._replace(late=rest), sending),
        )
    if model.may_fail(state):
        for key in _pending(state):
            yield f"row {key} leaves", _fault(_left(state, key))
    if state.waits < model.waits:
        for seconds in model.spells:
            later = _later(state, timedelta(seconds=seconds))
            yield f"{seconds} s pass", _time_limits(later._replace(waits=state.waits + 1))


def _with(state: State, n: int, operator: Operator) -> State:
    operators = list(state.operators)
    operators[n] = operator
    return state._replace(operators=tuple(operators))


def _fault(state: State) -> State:
    return state._replace(faults=state.faults + 1)


# The cycle.


def _read(model: Model, state: State, n: int) -> Iterator[Step]:
    seen = () if model.query_first else _observe(model, state, state.ledger)
    rows = _pending(state) if model.query_first else ()
    operator = state.operators[n]._replace(
        step="query",
        ledger=state.ledger,
        current=True,
        read_at=NOW,
        seen=seen,
        rows=rows,
    )
    yield "reads and observes", _with(state, n, operator)


def _observe(model: Model, state: State, ledger: Ledger) -> tuple[tuple[str, Observation], ...]:
    if not model.outcomes:
        return ()
    ids = {item.id for item in ledger.outstanding}
    if model.jobs:
        return tuple((i, _seen_live(state, i)) for i in sorted(ids))
    return tuple(
        (message.id, Observation(message.result))
        for message in state.messages
        if message.id in ids and message.result is not None
    )


def _seen_live(state: State, launch: str) -> Observation:
    found = [message for message in state.messages if message.id == launch]
    return Observation((found[0].result or Fact.ACCEPTED) if found else Fact.GONE)


def _pending(state: State) -> tuple[str, ...]:
    return tuple(f"[{n}]" for n, pending in enumerate(state.pending) if pending)


def _query(model: Model, state: State, n: int) -> Iterator[Step]:
    operator = state.operators[n]
    assert operator.ledger is not None
    seen = _observe(model, state, operator.ledger) if model.query_first else operator.seen
    rows = operator.rows if model.query_first else _pending(state)
    asked = operator._replace(step="write", seen=seen, rows=rows)
    ids = to_supersede(model.spec, operator.ledger, _facts(model, asked), NOW)
    if not ids or not model.idempotent or model.jobs:
        yield "queries", _with(state, n, asked)
        return
    landed = {message.id for message in state.messages}
    said = tuple((i, Observation(Fact.ACCEPTED if i in landed else Fact.SUPERSEDED)) for i in ids)
    superseded = state.superseded | (set(ids) - landed)
    after = asked._replace(seen=(*(s for s in seen if s[0] not in ids), *said))
    yield "queries and supersedes", _with(state, n, after)._replace(superseded=superseded)


def _facts(model: Model, operator: Operator) -> Facts:
    found = tuple(Row(key, {}) for key in operator.rows)
    facts = Facts(
        traits=model.traits,
        query_hash="q",
        endpoints=ENDPOINTS,
        read_at=operator.read_at,
        observations=dict(operator.seen),
        rows=None,
        reports=dict(operator.reports),
    )
    assert operator.ledger is not None
    limit = rows_to_read(model.spec, operator.ledger)
    rows = Rows("q", found[:limit], complete=len(found) < limit)
    wanted = keys_to_look_up(operator.ledger, facts, rows, operator.read_at)
    missing = frozenset(wanted) - set(operator.rows)
    fetched = tuple(row for row in found if row.key in wanted)
    return replace(facts, rows=replace(rows, fetched=fetched, absent=missing))


def _write(model: Model, state: State, n: int) -> Iterator[Step]:
    operator = state.operators[n]
    if not operator.current and not model.ignore_conflicts:
        yield "loses its write", _with(state, n, Operator(reports=operator.reports))
        return
    decided = _decisions(model, state, operator)
    for decision in {frozenset(each.ledger.items): each for each in decided}.values():
        yield from _write_down(model, state, n, decision)


def _decisions(model: Model, state: State, operator: Operator) -> Iterator[Decision]:
    """What is decided, in whatever order the query gave its rows and the ledger has its items."""
    assert operator.ledger is not None
    taken = known_ids(state) | {message.id for message in state.messages}
    free = tuple(islice((f"{n}" for n in count() if f"{n}" not in taken), model.rows))
    remembered = {item.key for item in operator.ledger.items}
    new = [key for key in operator.rows if key not in remembered]
    old = [key for key in operator.rows if key in remembered]
    for items in _orders(operator.ledger.items):
        for first in permutations(new):
            ledger = replace(operator.ledger, items=items)
            asked = operator._replace(ledger=ledger, rows=(*old, *first))
            yield _decided(model, asked, free)


def _orders(items: tuple[Item, ...]) -> Iterator[tuple[Item, ...]]:
    """Their order matters only to rows that wait for the same slot."""
    waiting = sum(item.phase is Phase.WAITING for item in items)
    return permutations(items) if waiting > 1 else iter([items])


def _decided(model: Model, operator: Operator, free: tuple[str, ...]) -> Decision:
    ids = iter(free)
    facts, ledger = _facts(model, operator), operator.ledger
    assert ledger is not None
    return model.decide(model.spec, ledger, facts, NOW, lambda: next(ids))


def _write_down(model: Model, state: State, n: int, decision: Decision) -> Iterator[Step]:
    operator = state.operators[n]
    sends = tuple(_sending(send) for send in decision.sends)
    unsent = dict(operator.reports) | {
        send.id: Report(send.sends, Observation(Fact.NOT_SENT)) for send in sends
    }
    written = _judge_write(model, state, decision.ledger, len(sends))
    if not sends and written.ledger.items == state.ledger.items:
        yield "has nothing to write", _with(state, n, Operator(reports=operator.reports))
    claimed = {item.id for item in decision.ledger.items if item.phase is Phase.CLAIMED}
    booked = tuple((i, report) for i, report in unsent.items() if i in claimed)
    step = "send" if sends else "read"
    yield "writes", _with(written, n, Operator(step, sends=sends, reports=booked))
    if model.may_fail(state):
        unknown = Operator(reports=tuple(unsent.items()))
        yield "writes, but has no answer", _fault(_with(written, n, unknown))
        yield "writes in vain, and has no answer", _fault(_with(state, n, unknown))


def _sending(send: Send) -> Sending:
    item = send.item
    return Sending(item.id, item.key, item.sends, send.expires_at, NOW + SEND_WITHIN)


def _send(model: Model, state: State, n: int) -> Iterator[Step]:
    for sending in state.operators[n].sends:
        yield from _send_one(model, state, n, sending)


def _send_one(model: Model, state: State, n: int, sending: Sending) -> Iterator[Step]:
    operator = state.operators[n]

    def said(fact: Fact) -> State:
        report = (sending.id, Report(sending.sends, Observation(fact)))
        rest = tuple(each for each in operator.sends if each != sending)
        reports = tuple(r for r in operator.reports if r[0] != sending.id)
        step = "send" if rest else "read"
        return _with(state, n, operator._replace(step=step, sends=rest, reports=(*reports, report)))

    if sending.until <= NOW and not model.late_is_sent:
        yield f"is too late to send {sending.id}", said(Fact.NOT_SENT)
        return
    accepted = Fact.SUPERSEDED if sending.id in state.superseded else Fact.ACCEPTED
    yield f"sends {sending.id}", _put(model, said(accepted), sending)
    if model.may_fail(state):
        yield f"sends {sending.id}, refused", _fault(said(Fact.NOT_SENT))
        uncertain = _fault(said(Fact.UNCERTAIN))
        yield f"sends {sending.id}, unanswered", _put(model, uncertain, sending)
        yield f"sends {sending.id} in vain", uncertain
        late = sending._replace(until=NOW + LATEST_SEND - SEND_WITHIN)
        yield f"sends {sending.id}, late", uncertain._replace(late=(*state.late, late))


_STEPS: dict[str, Callable[[Model, State, int], Iterator[Step]]] = {
    "read": _read,
    "query": _query,
    "write": _write,
    "send": _send,
}


# The broker and its workers. They commit their row before they report.


def _put(model: Model, state: State, sending: Sending) -> State:
    landed = any(message.id == sending.id for message in state.messages)
    if model.idempotent and (landed or sending.id in state.superseded):
        return state
    message = Message(sending.id, sending.key, sending.expires_at)
    after = state._replace(messages=(*state.messages, message))
    if not _expired(after, message) and sending.id in state.closed:
        raise Broken(f"a message of {sending.id} arrives after its slot was freed")
    live = [each for each in after.messages if is_live(after, each)]
    if len({each.key for each in live}) < len(live):
        raise Broken("two live launches of one row")
    if len(live) > model.cap:
        raise Broken(f"cap: {len(live)} launches are live")
    return after


def _expired(state: State, message: Message) -> bool:
    return message.expires_at is not None and message.expires_at <= NOW


def is_live(state: State, message: Message) -> bool:
    if not state.pending[_row(message.key)]:
        return False
    waits = message.state == "queued" and not _expired(state, message)
    return waits or message.state == "running"


def _row(key: str) -> int:
    return int(key.strip("[]"))


def _worker_steps(model: Model, state: State) -> Iterator[Step]:
    for n, message in enumerate(state.messages):
        if message.state == "queued":
            yield f"a worker takes {message.id}", _taken(state, n)
        elif message.state == "running":
            after = _left(state, message.key)._replace(done=state.done | {message.key})
            yield f"{message.id} commits", _as(after, n, state="done")
            yield f"{message.id} fails", _as(state, n, state="gone", result=Fact.FAILED)
            told = Fact.FAILED if model.jobs else None
            yield f"{message.id} dies", _as(state, n, state="gone", result=told)
        elif message.state == "done":
            yield f"{message.id} reports", _as(state, n, state="gone", result=Fact.SUCCEEDED)


def _left(state: State, key: str) -> State:
    pending = list(state.pending)
    pending[_row(key)] = False
    return state._replace(pending=tuple(pending))


def _taken(state: State, n: int) -> State:
    message = state.messages[n]
    if _expired(state, message):
        return _as(state, n, state="gone", result=Fact.NOT_STARTED)
    if message.key in state.done:
        raise Broken(f"{message.id} does a finished row again")
    return _as(state, n, state="running", started=NOW)


def _as(state: State, n: int, /, **fields: Any) -> State:
    messages = list(state.messages)
    messages[n] = messages[n]._replace(**fields)
    return state._replace(messages=tuple(messages))


def _later(state: State, time: timedelta) -> State:
    """All that has a time is so much older."""
    return state._replace(
        ledger=_later_ledger(state.ledger, time),
        operators=tuple(_later_operator(each, time) for each in state.operators),
        messages=tuple(
            each._replace(expires_at=_ago(each.expires_at, time), started=_ago(each.started, time))
            for each in state.messages
        ),
        late=tuple(_later_sending(each, time) for each in state.late),
    )


def _later_ledger(ledger: Ledger, time: timedelta) -> Ledger:
    items = tuple(
        replace(
            item,
            since=item.since - time,
            claimed=_ago(item.claimed, time),
            until=_ago(item.until, time),
        )
        for item in ledger.items
    )
    return replace(ledger, items=items, last_settled=_ago(ledger.last_settled, time))


def _later_operator(operator: Operator, time: timedelta) -> Operator:
    return operator._replace(
        ledger=operator.ledger and _later_ledger(operator.ledger, time),
        read_at=operator.read_at - time,
        sends=tuple(_later_sending(each, time) for each in operator.sends),
    )


def _later_sending(sending: Sending, time: timedelta) -> Sending:
    expires_at = _ago(sending.expires_at, time)
    return sending._replace(expires_at=expires_at, until=sending.until - time)


def _ago(moment: datetime | None, time: timedelta) -> datetime | None:
    return moment and moment - time


def _time_limits(state: State) -> State:
    for n, message in enumerate(state.messages):
        limit = timedelta(seconds=60) if message.expires_at else None
        overdue = message.started and limit and message.started + limit <= NOW
        if message.state in ("running", "done") and overdue:
            state = _as(state, n, state="gone", result=Fact.FAILED)
    return state


def known_ids(state: State) -> frozenset[str]:
    """The launches that a ledger or an operator knows of, or that are on their way."""
    ids = [item.id for item in state.ledger.items] + [each.id for each in state.late]
    for each in state.operators:
        ids += [item.id for item in each.ledger.items] if each.ledger else []
        ids += [sending.id for sending in each.sends] + [i for i, _ in each.reports]
    return frozenset(ids)


# The judge of writes.


def _judge_write(model: Model, state: State, ledger: Ledger, sends: int) -> State:
    before = {item.id: item for item in state.ledger.outstanding}
    after = {item.id: item for item in ledger.outstanding}
    if len(after) > max(len(before), model.cap):
        raise Broken(f"cap: a write brings {len(after)} launches")
    if again := after.keys() & state.closed:
        raise Broken(f"{set(again)} are outstanding again")
    counted = ledger.succeeded + ledger.failed + ledger.lost
    left = before.keys() - after.keys()
    landed = {message.id for message in state.messages} & left
    if not len(landed) <= counted <= len(left):
        raise Broken(f"counters: {counted} ends for {len(landed)} of {len(left)} launches")
    if _launched(ledger) != _launched(state.ledger) + ledger.launched - counted:
        raise Broken("counters: launched is not succeeded + failed + lost + outstanding")
    # Counters begin anew with every write: else no two states were equal.
    bare = replace(ledger, launched=0, succeeded=0, failed=0, lost=0, last_launch=None)
    others = tuple(each._replace(current=False) for each in state.operators)
    return state._replace(
        ledger=bare,
        operators=others,
        closed=state.closed | left,
    )


def _launched(ledger: Ledger) -> int:
    return sum(item.phase is Phase.LAUNCHED for item in ledger.items)
