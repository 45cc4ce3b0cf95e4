"""C: what executes ten tasks is killed; another worker is there at once, and five new rows are.

It is on the same machine, like a container that is started again, unless the machine has gone too.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from math import inf
from statistics import median

from benchmarks.compare.run import Run, in_seconds, leases
from benchmarks.compare.stage import Scene, Stage, all_at_once, ours
from benchmarks.table import Table
from scannerjob.worker.records import LEASE
from tests.support.celery_worker import CeleryWorker
from tests.support.rabbitmq import RabbitServer

ROWS, NEW = 10, 5
WORK, INTERVAL, WINDOW = 5.0, 5.0, 60.0
BAR = 3 * LEASE
NOISE = 1.5


def run() -> Table:
    """The worker killed with early and late acknowledgement, its machine, and only its pool."""
    table = Table(
        f"C: killed while {ROWS} rows of {WORK:g} s are worked on; the {WINDOW:g} s after that",
        [
            "what is killed",
            "system",
            f"not run again, of {ROWS}",
            f"not begun, of {NEW} new ones",
            "copies of a row at once",
            f"all {ROWS + NEW} begun after, s",
            "back after, s: p50",
            "max",
            "in lease periods: p50",
            "max",
        ],
    )
    early, late = Scene(WORK, INTERVAL), Scene(WORK, INTERVAL, late_ack=True, visibility=20.0)
    _add(table, "worker; Redis, early ack", early, _kill_worker)
    _add(table, "worker's machine; Redis, early ack", early, _kill_machine)
    _add(table, "worker; Redis, late ack, visibility_timeout 20 s", late, _kill_worker)
    with RabbitServer() as rabbit:
        on_rabbit = Scene(WORK, INTERVAL, late_ack=True, rabbit=rabbit)
        runs = _add(table, "worker; RabbitMQ, late ack", on_rabbit, _kill_worker)
        table.bars.append(_no_slower("worker; RabbitMQ, late ack", runs))
    _add(table, "pool's processes; Redis, early ack", early, _kill_children)
    return table


def _add(table: Table, killed: str, scene: Scene, play: Callable[[Stage], Run]) -> Sequence[Run]:
    runs = all_at_once(scene, play)
    table.rows += [[killed, *_row(each)] for each in runs]
    best = ours(runs)
    slowest = max(_recoveries(best), default=0.0)
    again, begun = _not_again(best), _not_begun(best)
    table.bars += [
        (
            f"{killed}: {again} rows not run again, {begun} new ones not begun (bar: 0), "
            f"{best.copies} copy of a row (bar: 1)",
            (again, begun, best.copies) == (0, 0, 1),
        ),
        (f"{killed}: back after {slowest:.1f} s at most (bar: {BAR:g})", 0 < slowest <= BAR),
    ]
    return runs


def _no_slower(killed: str, runs: Sequence[Run]) -> tuple[str, bool]:
    """Beside the others that make no copies: the broker tells them at once.

    Of all rows, since those that wait for a slot are new ones here and interrupted ones there.
    """
    others = [_all_begun(run) for run in runs if run.copies == 1 and not run.system.is_ours]
    best, quickest = _all_begun(ours(runs)), min(others, default=inf)
    said = f"{killed}: all are begun after {best:.1f} s, by the quickest other without copies after"
    bar = f"{NOISE:g} s more, by which the starts of workers differ"
    return f"{said} {quickest:.1f} s (bar: {bar})", best <= quickest + NOISE


@contextmanager
def _at_work(stage: Stage) -> Iterator[CeleryWorker]:
    """A worker that works on all of the first rows."""
    with stage.worker() as worker, stage.fed():
        stage.site.add_rows(1, ROWS)
        stage.wait_until_running(ROWS)
        yield worker


def _kill_worker(stage: Stage) -> Run:
    with _at_work(stage) as worker:
        stage.kill(worker)
        return _aftermath(stage, worker.start)


def _kill_machine(stage: Stage) -> Run:
    """The next worker finds nothing of the last one's."""
    with _at_work(stage) as worker, ExitStack() as stack:
        stage.kill(worker)
        return _aftermath(stage, lambda: stack.enter_context(stage.worker()))


def _kill_children(stage: Stage) -> Run:
    with _at_work(stage):
        stage.kill_children()
        return _aftermath(stage, lambda: None)


def _aftermath(stage: Stage, replace: Callable[[], object]) -> Run:
    stage.site.add_rows(ROWS + 1, ROWS + NEW)
    replace()
    stage.watch(lambda: len(stage.begun_since_kill()) == ROWS + NEW, WINDOW)
    return stage.run()


def _not_again(run: Run) -> int:
    return sum(row not in run.recoveries for row in run.interrupted)


def _not_begun(run: Run) -> int:
    return sum(row not in run.recoveries for row in range(ROWS + 1, ROWS + NEW + 1))


def _all_begun(run: Run) -> float:
    return inf if _not_again(run) or _not_begun(run) else max(run.recoveries.values())


def _recoveries(run: Run) -> list[float]:
    return [seconds for row, seconds in run.recoveries.items() if row in run.interrupted]


def _row(run: Run) -> list[str]:
    back = _recoveries(run)
    figures = (median(back), max(back)) if back else ()
    return [
        run.system.name,
        str(_not_again(run)),
        str(_not_begun(run)),
        str(run.copies),
        in_seconds(_all_begun(run)),
        *([f"{each:.1f}" for each in figures] or ["never", "never"]),
        *([leases(each) for each in figures] or ["", ""]),
    ]
