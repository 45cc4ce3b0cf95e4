"""What may become of the guard's store: it is away, it forgets, its clock jumps."""

from __future__ import annotations

from collections.abc import Iterator

from scannerjob.worker.records import LEASE
from tests.model.guard_world import NOW, STEP, Message, Model, Store, World, jumped

Step = tuple[str, World]


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen to the store."""
    store = world.store
    if "row leaves" in model.kinds and world.wanted and world.faults < model.faults:
        yield "the row leaves", world._replace(wanted=False, faults=world.faults + 1)
    if not store.up:
        yield "the store is back", world._replace(store=_back(store))
    elif world.faults < model.faults:
        if "restored" in model.kinds and store.saved is None:
            saved = store._replace(saved=(store.records, world.queue))
            yield "the store saves itself", world._replace(store=saved)
        for kind, name, after in _faults(model, world):
            if kind in model.kinds:
                yield f"the store {name}", after._replace(faults=world.faults + 1)


def _back(store: Store) -> Store:
    """Those who are well find it again at once, or later if it was away for long."""
    long = store.down is not None and store.down <= NOW - LEASE
    return store._replace(down=None, found=LEASE if long else STEP)


def _faults(model: Model, world: World) -> Iterator[tuple[str, str, World]]:
    store = world.store
    yield "store down", "cannot be reached", world._replace(store=store._replace(down=NOW))
    # Left out: a jump in the instant in which an operator gives a launch up.
    if not any(each.step == "supersede" for each in world.operators):
        for seconds in (10.0, 20.0):
            yield "clock", f"sees its clock jump by {seconds:.0f} s", jumped(world, seconds)
    # Left out: a loss in the instant after a retry was published and before that was noted. The
    # retry may be lost and its record written again: that launch is held, and reported as stalled.
    if any(run.does == "retrying" for run in world.runs):
        return
    yield "wiped", "is wiped", _forgetful(model, world, store._replace(records=()), ())
    anew = Store(identity=store.identity + 1, found=LEASE)
    yield "begun anew", "is begun anew, empty", _forgetful(model, world, anew, ())
    if store.saved is not None:
        records, queue = store.saved
        old = anew._replace(records=records)
        yield "restored", "is begun anew, as it was saved", _forgetful(model, world, old, queue)


def _forgetful(model: Model, world: World, store: Store, queue: tuple[Message, ...]) -> World:
    """It has lost what was written; the broker too if that is the same Redis."""
    ids = dict(world.store.records)
    lost = {each for each in ids if store.get(each) != ids[each]}
    queue = queue if model.one_redis else world.queue
    return world._replace(store=store, queue=queue, lost=world.lost | lost)
