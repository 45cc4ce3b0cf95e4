"""Were the promises kept? Judged from what workers and broker recorded, never from the scanner.

Pure: it takes a history and gives a verdict. All times are seconds since 1970, by one clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from math import inf
from typing import Any

from scannerjob.worker.records import LEASE

MAX_SECONDS = 75.0
MAX_RECOVERY = 3 * LEASE


@dataclass(frozen=True)
class Launch:
    """A message, as the broker's tables have it.

    No worker starts it later than `expires`; one that runs it is stopped after `time_limit`.
    """

    task_id: str
    row: int
    published: float
    expires: float = inf
    time_limit: float = inf


@dataclass(frozen=True)
class Execution:
    """A run of a task, as the task itself recorded it; `ended` is missing where it never came."""

    task_id: str
    row: int
    worker: str
    started: float
    ended: float | None = None


@dataclass(frozen=True)
class Kill:
    """A worker that was killed, and when it was dead."""

    worker: str
    at: float


@dataclass(frozen=True)
class History:
    """Everything that happened; `rows` were to be done and `done` are, by the application."""

    cap: int
    rows: frozenset[int]
    done: frozenset[int]
    launches: Sequence[Launch]
    executions: Sequence[Execution]
    kills: Sequence[Kill]
    seconds: float

    @cached_property
    def _launch(self) -> Mapping[str, Launch]:
        return {launch.task_id: launch for launch in self.launches}

    def runs_of(self, launch: Launch) -> list[Execution]:
        """The executions of one message, of which there should be at most one."""
        return [run for run in self.executions if run.task_id == launch.task_id]

    def unknown_runs(self) -> list[Execution]:
        """Executions of messages that the broker has no record of."""
        return [run for run in self.executions if run.task_id not in self._launch]

    def killed(self, run: Execution) -> Kill | None:
        """The kill that ended this execution, if one did."""
        if run.ended is not None:
            return None
        dead = [k for k in self.kills if k.worker == run.worker and k.at >= run.started]
        return min(dead, key=lambda kill: kill.at, default=None)

    def end_of(self, run: Execution) -> float:
        """When an execution was over: by itself, with its worker, or at its time limit."""
        if run.ended is not None:
            return run.ended
        kill, launch = self.killed(run), self._launch.get(run.task_id)
        limit = run.started + launch.time_limit if launch else inf
        return min(kill.at if kill else inf, limit)


@dataclass(frozen=True)
class Summary:
    """What is printed. `recovery_seconds`: from the kill until each lost row ran again."""

    rows: int
    done: int
    executions: int
    duplicates: int
    peak_outstanding: int
    cap: int
    killed_workers: int
    recovered: int
    recovery_seconds: tuple[float, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON has them."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """The summary, and every promise that was broken, in words."""

    summary: Summary
    broken: tuple[str, ...]


def judge(history: History) -> Verdict:
    """Reckon the summary and find what was broken in it."""
    lost = lost_rows(history)
    recovery = {row: seconds for row, seconds in lost.items() if seconds is not None}
    summary = Summary(
        rows=len(history.rows),
        done=len(history.rows & history.done),
        executions=len(history.executions),
        duplicates=len(duplicates(history)),
        peak_outstanding=peak_outstanding(history),
        cap=history.cap,
        killed_workers=len(history.kills),
        recovered=len(recovery),
        recovery_seconds=tuple(round(seconds, 1) for seconds in sorted(recovery.values())),
        seconds=round(history.seconds, 1),
    )
    return Verdict(summary, tuple(_broken(history, summary, lost)))


def duplicates(history: History) -> list[Execution]:
    """Executions that overlap a live one of their row, or start after their row was done."""
    runs = sorted(history.executions, key=lambda run: run.started)
    return [
        run
        for position, run in enumerate(runs)
        if any(_forbids(history, earlier, run) for earlier in runs[:position])
    ]


def _forbids(history: History, earlier: Execution, run: Execution) -> bool:
    if earlier.row != run.row:
        return False
    return earlier.ended is not None or history.end_of(earlier) > run.started


def peak_outstanding(history: History) -> int:
    """The highest number of rows that were published and had not ended, at one moment."""
    out: Counter[int] = Counter()
    peak = 0
    for _, change, row in sorted(_changes(history)):
        out[row] += change
        peak = max(peak, sum(count > 0 for count in out.values()))
    return peak


def _changes(history: History) -> Iterator[tuple[float, int, int]]:
    """When each row went out and came back; of two at the same moment, the end sorts first."""
    for launch in history.launches:
        ends = [history.end_of(run) for run in history.runs_of(launch)]
        yield launch.published, +1, launch.row
        yield max([launch.published, *ends] if ends else [launch.expires]), -1, launch.row


def lost_rows(history: History) -> dict[int, float | None]:
    """The rows whose launches a kill took along, and the seconds until each ran again, if it did.

    Taken along are the executions that a killed worker was at, and messages that were out at that
    time and never ran at all: a worker holds some in its memory.
    """
    lost: dict[int, float | None] = {}
    for kill in history.kills:
        for launch in history.launches:
            if _was_lost(history, launch, kill):
                lost[launch.row] = _seconds_until_it_ran(history, launch.row, kill)
    return lost


def _was_lost(history: History, launch: Launch, kill: Kill) -> bool:
    runs = history.runs_of(launch)
    if runs:
        return any(history.killed(run) == kill for run in runs)
    return launch.published <= kill.at < launch.expires


def _seconds_until_it_ran(history: History, row: int, kill: Kill) -> float | None:
    waits = [run.started - kill.at for run in history.executions if run.row == row]
    return min((wait for wait in waits if wait >= 0), default=None)


def _broken(history: History, summary: Summary, lost: Mapping[int, float | None]) -> Iterator[str]:
    if undone := history.rows - history.done:
        yield f"rows that were not done: {_names(undone)}"
    if again := duplicates(history):
        yield f"rows that were executed more than once: {_names({run.row for run in again})}"
    if summary.peak_outstanding > summary.cap:
        yield f"{summary.peak_outstanding} rows were outstanding at once, the cap is {summary.cap}"
    if stranded := {row for row, seconds in lost.items() if seconds is None}:
        yield f"rows that were lost with a worker and never ran again: {_names(stranded)}"
    if late := {row for row, seconds in lost.items() if seconds and seconds > MAX_RECOVERY}:
        yield f"rows that ran again later than {MAX_RECOVERY:.0f} s after the kill: {_names(late)}"
    if not lost:
        yield "no worker was killed at work, so that no recovery was shown"
    if history.seconds > MAX_SECONDS:
        yield f"it took {history.seconds:.0f} s, more than {MAX_SECONDS:.0f} s"
    yield from _gaps(history)


def _gaps(history: History) -> Iterator[str]:
    """A witness that saw too little must not acquit."""
    finished = {run.row for run in history.executions if run.ended is not None}
    if unseen := history.done - finished:
        yield f"rows that are done although no execution of them ended: {_names(unseen)}"
    if unknown := history.unknown_runs():
        yield f"rows executed without a message on record: {_names({run.row for run in unknown})}"


def _names(rows: set[int] | frozenset[int]) -> str:
    return ", ".join(map(str, sorted(rows)))
