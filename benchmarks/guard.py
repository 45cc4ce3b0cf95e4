"""What the guard costs, and what it gives: slots refilled at once, work that died back soon."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from uuid import uuid4

import psutil
import redis
from celery import Celery

import scannerjob
from benchmarks import containers
from benchmarks.compare.publishes import RedisPublishes
from benchmarks.compare.run import leases
from benchmarks.compare.stage import SLOTS, Scene, Stage, staged
from benchmarks.compare.systems import OURS, System
from benchmarks.table import Table, percentile
from scannerjob.worker.records import HEADER, LEASE
from tests.support.celery_worker import CeleryWorker
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually

TASKS, WARM_UP, ROUNDS = 250, 100, 20
WITH, WITHOUT = "with the guard", "without"
ROWS, WORK = 200, 1.0
KILLS, APART = 20, 1.5
_SYSTEM = System(OURS, OURS)
_TASKS_FILE = Path(__file__).with_name("guard_tasks.py")


def cost() -> Table:
    """Tasks that do nothing, with the guard and without in turn, each by one process of a pool."""
    samples: dict[str, list[float]] = defaultdict(list)
    with RedisServer() as server, _workers(server) as workers:
        app = Celery("publisher", broker=server.url, set_as_current=False)
        for queue in workers:
            _drain(app, server, queue, WARM_UP)
        families = {queue: containers.processes(each) for queue, each in workers.items()}
        before = {queue: _cpu(family) for queue, family in families.items()}
        for _ in range(ROUNDS):
            for queue in workers:
                samples[queue].append(_drain(app, server, queue, TASKS))
        cpu = {queue: _cpu(family) - before[queue] for queue, family in families.items()}
        rss = _heartbeat(families[WITH]).memory_info().rss / 2**20
    table = Table(
        f"Tasks that do nothing, {ROUNDS} times {TASKS} of them, prefork, Redis",
        ["worker", "ms per task, median", "min", "max", "of the CPU"],
    )
    for way, times in samples.items():
        figures = (median(times), min(times), max(times), cpu[way] / ROUNDS / TASKS)
        table.rows.append([way, *(f"{each * 1000:.2f}" for each in figures)])
    pairs = list(zip(samples[WITH], samples[WITHOUT], strict=True))
    added = median(with_it - without for with_it, without in pairs)
    ratio = median(with_it / without for with_it, without in pairs)
    said = f"the guard adds {added * 1000:.2f} ms per task, {ratio:.2f} times (bar: 1 ms)"
    table.bars += [
        (said, added <= 0.001),
        (f"the heartbeat process takes {rss:.0f} MiB (bar: 64)", rss <= 64),
    ]
    return table


@contextmanager
def _workers(server: RedisServer) -> Iterator[Mapping[str, CeleryWorker]]:
    """A worker for each way, which is also the name of its queue."""
    package = str(Path(scannerjob.__file__).parents[1])
    with ExitStack() as stack:
        workers = {}
        for way, guard in ((WITH, server.url), (WITHOUT, "")):
            env = {"BROKER": server.url, "GUARD": guard, "PYTHONPATH": package}
            worker = CeleryWorker(
                _TASKS_FILE, env=env, concurrency=1, queues=[way], loglevel="WARNING"
            )
            # Without its log it does not say when it is ready: the first tasks wait for it.
            stack.enter_context(worker.process)
            workers[way] = worker
        yield workers


def _drain(app: Celery, server: RedisServer, queue: str, tasks: int) -> float:
    """The seconds per task from when all of them are in the queue until the last one is done."""
    with redis.Redis.from_url(server.url, socket_timeout=None) as client:
        with app.producer_pool.acquire() as producer:
            for name in [*["nothing"] * tasks, "last"]:
                launch = str(uuid4())
                options = {"headers": {HEADER: launch}} if name == "nothing" else {}
                app.send_task(name, task_id=launch, queue="staging", producer=producer, **options)
        started = time.perf_counter()
        client.rename("staging", queue)
        assert client.blpop(["last"], timeout=120), "the worker does nothing"
        return (time.perf_counter() - started) / tasks


def _cpu(family: Sequence[psutil.Process]) -> float:
    """The seconds of CPU time that these have taken."""
    times = [each.cpu_times() for each in family]
    return sum(each.user + each.system for each in times)


def _heartbeat(family: Sequence[psutil.Process]) -> psutil.Process:
    """The guard's own among a worker's processes."""
    found = [each for each in family if "scannerjob.worker.heartbeat" in each.cmdline()]
    assert len(found) == 1, found
    return found[0]


def refill() -> Table:
    """From the end of a task, as it was recorded itself, until Redis was given the next one."""
    with PostgresServer() as postgres, staged(_SYSTEM, Scene(WORK, 30.0), postgres) as stage:
        stage.site.add_rows(1, ROWS)
        with stage.worker(), stage.fed():
            eventually(lambda: not stage.missing(), timeout=180, interval=0.5)
        ends = sorted(run.ended for run in stage.site.executions() if run.ended)
        assert isinstance(stage.publishes, RedisPublishes)
        launches = stage.publishes.times()
        peak = max(
            number + 1 - sum(end < launched for end in ends)
            for number, launched in enumerate(launches)
        )
    # The n-th end makes room for the launch that is n-th after the first SLOTS.
    refills = [max(0.0, launch - end) for end, launch in zip(ends, launches[SLOTS:], strict=False)]
    p50, p95 = percentile(refills, 0.5), percentile(refills, 0.95)
    table = Table(
        f"{ROWS} rows of {WORK:g} s as tasks, cap {SLOTS}, interval 30 s",
        ["launches", "from end to next launch p50, ms", "p95", "max", "outstanding at once"],
    )
    figures = (p50, p95, max(refills))
    table.rows.append([str(len(launches)), *(f"{each * 1000:.0f}" for each in figures), str(peak)])
    table.bars += [
        (
            f"p95 from a task's end to the next launch is {p95 * 1000:.0f} ms (bar: 150)",
            p95 <= 0.15,
        ),
        (f"{peak} tasks outstanding at once (cap: {SLOTS})", peak <= SLOTS),
    ]
    return table


def recovery() -> Table:
    """Workers killed as containers are, at other moments of their leases each."""
    with PostgresServer() as postgres:
        seconds = [each for _ in range(KILLS // SLOTS) for each in _killed_one_by_one(postgres)]
    p50, p95 = percentile(seconds, 0.5), percentile(seconds, 0.95)
    table = Table(
        f"{KILLS} workers killed with all that belongs to them, each with a row of its own",
        ["", "p50", "p95", "max"],
    )
    figures = (p50, p95, max(seconds))
    table.rows += [
        ["seconds until the row is run again", *(f"{each:.1f}" for each in figures)],
        [f"lease periods of {LEASE:g} s", *map(leases, figures)],
    ]
    said = f"p95 is {leases(p95)} lease periods, the slowest {leases(max(seconds))} (bar: 3)"
    table.bars.append((said, max(seconds) <= 3 * LEASE))
    return table


def _killed_one_by_one(postgres: PostgresServer) -> Sequence[float]:
    """How long it took after each kill until the row of that worker was begun again."""
    # A worker that acknowledges late takes no message beside the one that it works on.
    scene = Scene(work=90.0, interval=1.0, late_ack=True)
    with staged(_SYSTEM, scene, postgres) as stage, ExitStack() as stack:
        workers = [stack.enter_context(stage.worker(slots=1)) for _ in range(SLOTS)]
        stack.enter_context(stage.fed())
        stage.site.add_rows(1, SLOTS)
        stage.wait_until_running(SLOTS)
        stack.enter_context(stage.worker())
        rows = {run.worker.partition("@")[0]: run.row for run in stage.site.executions()}
        kills = {}
        for worker in workers:
            kills[rows[worker.name]] = containers.kill(worker)
            time.sleep(APART)
        again = eventually(lambda: _second_starts(stage), timeout=120)
    return [again[row] - killed for row, killed in kills.items()]


def _second_starts(stage: Stage) -> Mapping[int, float]:
    """When each row was begun for the second time; nothing until all were."""
    starts: dict[int, list[float]] = defaultdict(list)
    for run in stage.site.executions():
        starts[run.row].append(run.started)
    again = {row: sorted(times)[1] for row, times in starts.items() if len(times) > 1}
    return again if len(again) == SLOTS else {}
