"""The operators, by the rules of the guard: look, ask for the row, supersede, claim, send."""

from __future__ import annotations

from collections.abc import Iterator

from scannerjob.model.facts import Fact
from scannerjob.targets.celery.lapses import View
from scannerjob.worker.records import Record, State
from tests.model.guard_world import (
    KEPT_FOR_ITS_SENDER,
    SEND_WITHIN,
    Broken,
    Ledger,
    Message,
    Model,
    Operator,
    Sending,
    World,
    is_excused,
)

Step = tuple[str, World]
_OVER = ("succeeded", "failed", "lapsed", "superseded")
# Before its row settles it, or another launch is made, these have to be superseded.
_UNENDED = ("accepted", "started", "silent", "forgotten")


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next at the operators."""
    for n, operator in enumerate(world.operators):
        for name, after in own_steps(model, world, n):
            yield f"operator {n} {name}", after
        if world.faults < model.faults:
            for kind, name, after in _faults(world, n):
                if kind in model.kinds:
                    yield f"operator {n} {name}", after._replace(faults=world.faults + 1)
        if operator.cut:
            yield f"operator {n} reaches the store again", _put(world, n, operator._replace(cut=False))


def must_act(world: World, operator: Operator) -> bool:
    """Whether time cannot pass before it has gone on."""
    if world.now == operator.stalled:
        return False
    return operator.step != "look" or operator.looked < world.now


def _faults(world: World, n: int) -> Iterator[tuple[str, str, World]]:
    operator = world.operators[n]
    yield "operator dies", "dies, and another is begun", _put(world, n, Operator(looked=world.now))
    if must_act(world, operator):
        stalled = operator._replace(stalled=world.now)
        yield "operator stalls", "stalls for a while", _put(world, n, stalled)
    if not operator.cut:
        yield "operator cut off", "is cut off the store", _put(world, n, operator._replace(cut=True))


def _put(world: World, n: int, operator: Operator) -> World:
    return world.with_operator(n, operator)


def own_steps(model: Model, world: World, n: int) -> Iterator[Step]:
    operator = world.operators[n]
    reached = world.store.up and not operator.cut
    if operator.step == "look":
        if operator.looked < world.now:
            yield "looks", _look(model, world, n, reached)
    elif operator.step == "query":
        yield "queries", _put(world, n, operator._replace(step="settle", present=world.wanted))
    elif operator.step == "settle":
        if _needs_superseding(model, operator):
            yield "supersedes", _supersede(model, world, n) if reached else _idle(world, n)
        else:
            yield "writes", _write(model, world, n)
    else:
        yield from _send(model, world, n, reached)


def _idle(world: World, n: int) -> World:
    operator = world.operators[n]
    return _put(world, n, operator._replace(step="look", ledger=None, fact="", present=False))


def _look(model: Model, world: World, n: int, reached: bool) -> World:
    operator = world.operators[n]._replace(looked=world.now, ledger=world.ledger)
    ledger = world.ledger
    lapses = operator.recall()
    if not reached:
        lapses.failed()
        return _idle(_put(world, n, operator._replace(series=lapses.series, sight=None)), n)
    view = View(lapses)
    view.sights = {operator.sight[0]: operator.sight[1]} if operator.sight else {}
    ids = [ledger.id] if ledger.id else []
    told = view.note(world.store.read(ledger.id, world.now), ids, float(world.now))
    fact = told[ledger.id].fact.value if ledger.id in told else ""
    sight = (ledger.id, view.sights[ledger.id]) if ledger.id in view.sights else None
    operator = operator._replace(series=lapses.series, sight=sight, fact=fact, step="query")
    after = _put(world, n, operator)
    # Nothing follows from what still runs, or is not known.
    unmoved = fact in ("", Fact.RUNNING.value) and ledger.phase == "launched"
    return _idle(after, n) if unmoved else after


def _needs_superseding(model: Model, operator: Operator) -> bool:
    if operator.ledger is None or operator.ledger.phase == "none":
        return False
    if operator.fact == Fact.SILENT.value:
        return not model.no_supersede
    return operator.fact in _UNENDED and not operator.present and not model.left_is_done


def _supersede(model: Model, world: World, n: int) -> World:
    operator = world.operators[n]
    assert operator.ledger is not None
    launch = operator.ledger.id
    record = model.rules.supersede(world.store.get(launch), world.store_now)
    # A crash here leaves a record that tells the next look what was done.
    after = world._replace(store=world.store.put(launch, record))
    return _put(after, n, operator._replace(fact=_fact_of(record)))


def _fact_of(record: Record) -> str:
    if record.state is State.SUPERSEDED:
        return "lapsed" if record.was in (State.RUNNING, State.RETRYING) else "superseded"
    return {State.DONE: "succeeded", State.FAILED: "failed"}.get(record.state, "running")


def _write(model: Model, world: World, n: int) -> World:
    operator = world.operators[n]
    before = operator.ledger
    assert before is not None
    ledger = _decided(model, operator, before, world.now)
    if ledger == before:
        return _idle(world, n)
    if world.ledger != before:
        return _idle(world, n)
    if before.phase != "none" and ledger.id != before.id:
        _judge_end(world, before)
    after = _idle(world._replace(ledger=ledger), n)
    if ledger.sends == before.sends and ledger.id == before.id or ledger.phase != "claimed":
        return after
    sending = Sending(ledger.id, ledger.sends, world.now + SEND_WITHIN)
    return _put(after, n, after.operators[n]._replace(step="send", sending=sending))


def _judge_end(world: World, ledger: Ledger) -> None:
    for run in world.runs:
        if run.id == ledger.id and run.does == "working" and not is_excused(run, world.now):
            raise Broken(f"the slot of {ledger.id} is freed while it runs")


def _decided(model: Model, operator: Operator, ledger: Ledger, now: int) -> Ledger:
    fact, present = operator.fact, operator.present
    if model.no_supersede and fact == "silent":
        fact = "lapsed"
    if model.left_is_done and not present:
        fact = "superseded"
    if ledger.phase == "none":
        return _claimed(ledger, ledger.attempt, now) if present else ledger
    if fact in _OVER:
        attempt = ledger.attempt + (fact != "superseded")
        ended = ledger._replace(phase="none", id="", sends=0)
        return _claimed(ended, attempt, now) if present else ended
    if fact == "forgotten":
        again = ledger._replace(phase="claimed", sends=ledger.sends + 1, since=now)
        return again if present else ledger
    return _accepted(model, operator, ledger, now)


def _accepted(model: Model, operator: Operator, ledger: Ledger, now: int) -> Ledger:
    """Whether a claim was sent; if nobody says so, it is sent again."""
    if ledger.phase != "claimed":
        return ledger
    queued = operator.fact == "accepted"
    sent = operator.fact in ("running", "started") or operator.accepted == ledger.id
    if sent or (queued and (model.one_redis or model.queued_is_sent)):
        return ledger._replace(phase="launched")
    orphan = now - ledger.since > KEPT_FOR_ITS_SENDER
    if orphan and operator.present:
        return ledger._replace(sends=ledger.sends + 1, since=now)
    return ledger


def _claimed(ledger: Ledger, attempt: int, now: int) -> Ledger:
    launches = ledger.launches + 1
    return Ledger("claimed", f"n{launches}", attempt, 1, now, launches)


def _send(model: Model, world: World, n: int, reached: bool) -> Iterator[Step]:
    operator = world.operators[n]
    sending = operator.sending
    assert sending is not None
    sent = _put(world, n, operator._replace(step="look", sending=None))
    if world.now >= sending.until:
        yield f"is too late to send {sending.id}", sent
    elif sending.registered:
        yield f"publishes {sending.id}", _published(sent, n, sending)
    elif not reached:
        yield f"cannot register {sending.id}", sent
    else:
        record = world.store.get(sending.id)
        registered = sent._replace(store=world.store.put(sending.id, model.rules.register(record)))
        if model.one_redis:
            new = record is None
            yield f"sends {sending.id}", _published(registered, n, sending) if new else registered
        elif record is None or record.state is State.QUEUED:
            goes_on = operator._replace(sending=sending._replace(registered=True))
            yield f"registers {sending.id}", _put(registered, n, goes_on)
        else:
            yield f"finds {sending.id} begun", registered


def _published(world: World, n: int, sending: Sending) -> World:
    operator = world.operators[n]._replace(accepted=sending.id)
    return _put(world, n, operator).with_message(Message(sending.id, 0, world.now))
