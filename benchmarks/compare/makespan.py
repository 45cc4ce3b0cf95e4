"""D: many short tasks; how long all of them take, and how much of the slots' time is used."""

from benchmarks.compare.run import Run, in_seconds
from benchmarks.compare.stage import SLOTS, Scene, Stage, in_turn, ours
from benchmarks.table import Table

ROWS, WORK, INTERVAL = 200, 0.5, 1.0
IDEAL = ROWS * WORK / SLOTS
BAR = 1.1 * IDEAL
LIMIT = 90.0


def run() -> Table:
    """200 rows of half a second, in ten slots."""
    runs = in_turn(Scene(WORK, INTERVAL), _play)
    table = Table(
        f"D: {ROWS} rows of {WORK:g} s in {SLOTS} slots, interval {INTERVAL:g} s",
        [
            "system",
            "makespan, s",
            "ideal, s",
            "slots idle or repeating",
            "publishes per row",
            "executions per row",
            "still in the queue",
        ],
    )
    table.rows += [_row(each) for each in runs]
    best = ours(runs)
    said = f"a makespan of {best.makespan:.1f} s (bar: {BAR:g})"
    table.bars += [
        (said, best.makespan <= BAR and not best.lost),
        (f"{best.executions_per_row:.2f} executions per row (bar: 1)", _once(best)),
    ]
    return table


def _play(stage: Stage) -> Run:
    with stage.worker(), stage.fed():
        stage.site.add_rows(1, ROWS)
        stage.watch(lambda: not stage.missing(), LIMIT)
        return stage.run()


def _once(run: Run) -> bool:
    return len(run.executions) == len(run.rows)


def _row(run: Run) -> list[str]:
    return [
        run.system.name,
        in_seconds(run.makespan),
        f"{IDEAL:g}",
        f"{run.unused(SLOTS):.0%}",
        f"{run.publishes_per_row:.1f}",
        f"{run.executions_per_row:.2f}",
        str(run.waiting),
    ]
