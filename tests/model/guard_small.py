"""Every order of everything that may happen to one row, its launches and the guard's store.

Breadth first, so that what is found has the shortest way to it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from scannerjob.model.ledger import Phase
from scannerjob.targets.celery.lapses import Moment, Series
from scannerjob.worker.records import State
from tests.model import guard_faults, guard_operator, guard_workers
from tests.model.guard_world import LONG_AGO, NOW, STEP, Broken, Model, Operator, World, later

Step = tuple[str, World]
# Steps of time within which a row is done once nothing goes wrong any more.
SOON = 40


def explore(model: Model, limit: int) -> int:
    """Visit every state, breadth first, up to `limit` of them; gives how many were visited.

    Raises Broken with the shortest way to the first state that breaks a promise.
    """
    guard_operator.decided.cache_clear()
    first = begin(model)
    came_from: dict[World, tuple[World, str] | None] = {first: None}
    proven: set[World] = set()
    todo = deque([first])
    while todo and len(came_from) < limit:
        world, name = todo.popleft(), "(all are well from here on)"
        try:
            judge_live(model, world, proven)
            for name, after in steps(model, world):
                tidy = tidied(after)
                if tidy not in came_from:
                    came_from[tidy] = (world, name)
                    todo.append(tidy)
        except Broken as broken:
            raise Broken("\n".join([str(broken), *_way(came_from, world)])) from None
    return len(came_from)


def begin(model: Model) -> World:
    """A store that operators have read for a long time."""
    series = Series("0", Moment(LONG_AGO, LONG_AGO), Moment(-STEP, -STEP))
    return World(operators=(Operator(series=series),) * model.operators)


def _way(came_from: Mapping[World, tuple[World, str] | None], world: World) -> list[str]:
    names: list[str] = []
    while (link := came_from[world]) is not None:
        world, name = link
        names.append(name)
    return names[::-1]


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next."""
    yield from guard_operator.steps(model, world)
    yield from guard_workers.steps(model, world)
    yield from guard_faults.steps(model, world)
    if time_may_pass(world):
        yield "time passes", later(world)


def time_may_pass(world: World) -> bool:
    """Whether everybody who is well has done what he has to."""
    return not any(guard_workers.must_beat(world, run) for run in world.runs) and not any(
        guard_operator.must_act(operator) for operator in world.operators
    )


def tidied(world: World) -> World:
    """The state without what can no longer matter."""
    ids = {world.item.id} if world.item else set()
    ids |= {each.id for each in world.queue} | {each.id for each in world.runs}
    for each in world.operators:
        ids |= {each.sending.id} if each.sending else set()
        ids |= {each.item.id} if each.item else set()
    ids |= {each.id for each in world.store.saved[1]} if world.store.saved else set()
    records = tuple(each for each in world.store.records if each[0] in ids)
    operators = tuple(_without_old_report(world, each) for each in world.operators)
    store = world.store._replace(records=records)
    return world._replace(store=store, operators=operators, lost=world.lost & ids)


def _without_old_report(world: World, operator: Operator) -> Operator:
    claimed = world.item is not None and world.item.phase is Phase.CLAIMED
    wanted = claimed and operator.report and world.item and operator.report[0] == world.item.id
    return operator if wanted else operator._replace(report=None)


# Liveness: from everywhere, once all are well, the row is done.


def judge_live(model: Model, world: World, proven: set[World]) -> None:
    """That from here, with nothing going wrong any more, the row is done and forgotten."""
    world = _well(model, world)
    if _is_stranded(world):
        return
    seen: list[World] = []
    while world.wanted or world.item or world.runs:
        if world in proven:
            break
        seen.append(world)
        if len(seen) > SOON:
            raise Broken(f"not done {SOON} steps after all are well")
        world = _step_of_time(model, world)
    proven.update(seen)


def _is_stranded(world: World) -> bool:
    """Whether the store fell back to a record that waits for a retry which has long ended.

    That such a launch is held, and reported as stalled, is a limit: the retry may as well be in a
    worker's memory.
    """
    item = world.item
    record = world.store.get(item.id) if item and item.id in world.lost else None
    if item is None or record is None or record.state is not State.RETRYING:
        return False
    ids = {each.id for each in world.queue} | {each.id for each in world.runs}
    return item.id not in ids


def _well(model: Model, world: World) -> World:
    store = world.store._replace(down=None, saved=None)
    operators = tuple(each._replace(cut=False, stalled=False) for each in world.operators)
    world = world._replace(operators=operators, store=store, faults=0)
    for n, run in enumerate(world.runs):
        world = guard_workers.thaw(model, world, n) if run.halt else world
    return world


def _step_of_time(model: Model, world: World) -> World:
    """Everybody does what he has to, and all that waits is done."""
    while world.runs:
        world = guard_workers.go_on(model, world, 0)
    for message in world.queue:
        if message.eta <= NOW:
            world = guard_workers.take(model, world, message)
    for n in range(len(world.operators)):
        while guard_operator.must_act(world.operators[n]):
            _, world = next(guard_operator.own_steps(model, world, n))
    return tidied(later(world))
