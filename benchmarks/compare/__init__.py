"""ScannerJob beside what is used for the same work today, on the same machine in the same run."""

from collections.abc import Iterator, Sequence

from benchmarks.compare import broker_lost, makespan, slow, workers_down, workers_killed
from benchmarks.table import Table
from tests.support.rivals import rivals

SCENARIOS = {
    "A": workers_down.run,
    "B": slow.run,
    "C": workers_killed.run,
    "D": makespan.run,
    "F": broker_lost.quick,
    "L": broker_lost.slow,
}


def run(only: Sequence[str] = ()) -> Iterator[Table]:
    """One table for each scenario, as each is done; of those in `only`, if any are named."""
    rivals()  # before several threads ask for it
    for name, scenario in SCENARIOS.items():
        if name in (only or SCENARIOS):
            yield scenario()
