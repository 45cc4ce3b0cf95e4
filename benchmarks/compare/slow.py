"""B: a task that takes longer than a lock lives."""

from benchmarks.compare.run import Run
from benchmarks.compare.stage import Scene, Stage, all_at_once, ours
from benchmarks.table import Table

ROWS, WORK, INTERVAL = 2, 12.0, 3.0


def run() -> Table:
    """Two rows whose work takes 12 s, more slots than rows."""
    runs = all_at_once(Scene(WORK, INTERVAL), _play)
    table = Table(
        f"B: {ROWS} rows of {WORK:g} s, interval {INTERVAL:g} s",
        ["system", "copies of a row at once", "executions per row", "publishes per row"],
    )
    table.rows += [_row(each) for each in runs]
    best = ours(runs)
    table.bars.append((f"{best.copies} copy of a row (bar: 1)", best.copies == 1 and not best.lost))
    return table


def _play(stage: Stage) -> Run:
    with stage.worker(), stage.fed():
        stage.site.add_rows(1, ROWS)
        stage.watch(lambda: not stage.missing(), 3 * WORK)
        return stage.run()


def _row(run: Run) -> list[str]:
    return [
        run.system.name,
        str(run.copies),
        f"{run.executions_per_row:.1f}",
        f"{run.publishes_per_row:.1f}",
    ]
