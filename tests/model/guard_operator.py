"""The operators: the real rules of evidence and the real decision, from one crash to the next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cache

from scannerjob.model.decide import decide
from scannerjob.model.facts import Fact, Facts, Observation, Report, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.reading import to_supersede, worth_a_look
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import parse_spec
from scannerjob.targets.celery.lapses import STEADY, View, observation
from scannerjob.worker.records import State
from tests.model.guard_world import (
    NOW,
    SEND_WITHIN,
    START,
    Broken,
    Message,
    Model,
    Operator,
    Sending,
    World,
)

Step = tuple[str, World]

_SECRET = {"urlSecretRef": {"name": "app", "key": "url"}}
_SPEC = parse_spec(
    {
        "database": _SECRET,
        "query": "SELECT 1",
        "concurrency": 1,
        "retry": {"attempts": 100, "backoff": "0s"},
        "celery": {"broker": _SECRET, "task": "t", "guard": _SECRET},
    }
)
_TRAITS = TargetTraits(tells_outcomes=False, resend_within=timedelta.max, guarded=True)
_ENDPOINTS = {"broker": "b", "guard": "g"}
_ROW = Row("[1]", {})


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next at the operators."""
    for n, operator in enumerate(world.operators):
        for name, after in own_steps(model, world, n):
            yield f"operator {n} {name}", after
        if operator.cut:
            back = world.with_operator(n, operator._replace(cut=False))
            yield f"operator {n} reaches the store again", back
        if world.faults < model.faults:
            for kind, name, after in _faults(world, n):
                if kind in model.kinds:
                    yield f"operator {n} {name}", after._replace(faults=world.faults + 1)


def must_act(operator: Operator) -> bool:
    """Whether time cannot pass before it has gone on."""
    return not operator.stalled and (operator.step != "look" or not operator.looked)


def _faults(world: World, n: int) -> Iterator[tuple[str, str, World]]:
    operator = world.operators[n]
    if operator.step != "look":
        dead = Operator(looked=True, cut=operator.cut)
        yield "operator dies", "dies, and another begins", world.with_operator(n, dead)
    if must_act(operator):
        stalled = operator._replace(stalled=True)
        yield "operator stalls", "stalls for a while", world.with_operator(n, stalled)
    if not operator.cut:
        cut = operator._replace(cut=True)
        yield "operator cut off", "is cut off the store", world.with_operator(n, cut)


def own_steps(model: Model, world: World, n: int) -> Iterator[Step]:
    """What an operator may do next."""
    operator = world.operators[n]
    reached = world.store.up and not operator.cut
    if operator.step == "look":
        if not operator.looked:
            yield "looks", _look(model, world, n, reached)
    elif operator.step == "query":
        yield "queries", _query(model, world, n)
    elif operator.step == "supersede":
        yield "supersedes", _supersede(model, world, n) if reached else _idle(world, n)
    elif operator.step == "write":
        yield "writes", _write(world, n)
    else:
        yield _send(model, world, n, reached)


def _idle(world: World, n: int) -> World:
    idle = world.operators[n]._replace(
        step="look", item=None, current=False, seen=None, present=None
    )
    return world.with_operator(n, idle)


def _ledger(item: Item | None) -> Ledger:
    return Ledger((item,) if item else (), query_hash="q", endpoints=_ENDPOINTS)


def _facts(operator: Operator) -> Facts:
    item, rows = operator.item, None
    if operator.present is not None:
        rows = Rows("q", (_ROW,) if operator.present else (), complete=True)
    seen = {item.id: operator.seen} if item and operator.seen else {}
    reports = {operator.report[0]: operator.report[1]} if operator.report else {}
    return Facts(_TRAITS, "q", _ENDPOINTS, START, seen, rows, reports)


def _look(model: Model, world: World, n: int, reached: bool) -> World:
    operator = world.operators[n]._replace(looked=True, item=world.item, current=True)
    lapses = operator.recall()
    if not reached:
        lapses.failed()
        return _idle(world.with_operator(n, operator._replace(series=lapses.series)), n)
    view, item = View(lapses), world.item
    view.sights = {operator.sight[0]: operator.sight[1]} if operator.sight else {}
    ids = [item.id] if item and item.outstanding else []
    told = view.note(world.store.read(), ids, NOW)
    sight = next(iter(view.sights.items()), None)
    operator = operator._replace(series=lapses.series, sight=sight)
    operator = _seen(model, world, operator, told.get(ids[0]) if ids else None)
    world = world.with_operator(n, operator)
    over = to_supersede(_SPEC, _ledger(item), _facts(operator), START)
    if over and not model.supersede_late and not model.no_supersede:
        return world.with_operator(n, operator._replace(step="supersede"))
    return _looked(world, n)


def _looked(world: World, n: int) -> World:
    """It goes on to the rows, or to its write, if either could change anything."""
    operator = world.operators[n]
    if worth_a_look(_SPEC, _ledger(operator.item), _facts(operator), START):
        return world.with_operator(n, operator._replace(step="query"))
    after = world.with_operator(n, operator._replace(step="write"))
    return _idle(after, n) if _decided(world, operator) == operator.item else after


