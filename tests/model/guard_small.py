"""Every order of everything that may happen to one row, its launches and the guard's store.

Breadth first, so that what is found has the shortest way to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from scannerjob.targets.celery.lapses import Moment, Series
from tests.model import guard_operator, guard_workers
from tests.model.guard_world import STEP, Broken, Message, Model, Operator, Run, Store, World

Step = tuple[str, World]
# Steps of time within which a row is done once nothing goes wrong any more.
SOON = 40


def explore(model: Model, limit: int, live: bool = True) -> int:
    """Visit every state, breadth first, up to `limit` of them; gives how many were visited.

    Raises Broken with the shortest way to the first state that breaks a promise.
    """
    first = begin(model)
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    proven: set[World] = set()
    todo = deque([first])
    while todo and len(came_from) < limit:
        world = todo.popleft()
        try:
            for name, after in steps(model, world):
                after = tidied(after)
                if after not in came_from:
                    came_from[after] = (world, name)
                    todo.append(after)
            if live:
                judge_live(model, world, proven)
        except Broken as broken:
            raise Broken("\n".join([str(broken), *_way(came_from, world)])) from None
    return len(came_from)


def begin(model: Model) -> World:
    """A store that operators have read for a long time."""
    series = Series("0", Moment(-600.0, -600.0), Moment(-5.0, -5.0))
    return World(operators=(Operator(series=series),) * model.operators)


def _way(came_from: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    names: list[str] = []
    while (link := came_from[world]) is not None:
        world, name = link
        names.append(f"{world.now:4} s  {name}")
    return names[::-1]


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next."""
    yield from guard_operator.steps(model, world)
    yield from guard_workers.steps(model, world)
    yield from _store_steps(model, world)
    if time_may_pass(world) and world.now < model.steps * STEP:
        yield "time passes", world._replace(now=world.now + STEP)


def time_may_pass(world: World) -> bool:
    """Whether everybody who is well has done what he has to."""
    return not any(guard_workers.must_beat(world, run) for run in world.runs) and not any(
        guard_operator.must_act(world, operator) for operator in world.operators
    )


def _store_steps(model: Model, world: World) -> Iterator[Step]:
    store = world.store
    if not store.up:
        yield "the store is back", world._replace(store=store._replace(up=True, since=world.now))
    if world.faults >= model.faults:
        return
    if "restored" in model.kinds and store.saved is None and store.up:
        saved = store._replace(saved=(store.records, world.queue))
        yield "the store saves itself", world._replace(store=saved)
    for kind, name, after in _store_faults(model, world):
        if kind in model.kinds:
            yield f"the store {name}", after._replace(faults=world.faults + 1)


def _store_faults(model: Model, world: World) -> Iterator[tuple[str, str, World]]:
    store = world.store
    if not store.up:
        return
    yield "store down", "cannot be reached", world._replace(store=store._replace(up=False))
    yield "wiped", "is wiped", _forgetful(model, world, Store(identity=store.identity), ())
    anew = Store(identity=store.identity + 1)
    yield "begun anew", "is begun anew, empty", _forgetful(model, world, anew, ())
    if store.saved is not None:
        records, queue = store.saved
        old = Store(records, identity=store.identity + 1)
        yield "restored", "is begun anew, as it was saved", _forgetful(model, world, old, queue)
    for seconds in (10, 20):
        ahead = store._replace(ahead=store.ahead + seconds)
        yield "clock", f"'s clock jumps by {seconds} s", world._replace(store=ahead)


def _forgetful(
    model: Model, world: World, store: Store, queue: tuple[Message, ...]
) -> World:
    """The store has lost what was written; the broker too if it is the same Redis."""
    known = dict(store.records)
    runs = tuple(_forgotten(world, run, known.get(run.id)) for run in world.runs)
    since = world.now if store.identity != world.store.identity else world.store.since
    store = store._replace(ahead=world.store.ahead, since=since)
    return world._replace(
        store=store, runs=runs, queue=queue if model.one_redis else world.queue
    )


def _forgotten(world: World, run: Run, record: object) -> Run:
    return run._replace(forgot=record != world.store.get(run.id))


def tidied(world: World) -> World:
    """The state without what can no longer matter."""
    ids = {world.ledger.id, *(m.id for m in world.queue), *(run.id for run in world.runs)}
    for each in world.operators:
        ids |= {each.sending.id} if each.sending else set()
        ids |= {each.ledger.id} if each.ledger else set()
    ids |= {m.id for m in world.store.saved[1]} if world.store.saved else set()
    records = tuple(each for each in world.store.records if each[0] in ids)
    return world._replace(store=world.store._replace(records=records))


# Liveness: from everywhere, once all are well, the row is done.


def judge_live(model: Model, world: World, proven: set[World]) -> None:
    """That from here, with nothing going wrong any more, the row is done and forgotten."""
    world = _well(world)
    begun, seen = world, []
    while world.wanted or world.ledger.phase != "none" or world.runs:
        if world in proven:
            break
        seen.append(world)
        if len(seen) > SOON:
            raise Broken(f"not done {SOON} steps after all are well: {begun}")
        world = _one_step_of_time(model, world)
    proven.update(seen)


def _well(world: World) -> World:
    runs = tuple(guard_workers.thawed(world, run) for run in world.runs)
    operators = tuple(each._replace(cut=False, stalled=-1) for each in world.operators)
    store = world.store._replace(up=True, saved=None, since=min(world.store.since, world.now))
    return world._replace(runs=runs, operators=operators, store=store, faults=0)


def _one_step_of_time(model: Model, world: World) -> World:
    """Everybody does what he has to."""
    for n in range(len(world.runs) - 1, -1, -1):
        while n < len(world.runs) and (next_world := guard_workers.go_on(model, world, n)):
            world = next_world
    for message in world.queue:
        if message.eta <= world.now:
            world = guard_workers.take(model, world, message)
    for n in range(len(world.operators)):
        while guard_operator.must_act(world, world.operators[n]):
            _, world = next(guard_operator.own_steps(model, world, n))
    return tidied(world._replace(now=world.now + STEP))
