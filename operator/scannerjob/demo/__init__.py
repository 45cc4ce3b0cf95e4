"""The demo: the main job on embedded parts, with a worker killed at work, judged by witnesses."""

from __future__ import annotations

import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from rich.console import Console

from scannerjob.demo.judge import Verdict, judge
from scannerjob.demo.play import Play, PlayError
from scannerjob.demo.screen import print_verdict, screen_for
from scannerjob.demo.stage import Stage
from scannerjob.demo.witness import read_history

_LOG_LINES = 30
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


def run_demo(*, as_json: bool, keep: Path | None) -> int:
    """Play it and print the summary; gives the exit code: 1 if a promise was broken.

    With `as_json` the summary alone goes to standard output, all else to standard error. `keep` is
    a directory to create, which then stays; without it everything is removed.
    """
    console = Console(stderr=as_json)
    for number in _INTERRUPTS:
        signal.signal(number, _interrupt)
    try:
        with _folder(keep) as folder:
            return _run(Stage(folder), console, as_json)
    except KeyboardInterrupt:
        console.print("interrupted; everything that was started is stopped")
        return 130


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    # Once is enough: a second one would end the clearing up.
    for number in _INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep:
        keep.mkdir(parents=True)
        yield keep.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="scannerjob-demo-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(stage: Stage, console: Console, as_json: bool) -> int:
    stage.set_up()
    try:
        verdict = _perform(stage, console)
    except PlayError as error:
        console.print(f"{error}; the end of its log:", style="red")
        _print_log(console, error.process.log)
        return 1
    if as_json:
        sys.stdout.write(json.dumps(verdict.summary.to_json()) + "\n")
    _report(stage, console, verdict, as_json)
    return 1 if verdict.broken else 0


def _perform(stage: Stage, console: Console) -> Verdict:
    screen = screen_for(console)
    play = Play(stage, screen)
    try:
        with screen:
            play.perform()
        return judge(read_history(stage, play.kills, play.seconds))
    finally:
        play.stop()


def _report(stage: Stage, console: Console, verdict: Verdict, as_json: bool) -> None:
    if not as_json or verdict.broken:
        print_verdict(console, verdict)
    if verdict.broken:
        console.print("The end of the scanner's log:")
        _print_log(console, stage.log("scanner"))


def _print_log(console: Console, log: Path) -> None:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    for line in lines[-_LOG_LINES:]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
