"""F and L: Redis, which has no persistence, is killed in mid-run; what it knew is gone.

Celery 5.7 may end its worker then instead of connecting again, whatever the system.
"""

from collections.abc import Callable

from benchmarks.compare.run import Run, in_seconds
from benchmarks.compare.stage import SLOTS, Scene, Stage, all_at_once, ours
from benchmarks.table import Table
from tests.support.waiting import eventually

AWAY = 2.0
LIMIT = 90.0


def quick() -> Table:
    """40 rows of half a second; Redis is killed when a quarter is done."""
    return _measure("F", 40, Scene(work=0.5, interval=1.0), _wait_until_quarter_done)


def slow() -> Table:
    """20 rows of ten seconds; Redis is killed while the first ten are worked on."""
    return _measure("L", 20, Scene(work=10.0, interval=5.0), _wait_until_all_busy)


def _measure(name: str, rows: int, scene: Scene, wait: Callable[[Stage], None]) -> Table:
    runs = all_at_once(scene, lambda stage: _play(stage, rows, wait))
    table = Table(
        f"{name}: {rows} rows of {scene.work:g} s, Redis killed without persistence",
        [
            "system",
            f"not done within {LIMIT:g} s",
            "copies of a row at once",
            "executions per row",
            "publishes per row",
            "still in the queue",
            "makespan, s",
        ],
    )
    table.rows += [_row(each) for each in runs]
    best = ours(runs)
    table.bars += [
        (f"{best.lost} rows lost (bar: 0)", best.lost == 0),
        (f"{best.copies} copy of a row (bar: 1)", best.copies == 1),
        (
            f"{best.executions_per_row:.2f} executions per row (bar: 1)",
            best.executions_per_row == 1.0,
        ),
    ]
    return table


def _wait_until_quarter_done(stage: Stage) -> None:
    eventually(lambda: len(stage.site.done()) >= 10, timeout=60)


def _wait_until_all_busy(stage: Stage) -> None:
    stage.wait_until_running(SLOTS)


def _play(stage: Stage, rows: int, wait: Callable[[Stage], None]) -> Run:
    with stage.worker() as worker, stage.fed():
        stage.site.add_rows(1, rows)
        wait(stage)
        stage.redis.kill()
        stage.watch(lambda: False, AWAY, kept=worker)
        stage.redis.start()
        stage.watch(lambda: not stage.missing(), LIMIT, kept=worker)
        return stage.run()


def _row(run: Run) -> list[str]:
    return [
        run.system.name,
        str(run.lost),
        str(run.copies),
        f"{run.executions_per_row:.2f}",
        f"{run.publishes_per_row:.1f}",
        str(run.waiting),
        in_seconds(run.makespan),
    ]
