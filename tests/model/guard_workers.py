"""The workers: they take messages, renew leases, work, end, and die or freeze."""

from __future__ import annotations

from collections.abc import Iterator

from scannerjob.worker.records import LEASE, State
from tests.model.guard_world import STEP, Broken, Message, Model, Run, World, is_excused

Step = tuple[str, World]

_ENDS = {"committed": State.DONE, "failing": State.FAILED, "dead": State.FAILED}


def steps(model: Model, world: World) -> Iterator[Step]:
    """All that may happen next at the workers."""
    for message in dict.fromkeys(world.queue):
        if message.eta <= world.now and world.store.up:
            yield f"a worker takes {message.id}/{message.retries}", take(model, world, message)
    for n, run in enumerate(world.runs):
        for name, after in _run_steps(model, world, n):
            yield f"{run.id}/{run.retries} ({run.owner}) {name}", after
        if world.faults < model.faults:
            for kind, name, after in _faults(world, n):
                if kind in model.kinds:
                    said = f"{run.id}/{run.retries} ({run.owner}) {name}"
                    yield said, after._replace(faults=world.faults + 1)


def take(model: Model, world: World, message: Message) -> World:
    """A worker takes a message, and begins or ignores it."""
    queue = list(world.queue)
    queue.remove(message)
    world = world._replace(queue=tuple(queue))
    run = Run(message.id, message.retries, f"o{world.owners}", world.now)
    claimed = model.rules.claim(world.store.get(message.id), run.execution, world.store_now)
    if claimed is None:
        return world
    excused = _judge(world, run)
    store = world.store.put(message.id, claimed)
    runs = (*world.runs, run._replace(excused=excused))
    return world._replace(store=store, runs=runs, owners=world.owners + 1)


def _judge(world: World, run: Run) -> bool:
    """Whether it is excused that this one begins while another runs, or did."""
    excused = False
    for other in world.runs:
        if other.does == "working":
            if not (is_excused(other, world.now) or other.excused):
                raise Broken(f"two at once: {run.id}/{run.retries} beside {other.id}")
            excused = True
    if world.done == "done":
        raise Broken(f"{run.id} does a finished row again")
    return excused


def beat(model: Model, world: World, n: int) -> World:
    """Its lease is renewed, or it learns that it has lost it."""
    run = world.runs[n]
    record = model.rules.renew(world.store.get(run.id), run.execution, world.store_now)
    told = run._replace(beaten=world.now, forgot=False, lost=record is None)
    after = world.with_run(n, told)
    return after._replace(store=world.store.put(run.id, record)) if record else after


def must_beat(world: World, run: Run) -> bool:
    """Whether time cannot pass before its lease was renewed."""
    connected = world.now - world.store.since >= LEASE
    return may_beat(world, run) and connected


def may_beat(world: World, run: Run) -> bool:
    well = not run.halt and not run.lost and run.does != "dead"
    return well and world.store.up and run.beaten < world.now or (well and run.forgot)


def _run_steps(model: Model, world: World, n: int) -> Iterator[Step]:
    run = world.runs[n]
    if may_beat(world, run) and world.store.up:
        yield "renews its lease", beat(model, world, n)
    if run.halt:
        yield "is well again", world.with_run(n, thawed(world, run))
    if run.halt == "frozen":
        return
    if run.does == "working":
        yield from _work(model, world, n)
    elif world.store.up and run.halt != "cut off":
        yield f"ends, {run.does}", finish(model, world, n)


def thawed(world: World, run: Run) -> Run:
    return run._replace(halt="", halted=0, excused=is_excused(run, world.now))


def _work(model: Model, world: World, n: int) -> Iterator[Step]:
    run = world.runs[n]
    done = "excused" if is_excused(run, world.now) or world.done == "excused" else "done"
    committed = world.with_run(n, run._replace(does="committed"))
    yield "commits", committed._replace(wanted=False, done=done)


def finish(model: Model, world: World, n: int) -> World:
    """It tells the store how it ended."""
    run = world.runs[n]
    state = _ENDS.get(run.does, State.RETRYING)
    now, record = world.store_now, world.store.get(run.id)
    ended = model.rules.finish(record, run.execution, state, now)
    after = world.with_run(n, None)
    return after._replace(store=world.store.put(run.id, ended)) if ended else after


def _faults(world: World, n: int) -> Iterator[tuple[str, str, World]]:
    run = world.runs[n]
    back = Message(run.id, run.retries, world.now)
    dead, gone = world.with_run(n, run._replace(does="dead")), world.with_run(n, None)
    if not run.halt and run.does != "dead":
        yield "child dies", "dies, which its heartbeat sees", dead
        yield "child dies", "dies, and its message comes back", dead.with_message(back)
    yield "worker dies", "dies with its worker", gone
    yield "worker dies", "dies with its worker, and its message comes back", gone.with_message(back)
    if run.does == "working" and run.halt != "frozen":
        yield "fails", "fails", world.with_run(n, run._replace(does="failing"))
        again = Message(run.id, run.retries + 1, world.now + STEP)
        retrying = world.with_run(n, run._replace(does="retrying"))
        yield "retries", "asks for a retry", retrying.with_message(again)
    yield "duplicate", "is delivered once more", world.with_message(back)
    if not run.halt:
        for halt in ("frozen", "cut off", "without heartbeat"):
            halted = run._replace(halt=halt, halted=world.now)
            yield halt, f"is {halt}", world.with_run(n, halted)


def go_on(model: Model, world: World, n: int) -> World | None:
    """What an execution does next where nothing goes wrong; None once it has to wait."""
    run = world.runs[n]
    if may_beat(world, run):
        return beat(model, world, n)
    if run.does == "working":
        return next(_work(model, world, n))[1]
    return finish(model, world, n)
