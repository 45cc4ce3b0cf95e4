"""A small model of two operators, explored in every order: the real decision, an abstract world.

An operator's cycle is four steps (read and observe, query, decide and write, send), with anything
in between: the other operator, workers, time, a crash. A read that is stale is a read after which
the other operator was quicker, and a process that freezes is one that time passes by; neither needs
a step of its own. What may go wrong (crashes, lost replies, refused, lost and late sends) and how
often time passes is bounded, or there would be no end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from scannerjob.model.facts import (
    Decision,
    Fact,
    Facts,
    Observation,
    Report,
    Send,
    TargetTraits,
)
from scannerjob.model.ledger import Ledger, Phase
from scannerjob.model.limits import LATEST_SEND, SEND_WITHIN
from scannerjob.model.reading import keys_to_look_up, rows_to_read, to_supersede
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import ScannerJobSpec, parse_spec

START = datetime(2030, 1, 1, tzinfo=UTC)
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
    faults: int = 1
    spells: tuple[int, ...] = (6, 40, 140)
    waits: int = 2
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
            "retry": {"attempts": 2, "backoff": "0s"},
        }
        if self.jobs:
            return parse_spec(document | {"job": {"template": {}}})
        document["celery"] = {"broker": secret, "task": "t", **life}
        return parse_spec(document | ({"deadline": "60s"} if self.lifetime else {}))

    @cached_property
    def traits(self) -> TargetTraits:
        if self.jobs:
            return TargetTraits(tells_outcomes=True, resend_within=timedelta.max, sees_all=True)
        return TargetTraits(self.outcomes, RESEND_WITHIN if self.idempotent else None)


@dataclass(frozen=True)
class Message:
    """A message on the broker, or the execution it became: queued, running, done or gone."""

    id: str
    key: str
    expires_at: datetime | None
    state: str = "queued"
    started: datetime | None = None
    result: Fact | None = None


@dataclass(frozen=True)
class Sending:
    """A send that was claimed: on its way in a process, or still in the network."""

    id: str
    key: str
    sends: int
    expires_at: datetime | None
    until: datetime


@dataclass(frozen=True)
class Operator:
    """A process between two steps of its cycle, with what it read and what it remembers."""

    step: str = "read"
    ledger: Ledger | None = None
    current: bool = False  # nobody wrote since it read
    read_at: datetime = START
    seen: tuple[tuple[str, Observation], ...] = ()
    rows: tuple[str, ...] = ()
    sends: tuple[Sending, ...] = ()
    reports: tuple[tuple[str, Report], ...] = ()


@dataclass(frozen=True)
class State:
    """Everything there is."""

    ledger: Ledger
    pending: tuple[bool, ...]
    operators: tuple[Operator, ...] = (Operator(), Operator())
    messages: tuple[Message, ...] = ()
    late: tuple[Sending, ...] = ()
    superseded: frozenset[str] = frozenset()
    closed: frozenset[str] = frozenset()
    done: frozenset[str] = frozenset()
    now: datetime = START
    faults: int = 0
    waits: int = 0


Step = tuple[str, State]


def explore(model: Model, limit: int) -> int:
    """Visit every state, breadth first, up to `limit` of them; gives how many were visited.

    Raises Broken with the shortest way to the first state that breaks a promise.
    """
    first = State(Ledger(query_hash="q", endpoints=_ENDPOINTS), (True,) * model.rows)
    came_from: dict[int, tuple[int, str] | None] = {_identity(first): None}
    todo = deque([first])
    while todo and len(came_from) < limit:
        state = todo.popleft()
        here = _identity(state)
        try:
            for name, step in _steps(model, state):
                after = _without_ended(step)
                there = _identity(after)
                if there not in came_from:
                    came_from[there] = (here, name)
                    todo.append(after)
        except Broken as broken:
            raise Broken("\n".join([str(broken), *_way(came_from, here)])) from None
    return len(came_from)


_ENDPOINTS = {"broker": "b"}


def _identity(state: State) -> int:
    """A number for what matters of a state; which operator is which does not."""
    operators = frozenset(
        (_ledger(each.ledger), each.step, each.current, each.read_at, *_memory(each))
        for each in state.operators
    )
    rest = tuple(getattr(state, name) for name in _PARTS)
    return hash((_ledger(state.ledger), operators, rest))


def _memory(operator: Operator) -> tuple[object, ...]:
    return operator.seen, operator.rows, operator.sends, operator.reports


def _without_ended(state: State) -> State:
    """The state without what can no longer matter: messages that ended, and ids nobody knows."""
    known = _known_ids(state)
    messages = tuple(m for m in state.messages if m.id in known or _is_live(state, m))
    return replace(
        state,
        messages=messages,
        superseded=state.superseded & known,
        closed=state.closed & known,
    )


def _known_ids(state: State) -> frozenset[str]:
    ids = [item.id for item in state.ledger.items] + [each.id for each in state.late]
    for each in state.operators:
        ids += [item.id for item in each.ledger.items] if each.ledger else []
        ids += [sending.id for sending in each.sends] + [i for i, _ in each.reports]
    return frozenset(ids)


_PARTS = ("pending", "messages", "late", "superseded", "closed", "done", "now", "faults", "waits")


def _ledger(ledger: Ledger | None) -> object:
    return ledger and (ledger.items, ledger.last_settled)


def _way(came_from: dict[int, tuple[int, str] | None], here: int) -> list[str]:
    steps: list[str] = []
    while (link := came_from[here]) is not None:
        here, name = link
        steps.append(name)
    return [f"{n + 1:3} {name}" for n, name in enumerate(reversed(steps))]


def _steps(model: Model, state: State) -> Iterator[Step]:
    for n, operator in enumerate(state.operators):
        for name, after in _STEPS[operator.step](model, state, n):
            yield f"operator {n}: {name}", after
        if state.faults < model.faults and operator != Operator():
            yield f"operator {n} is killed", _fault(_with(state, n, Operator()))
    yield from _worker_steps(model, state)
    for index, sending in enumerate(state.late):
        rest = state.late[:index] + state.late[index + 1 :]
        if state.now <= sending.until:
            yield (
                f"a late send of {sending.id} arrives",
                _put(model, replace(state, late=rest), sending),
            )
    if state.faults < model.faults:
        for key in _pending(state):
            yield f"row {key} leaves", _fault(_left(state, key))
    if state.waits < model.waits:
        for seconds in model.spells:
            now = state.now + timedelta(seconds=seconds)
            yield f"{seconds} s pass", _time_limits(replace(state, now=now, waits=state.waits + 1))


def _with(state: State, n: int, operator: Operator) -> State:
    operators = list(state.operators)
    operators[n] = operator
    return replace(state, operators=tuple(operators))


def _fault(state: State) -> State:
    return replace(state, faults=state.faults + 1)


# The cycle.


def _read(model: Model, state: State, n: int) -> Iterator[Step]:
    seen = () if model.query_first else _observe(model, state, state.ledger)
    rows = _pending(state) if model.query_first else ()
    operator = replace(
        state.operators[n],
        step="query",
        ledger=state.ledger,
        current=True,
        read_at=state.now,
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
    asked = replace(operator, step="write", seen=seen, rows=rows)
    ids = to_supersede(model.spec, operator.ledger, _facts(model, asked), state.now)
    if not ids or not model.idempotent or model.jobs:
        yield "queries", _with(state, n, asked)
        return
    landed = {message.id for message in state.messages}
    said = tuple((i, Observation(Fact.ACCEPTED if i in landed else Fact.SUPERSEDED)) for i in ids)
    superseded = state.superseded | (set(ids) - landed)
    after = replace(asked, seen=(*(s for s in seen if s[0] not in ids), *said))
    yield "queries and supersedes", replace(_with(state, n, after), superseded=superseded)


def _facts(model: Model, operator: Operator) -> Facts:
    found = tuple(Row(key, {}) for key in operator.rows)
    facts = Facts(
        traits=model.traits,
        query_hash="q",
        endpoints=_ENDPOINTS,
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
    operator, spec = state.operators[n], model.spec
    if not operator.current and not model.ignore_conflicts:
        yield "loses its write", _with(state, n, Operator(reports=operator.reports))
        return
    taken = _known_ids(state) | {message.id for message in state.messages}
    ids = (f"{n}" for n in range(100) if f"{n}" not in taken)
    facts, ledger = _facts(model, operator), operator.ledger
    assert ledger is not None
    decision = model.decide(spec, ledger, facts, state.now, lambda: next(ids))
    sends = tuple(_sending(send, state.now) for send in decision.sends)
    unsent = dict(operator.reports) | {
        send.id: Report(send.sends, Observation(Fact.NOT_SENT)) for send in sends
    }
    written = _judge_write(model, state, decision.ledger, len(sends))
    done = replace(operator, ledger=None, seen=(), rows=(), current=False)
    claimed = {item.id for item in decision.ledger.items if item.phase is Phase.CLAIMED}
    booked = tuple((i, report) for i, report in unsent.items() if i in claimed)
    yield (
        "writes",
        _with(
            written, n, replace(done, step="send" if sends else "read", sends=sends, reports=booked)
        ),
    )
    if state.faults < model.faults:
        unknown = replace(done, step="read", reports=tuple(unsent.items()))
        yield "writes, but has no answer", _fault(_with(written, n, unknown))
        yield "writes in vain, and has no answer", _fault(_with(state, n, unknown))


def _sending(send: Send, now: datetime) -> Sending:
    item = send.item
    return Sending(item.id, item.key, item.sends, send.expires_at, now + SEND_WITHIN)


def _send(model: Model, state: State, n: int) -> Iterator[Step]:
    operator = state.operators[n]
    sending = operator.sends[0]

    def said(fact: Fact) -> State:
        report = (sending.id, Report(sending.sends, Observation(fact)))
        rest = operator.sends[1:]
        reports = tuple(r for r in operator.reports if r[0] != sending.id)
        step = "send" if rest else "read"
        return _with(state, n, replace(operator, step=step, sends=rest, reports=(*reports, report)))

    if state.now >= sending.until and not model.late_is_sent:
        yield f"is too late to send {sending.id}", said(Fact.NOT_SENT)
        return
    accepted = Fact.SUPERSEDED if sending.id in state.superseded else Fact.ACCEPTED
    yield f"sends {sending.id}", _put(model, said(accepted), sending)
    if state.faults < model.faults:
        yield f"sends {sending.id}, refused", _fault(said(Fact.NOT_SENT))
        uncertain = _fault(said(Fact.UNCERTAIN))
        yield f"sends {sending.id}, unanswered", _put(model, uncertain, sending)
        yield f"sends {sending.id} in vain", uncertain
        late = replace(sending, until=state.now + LATEST_SEND - SEND_WITHIN)
        yield f"sends {sending.id}, late", replace(uncertain, late=(*state.late, late))


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
    after = replace(state, messages=(*state.messages, message))
    if not _expired(after, message) and sending.id in state.closed:
        raise Broken(f"a message of {sending.id} arrives after its slot was freed")
    live = [each for each in after.messages if _is_live(after, each)]
    if len({each.key for each in live}) < len(live):
        raise Broken("two live launches of one row")
    if len(live) > model.cap:
        raise Broken(f"cap: {len(live)} launches are live")
    return after


def _expired(state: State, message: Message) -> bool:
    return message.expires_at is not None and message.expires_at <= state.now


def _is_live(state: State, message: Message) -> bool:
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
            after = replace(_left(state, message.key), done=state.done | {message.key})
            yield f"{message.id} commits", _as(after, n, state="done")
            yield f"{message.id} fails", _as(state, n, state="gone", result=Fact.FAILED)
            told = Fact.FAILED if model.jobs else None
            yield f"{message.id} dies", _as(state, n, state="gone", result=told)
        elif message.state == "done":
            yield f"{message.id} reports", _as(state, n, state="gone", result=Fact.SUCCEEDED)


def _left(state: State, key: str) -> State:
    pending = list(state.pending)
    pending[_row(key)] = False
    return replace(state, pending=tuple(pending))


def _taken(state: State, n: int) -> State:
    message = state.messages[n]
    if _expired(state, message):
        return _as(state, n, state="gone", result=Fact.NOT_STARTED)
    if message.key in state.done:
        raise Broken(f"{message.id} does a finished row again")
    return _as(state, n, state="running", started=state.now)


def _as(state: State, n: int, /, **fields: Any) -> State:
    messages = list(state.messages)
    messages[n] = replace(messages[n], **fields)
    return replace(state, messages=tuple(messages))


def _time_limits(state: State) -> State:
    for n, message in enumerate(state.messages):
        limit = timedelta(seconds=60) if message.expires_at else None
        overdue = message.started and limit and message.started + limit <= state.now
        if message.state in ("running", "done") and overdue:
            state = _as(state, n, state="gone", result=Fact.FAILED)
    return state


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
    others = tuple(replace(each, current=False) for each in state.operators)
    return replace(
        state,
        ledger=bare,
        operators=others,
        closed=state.closed | left,
    )


def _launched(ledger: Ledger) -> int:
    return sum(item.phase is Phase.LAUNCHED for item in ledger.items)
