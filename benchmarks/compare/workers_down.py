"""A: the workers are away for a while; what waits for them then, and what comes of it."""

import time

from benchmarks.compare.run import Run
from benchmarks.compare.stage import SLOTS, Scene, Stage, all_at_once, ours
from benchmarks.table import Table

ROWS, INTERVALS = 20, 20
LIMIT = 60.0


def run() -> Table:
    """Rows that nobody works on, submitted for 20 intervals."""
    runs = all_at_once(Scene(work=0.2, interval=1.0), _play)
    table = Table(
        f"A: {ROWS} rows, the workers are away for {INTERVALS} intervals",
        [
            "system",
            "in the queue then",
            "publishes per row",
            "executions per row",
            "copies of a row at once",
        ],
    )
    table.rows += [_row(each) for each in runs]
    best = ours(runs)
    table.bars += [
        (f"{best.waiting} messages waited (cap: {SLOTS})", best.waiting <= SLOTS),
        (
            f"{best.publishes_per_row:.2f} publishes and {best.executions_per_row:.2f} executions "
            "per row (bar: 1)",
            best.publishes_per_row == best.executions_per_row == 1.0 and not best.lost,
        ),
    ]
    return table


def _play(stage: Stage) -> Run:
    stage.site.add_rows(1, ROWS)
    with stage.fed():
        time.sleep(INTERVALS * stage.scene.interval)
        waiting = stage.publishes.waiting()
        with stage.worker():
            stage.watch(stage.idle, LIMIT)
            return stage.run(waiting)


def _row(run: Run) -> list[str]:
    return [
        run.system.name,
        str(run.waiting),
        f"{run.publishes_per_row:.1f}",
        f"{run.executions_per_row:.1f}",
        str(run.copies),
    ]
