"""C: what executes ten tasks is killed; another worker is there at once, and five new rows are.

It is on the same machine, like a container that is started again, unless the machine has gone too.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from math import inf
from statistics import median

from benchmarks.compare.run import Run, leases
from benchmarks.compare.stage import Scene, Stage, all_at_once, ours
from benchmarks.table import Table
from scannerjob.worker.records import LEASE
from tests.support.rabbitmq import RabbitServer

ROWS, NEW = 10, 5
WORK, INTERVAL, WINDOW = 5.0, 5.0, 60.0
BAR = 3 * LEASE


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
    """Beside the others that lose nothing and make no copies: the broker tells them at once."""
    faultless = [run for run in runs if not _not_again(run) and run.copies == 1]
    best = median(_recoveries(ours(runs)) or [inf])
    others = min((median(_recoveries(r)) for r in faultless if not r.system.is_ours), default=inf)
    said = f"{killed}: p50 is {best:.1f} s, the quickest other without copies {others:.1f} s"
    return f"{said} (bar: no slower)", best <= others


def _kill_worker(stage: Stage) -> Run:
    with stage.worker() as worker, stage.fed():
        stage.site.add_rows(1, ROWS)
        stage.wait_until_running(ROWS)
        stage.kill(worker)
        return _aftermath(stage, worker.start)


def _kill_machine(stage: Stage) -> Run:
    """The next worker finds nothing of the last one's."""
    with stage.worker() as worker, stage.fed(), ExitStack() as stack:
        stage.site.add_rows(1, ROWS)
        stage.wait_until_running(ROWS)
        stage.kill(worker)
        return _aftermath(stage, lambda: stack.enter_context(stage.worker()))


def _kill_children(stage: Stage) -> Run:
    with stage.worker(), stage.fed():
        stage.site.add_rows(1, ROWS)
        stage.wait_until_running(ROWS)
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
        *([f"{each:.1f}" for each in figures] or ["never", "never"]),
        *([leases(each) for each in figures] or ["", ""]),
    ]
