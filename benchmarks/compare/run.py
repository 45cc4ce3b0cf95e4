"""What one system did in one scenario, by what tasks and brokers recorded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from benchmarks.compare.systems import System
from scannerjob.demo.judge import Execution
from scannerjob.worker.records import LEASE


@dataclass(frozen=True)
class Run:
    """All that happened; times are seconds since 1970, by the machine's one clock.

    `waiting` are the messages that were in the queue when workers came, or at the end; `killed` is
    when the processes that executed something were killed, all of them.
    """

    system: System
    rows: frozenset[int]
    done: frozenset[int]
    executions: Sequence[Execution]
    publishes: int
    waiting: int
    killed: float | None

    @property
    def publishes_per_row(self) -> float:
        return self.publishes / len(self.rows)

    @property
    def executions_per_row(self) -> float:
        return len(self.executions) / len(self.rows)

    @property
    def lost(self) -> int:
        """The rows that were never done."""
        return len(self.rows - self.done)

    @property
    def copies(self) -> int:
        """The most executions of one row at the same time."""
        by_row: dict[int, list[tuple[float, int]]] = defaultdict(list)
        for run in self.executions:
            by_row[run.row] += [(run.started, 1), (self._end(run), -1)]
        return max((_peak(changes) for changes in by_row.values()), default=0)

    @property
    def makespan(self) -> float:
        """From when the first row was begun until all were done."""
        if self.lost:
            return inf
        began = min(run.started for run in self.executions)
        return max(ended for _, ended in self._first.values()) - began

    def unused(self, slots: int) -> float:
        """The share of the slots' time in which no row was worked on for the first time."""
        return 1 - sum(end - start for start, end in self._first.values()) / slots / self.makespan

    @property
    def interrupted(self) -> frozenset[int]:
        """The rows that were worked on when the processes were killed."""
        return frozenset(run.row for run in self.executions if self._was_killed(run))

    @property
    def recoveries(self) -> dict[int, float]:
        """How long after the kill each row that was begun again was begun, of all rows."""
        killed = self.killed or 0.0
        again: dict[int, float] = {}
        for run in sorted(self.executions, key=lambda run: run.started):
            if run.started > killed:
                again.setdefault(run.row, run.started - killed)
        return again

    @cached_property
    def _first(self) -> dict[int, tuple[float, float]]:
        """The first execution of each row that came to its end."""
        first: dict[int, tuple[float, float]] = {}
        for run in self.executions:
            if run.ended is not None and run.ended < first.get(run.row, (0.0, inf))[1]:
                first[run.row] = (run.started, run.ended)
        return first

    def _end(self, run: Execution) -> float:
        if run.ended is not None:
            return run.ended
        return self.killed if self.killed and self._was_killed(run) else inf

    def _was_killed(self, run: Execution) -> bool:
        return self.killed is not None and run.ended is None and run.started < self.killed


def in_seconds(time: float) -> str:
    """A time as a table has it."""
    return "never" if time == inf else f"{time:.1f}"


def leases(seconds: float) -> str:
    """A time in lease periods of the guard."""
    return f"{seconds / LEASE:.1f}"


def _peak(changes: list[tuple[float, int]]) -> int:
    level = peak = 0
    for _, change in sorted(changes):
        level += change
        peak = max(peak, level)
    return peak