def _seen(model: Model, world: World, operator: Operator, seen: Observation | None) -> Operator:
    """As the target has it: a record alone does not tell whether there is a message.

    Workers have the guard here, and have said so.
    """
    if seen is None or seen.fact is not Fact.ACCEPTED or model.queued_is_sent:
        return operator._replace(seen=seen, unplaced=None)
    if any(each.id == operator.item.id for each in world.queue if operator.item):
        return operator._replace(seen=seen if model.one_redis else None, unplaced=None)
    since = NOW if operator.unplaced is None else operator.unplaced
    lost = since <= -STEADY
    told = Observation(Fact.FORGOTTEN) if lost else seen if model.one_redis else None
    return operator._replace(seen=told, unplaced=since)


def _query(model: Model, world: World, n: int) -> World:
    operator = world.operators[n]._replace(present=world.wanted)
    facts = _facts(operator)
    ids = to_supersede(_SPEC, _ledger(operator.item), facts, START)
    if model.supersede_late or model.no_supersede:
        unread = replace(facts, rows=None)
        ids += to_supersede(_SPEC, _ledger(operator.item), unread, START)
    if ids and model.no_supersede:
        ids, operator = [], operator._replace(seen=Observation(Fact.LAPSED))
    step = "supersede" if ids else "write"
    return world.with_operator(n, operator._replace(step=step))


def _supersede(model: Model, world: World, n: int) -> World:
    operator = world.operators[n]
    assert operator.item is not None
    launch = operator.item.id
    if _is_unclear(world, operator, launch) and not model.gives_up_unclear:
        return _idle(world, n)
    record = model.rules.supersede(world.store.get(launch), NOW)
    # A crash after this leaves a record that tells the next look what was done.
    after = world.written(launch, record)
    after = after.with_operator(n, operator._replace(step="write", seen=observation(record)))
    return _looked(after, n) if operator.present is None else after


def _is_unclear(world: World, operator: Operator, launch: str) -> bool:
    view = View(operator.recall())
    view.sights = {operator.sight[0]: operator.sight[1]} if operator.sight else {}
    # Left out: that the store loses the record in the instant since the look.
    just_lost = operator.sight is None and world.store.get(launch) is None
    return just_lost or view.is_unclear(launch)


def _decided(world: World, operator: Operator) -> Item | None:
    known = Operator(
        item=operator.item, seen=operator.seen, present=operator.present, report=operator.report
    )
    return decided(known, f"n{world.launches + 1}")


@cache
def decided(known: Operator, launch: str) -> Item | None:
    """What is remembered of the row from now on; the new launch, if there is one, has this id."""
    decision = decide(_SPEC, _ledger(known.item), _facts(known), START, lambda: launch)
    return next(iter(decision.ledger.items), None)


def _write(world: World, n: int) -> World:
    operator = world.operators[n]
    before, item = operator.item, _decided(world, operator)
    idle = _idle(world, n)
    if item == before or not operator.current:
        return idle
    if before and before.outstanding and (item is None or item.id != before.id):
        _judge_end(world, before.id)
    others = tuple(each._replace(current=False) for each in idle.operators)
    claimed = item is not None and (before is None or item.id != before.id) and item.outstanding
    after = idle._replace(item=item, operators=others, launches=world.launches + claimed)
    if item is None or not (claimed or (before and item.sends > before.sends)):
        return after
    sending = Sending(item.id, item.sends, SEND_WITHIN, item.phase is Phase.LAUNCHED)
    return after.with_operator(n, others[n]._replace(step="send", sending=sending))


def _judge_end(world: World, launch: str) -> None:
    for run in world.runs:
        if run.id == launch and run.does == "working" and not run.is_excused:
            raise Broken(f"the slot of {launch} is freed while it runs")


def _send(model: Model, world: World, n: int, reached: bool) -> Step:
    sending = world.operators[n].sending
    assert sending is not None
    if sending.until <= NOW:
        return f"is too late to send {sending.id}", _told(world, n, sending, Fact.NOT_SENT)
    if sending.registered:
        return f"publishes {sending.id}", _published(world, n, sending)
    if not reached:
        return f"cannot send {sending.id}", _told(world, n, sending, Fact.NOT_SENT)
    return f"sends {sending.id}", _register(model, world, n, sending)


def _register(model: Model, world: World, n: int, sending: Sending) -> World:
    record = world.store.get(sending.id)
    after = world._replace(store=world.store.put(sending.id, model.rules.register(record)))
    retries = any(each.id == sending.id and each.retries for each in world.queue)
    if sending.anew and not retries:
        after = after._replace(lost=world.lost - {sending.id})
    new = record is None or record.state is State.QUEUED
    if not model.one_redis and new:
        goes_on = world.operators[n]._replace(sending=sending._replace(registered=True))
        return after.with_operator(n, goes_on)
    if record is None or (new and sending.anew):
        return _published(after, n, sending)
    superseded = record.state is State.SUPERSEDED
    return _told(after, n, sending, Fact.SUPERSEDED if superseded else Fact.ACCEPTED)


def _published(world: World, n: int, sending: Sending) -> World:
    return _told(world, n, sending, Fact.ACCEPTED).with_message(Message(sending.id))


def _told(world: World, n: int, sending: Sending, fact: Fact) -> World:
    report = (sending.id, Report(sending.sends, Observation(fact)))
    operator = world.operators[n]._replace(step="look", sending=None, report=report)
    return world.with_operator(n, operator)
