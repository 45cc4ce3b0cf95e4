"""The workers: they take messages, renew leases, work, end, and die or freeze."""

from __future__ import annotations

from collections.abc import Iterator

from scannerjob.worker.records import State
from tests.model.guard_world import NOW, STEP, Broken, Message, Model, Run, World

Step = tuple[str, World]

_ENDS = {"committed": State.DONE, "failing": State.FAILED, "dead": State.FAILED}


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next at the workers."""
    for message in dict.fromkeys(world.queue):
        if message.eta <= NOW and world.store.up:
            yield f"a worker takes {message.id}/{message.retries}", take(model, world, message)
    for n, run in enumerate(world.runs):
        who = f"{run.id}/{run.retries} ({run.owner})"
        for name, after in _own_steps(model, world, n):
            yield f"{who} {name}", after
        if world.faults < model.faults:
            for kind, name, after in _faults(model, world, n):
                if kind in model.kinds:
                    yield f"{who} {name}", after._replace(faults=world.faults + 1)


def take(model: Model, world: World, message: Message) -> World:
    """A worker takes a message, and begins or ignores it."""
    queue = list(world.queue)
    queue.remove(message)
    world = world._replace(queue=tuple(queue))
    run = Run(message.id, message.retries, f"o{world.owners}")
    claimed = model.rules.claim(world.store.get(message.id), run.execution, NOW)
    if claimed is None:
        return world
    run = run._replace(excused=judge(model, world, run))
    others = tuple(other._replace(excused=True) if run.excused else other for other in world.runs)
    done = "excused" if run.excused and world.done else world.done
    world = world.written(message.id, claimed)
    return world._replace(runs=(*others, run), owners=world.owners + 1, done=done)


def judge(model: Model, world: World, run: Run) -> bool:
    """Whether it is excused that this one begins beside another, or after the work was done.

    There are two excuses. The other one was frozen, or cut off the store, for longer than a lease.
    Or the store has lost the record of this very launch, and before whoever held it could write it
    again, or an operator that saw it missing for two lease periods, the broker delivers a message
    of it. (That operator cannot know of a retry which waits at another broker.)
    """
    lost = model.store_may_lose and run.id in world.lost
    working = [other for other in world.runs if other.does == "working"]
    if not lost:
        for other in working:
            if not other.is_excused:
                raise Broken(f"two at once: {run.id}/{run.retries} begins beside {other.id}")
        if world.done == "done":
            raise Broken(f"{run.id}/{run.retries} does a finished row again")
    return lost or bool(working) or bool(world.done)


def beat(model: Model, world: World, n: int) -> World:
    """Its lease is renewed, or it learns that it has lost it."""
    run = world.runs[n]
    record = model.rules.renew(world.store.get(run.id), run.execution, NOW)
    after = world.with_run(n, run._replace(beaten=NOW, lost=record is None))
    return after.written(run.id, record) if record else after


def must_beat(world: World, run: Run) -> bool:
    """Whether time cannot pass before its lease was renewed."""
    return may_beat(world, run) and world.store.found <= NOW


def may_beat(world: World, run: Run) -> bool:
    """Whether it can renew its lease, and has not done so yet."""
    well = not run.halt and not run.lost and run.does != "dead" and world.store.up
    return well and run.beaten < NOW


def _own_steps(model: Model, world: World, n: int) -> Iterator[Step]:
    run = world.runs[n]
    if may_beat(world, run):
        yield "renews its lease", beat(model, world, n)
    if run.halt:
        yield "is well again", thaw(model, world, n)
    if run.halt == "frozen":
        return
    if run.does == "working":
        yield "commits", _committed(world, n)
    elif world.store.up and run.halt != "cut off":
        yield f"ends, {run.does}", finish(model, world, n)


def thaw(model: Model, world: World, n: int) -> World:
    """It goes on, and the first thing it does is to renew its lease."""
    run = world.runs[n]
    well = run._replace(halt="", halted=NOW, excused=run.is_excused)
    world = world.with_run(n, well)
    return beat(model, world, n) if may_beat(world, well) else world


def _committed(world: World, n: int) -> World:
    run = world.runs[n]
    done = "excused" if run.is_excused or world.done == "excused" else "done"
    return world.with_run(n, run._replace(does="committed"))._replace(wanted=False, done=done)


def finish(model: Model, world: World, n: int) -> World:
    """It tells the store how it ended."""
    run = world.runs[n]
    state = _ENDS.get(run.does, State.RETRYING)
    ended = model.rules.finish(world.store.get(run.id), run.execution, state, NOW)
    after = world.with_run(n, None)
    return after.written(run.id, ended) if ended else after


def go_on(model: Model, world: World, n: int) -> World:
    """What an execution does next where nothing goes wrong."""
    run = world.runs[n]
    if may_beat(world, run):
        return beat(model, world, n)
    return _committed(world, n) if run.does == "working" else finish(model, world, n)


def _faults(model: Model, world: World, n: int) -> Iterator[tuple[str, str, World]]:
    run = world.runs[n]
    back = Message(run.id, run.retries)
    dead, gone = world.with_run(n, run._replace(does="dead")), world.with_run(n, None)
    if not run.halt and run.does != "dead":
        yield "child dies", "dies, which its heartbeat sees", dead
        yield "child dies", "dies, and its message comes back", dead.with_message(back)
    yield "worker dies", "dies with its worker", gone
    yield "worker dies", "dies with its worker, and its message comes back", gone.with_message(back)
    yield "duplicate", "is delivered once more", world.with_message(back)
    if run.does == "working" and run.halt != "frozen":
        yield "fails", "fails", world.with_run(n, run._replace(does="failing"))
        again = Message(run.id, run.retries + 1, STEP)
        retrying = world.with_run(n, run._replace(does="retrying"))
        yield "retries", "asks for a retry", retrying.with_message(again)
    if not run.halt:
        for halt in ("frozen", "cut off", "without heartbeat"):
            halted = run._replace(halt=halt, halted=NOW)
            yield halt, f"is {halt}", world.with_run(n, halted)
