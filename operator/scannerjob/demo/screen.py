"""The demo as it is seen: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from scannerjob.demo.judge import MAX_RECOVERY, Execution, Kill, Verdict
from scannerjob.demo.stage import CAP, Stage
from scannerjob.demo.witness import read_executions

_LINE_EVERY = 1.0


@dataclass(frozen=True)
class WorkerView:
    """What one worker is at: the PDFs it works on, and how many it finished."""

    name: str
    alive: bool
    running: tuple[int, ...]
    finished: int

    def __str__(self) -> str:
        state = f"at {_numbers(self.running) or 'nothing'}" if self.alive else "killed"
        return f"{self.name} {state} ({self.finished} done)"


@dataclass(frozen=True)
class Lost:
    """The PDFs that a killed worker was at and that are not done yet, and since when."""

    rows: tuple[int, ...]
    at: float

    def __str__(self) -> str:
        return f"PDF {_numbers(self.rows)} lost"


@dataclass(frozen=True)
class View:
    """One moment of the demo; for the eye alone, nothing is judged by it."""

    backlog: int
    claimed: int
    launched: int
    finished: int
    workers: tuple[WorkerView, ...]
    lost: tuple[Lost, ...] = ()

    def __str__(self) -> str:
        workers = "; ".join(map(str, (*self.workers, *self.lost)))
        return (
            f"backlog {self.backlog:2}  claimed {self.claimed}  launched {self.launched}  "
            f"finished {self.finished:2}  {workers}"
        )


def look(stage: Stage, names: Sequence[str], kills: Sequence[Kill]) -> View:
    """The present moment."""
    items = _ledger_items(stage)
    keys = {item["key"] for item in items if item["phase"] in ("Claimed", "Launched")}
    with closing(sqlite3.connect(stage.application, timeout=30)) as database:
        rows = dict(database.execute("SELECT id, pages_created FROM pdf").fetchall())
    killed = {kill.worker for kill in kills}
    runs = read_executions(stage)
    return View(
        backlog=sum(not done and f"[{row}]" not in keys for row, done in rows.items()),
        claimed=sum(item["phase"] == "Claimed" for item in items),
        launched=sum(item["phase"] == "Launched" for item in items),
        finished=sum(rows.values()),
        workers=tuple(_worker(name, runs, alive=name not in killed) for name in names),
        lost=tuple(_lost(kills, runs)),
    )


def _worker(name: str, runs: Sequence[Execution], *, alive: bool) -> WorkerView:
    own = [run for run in runs if run.worker == name]
    running = tuple(run.row for run in own if run.ended is None) if alive else ()
    return WorkerView(name, alive, running, sum(run.ended is not None for run in own))


def _lost(kills: Sequence[Kill], runs: Sequence[Execution]) -> Iterator[Lost]:
    for kill in kills:
        cut = [run for run in runs if run.worker == kill.worker and run.ended is None]
        again = {run.row for run in runs if run.started > kill.at}
        if rows := tuple(run.row for run in cut if run.row not in again):
            yield Lost(rows, kill.at)


def _ledger_items(stage: Stage) -> list[dict[str, str]]:
    if not stage.ledger.exists():
        return []
    with closing(sqlite3.connect(stage.ledger, timeout=30)) as database:
        try:
            found = database.execute("SELECT status FROM scannerjob_ledger").fetchone()
        except sqlite3.OperationalError:
            return []  # the scanner has not made its tables yet
    return list(json.loads(found[0]).get("items", [])) if found else []


def _numbers(rows: Sequence[int]) -> str:
    return ", ".join(map(str, rows))


class Screen(Protocol):
    """Where the demo is shown."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def say(self, text: str) -> None:
        """Tell what happens now."""
        ...

    def show(self, view: View) -> None:
        """Show this moment."""
        ...


def screen_for(console: Console) -> Screen:
    """A live table where the console is a terminal, else plain lines."""
    return _Terminal(console) if console.is_terminal else _Lines(console)


class _Lines:
    """Plain lines: what happens at once, the state of things when it changed, once a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._shown: View | None = None
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        seconds = time.monotonic() - self._began
        self._console.print(f"{seconds:5.1f} s  {text}", highlight=False, soft_wrap=True)

    def show(self, view: View) -> None:
        if view != self._shown and time.monotonic() >= self._next:
            self._shown, self._next = view, time.monotonic() + _LINE_EVERY
            self.say(str(view))


class _Terminal:
    """A table that is drawn anew in place, below the lines that tell what happened."""

    def __init__(self, console: Console) -> None:
        self._lines = _Lines(console)
        self._live = Live(console=console, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._lines.say(text)

    def show(self, view: View) -> None:
        self._live.update(_table(view))


def _table(view: View) -> Table:
    table = Table(show_header=False, min_width=60)
    table.add_row("backlog", f"{view.backlog} rows wait")
    table.add_row("claimed", str(view.claimed))
    table.add_row("launched", f"{view.launched} of at most {CAP}")
    table.add_row("finished", f"[green]{view.finished}[/]")
    table.add_section()
    for worker in view.workers:
        rows = f"works on PDF {_numbers(worker.running)}" if worker.running else "waits"
        state = rows if worker.alive else "[red]killed[/]"
        table.add_row(worker.name, f"{state}  ({worker.finished} done)")
    for lost in view.lost:
        waited = f"for {time.time() - lost.at:.0f} s of at most {MAX_RECOVERY:.0f}"
        table.add_row("lost", f"PDF {_numbers(lost.rows)}, {waited}")
    return table


def print_verdict(console: Console, verdict: Verdict) -> None:
    """The summary as a table, and what was broken."""
    summary = verdict.summary
    recovery = ", ".join(f"{seconds} s" for seconds in summary.recovery_seconds)
    table = Table("from the workers' records and the broker's tables", "", min_width=60)
    table.add_row("rows done", f"{summary.done} of {summary.rows}")
    table.add_row("executions", f"{summary.executions}, of which {summary.duplicates} duplicates")
    table.add_row("most rows outstanding at once", f"{summary.peak_outstanding}, cap {summary.cap}")
    table.add_row("workers killed at work", str(summary.killed_workers))
    table.add_row(
        "lost rows that came back",
        f"{summary.recovered}, after {recovery or '-'} (at most {MAX_RECOVERY:.0f} s)",
    )
    table.add_row("took", f"{summary.seconds} s")
    console.print(table)
    for promise in verdict.broken:
        console.print(f"BROKEN: {promise}", style="red", highlight=False, soft_wrap=True)
    if not verdict.broken:
        console.print("Every promise was kept.", style="green", highlight=False)
