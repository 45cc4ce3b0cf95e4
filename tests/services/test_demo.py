"""The demo as a user runs it, and that it says so when a promise is broken under its eyes."""

import json
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.support.processes import Process, lives
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Where the demo plays."""
    return tmp_path / "demo"


def _demo(folder: Path, *options: object) -> Process:
    command = [sys.executable, "-m", "scannerjob", "demo", *map(str, options)]
    return Process(command, log=folder / "demo.log")


def _started_by(process: Process) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def _query(file: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(file, timeout=30)) as database, database:
        return database.execute(statement).fetchall()


def _finished(kept: Path) -> int:
    file = kept / "app.sqlite"
    if not file.exists():
        return 0
    return len(_query(file, "SELECT id FROM execution WHERE ended IS NOT NULL"))


def _deliver_again(kept: Path) -> None:
    """Have the message that was sent last come once more."""
    again = (
        "INSERT INTO kombu_message (visible, payload, version, queue_id) "
        "SELECT 1, payload, 1, queue_id FROM kombu_message ORDER BY id DESC LIMIT 1"
    )
    _query(kept / "broker.sqlite", again)


def test_every_promise_is_kept_though_a_message_comes_twice(tmp_path: Path, kept: Path) -> None:
    with _demo(tmp_path, "--output", "json", "--keep", kept) as demo:
        eventually(lambda: _finished(kept) >= 1, timeout=60, ignoring=sqlite3.OperationalError)
        _deliver_again(kept)
        eventually(lambda: _finished(kept) >= 20, timeout=60, ignoring=sqlite3.OperationalError)
        started = _started_by(demo)
        assert demo.wait(90) == 0
    summary = json.loads(demo.log().splitlines()[-1])
    assert set(summary) == {
        *("rows", "done", "executions", "duplicates", "peak_outstanding", "cap"),
        *("killed_workers", "recovered", "recovery_seconds", "seconds"),
    }
    assert summary["rows"] == summary["done"] == 46
    assert summary["duplicates"] == 0
    assert summary["peak_outstanding"] == summary["cap"] == 4
    assert summary["killed_workers"] == 1
    assert summary["recovered"] == len(summary["recovery_seconds"]) >= 1
    assert summary["executions"] >= 47
    assert all(0 < seconds <= 45 for seconds in summary["recovery_seconds"])
    assert summary["seconds"] < 75
    workers = "".join(file.read_text() for file in kept.glob("worker-*.log"))
    assert re.search(r"Task \S+ ignored", workers)
    assert re.search(r"a worker has died that had launch \S+", workers)
    assert started
    eventually(lambda: not any(map(lives, started)), timeout=10)


@pytest.fixture
def playing(tmp_path: Path, kept: Path) -> Iterator[Process]:
    """A demo whose workers are at work."""
    with _demo(tmp_path, "--keep", kept) as demo:
        eventually(lambda: _finished(kept) >= 1, timeout=60, ignoring=sqlite3.OperationalError)
        yield demo


def test_a_row_that_is_executed_twice_is_noticed(playing: Process, kept: Path) -> None:
    done = "SELECT pdf_id FROM execution WHERE ended IS NOT NULL LIMIT 1"
    _query(kept / "app.sqlite", f"UPDATE pdf SET pages_created = 0 WHERE id IN ({done})")
    assert playing.wait(100) == 1
    assert "BROKEN: rows that were executed more than once: " in playing.log()
    assert "Every promise was kept" not in playing.log()


def test_a_scanner_that_dies_is_told_with_its_log(playing: Process) -> None:
    started = _started_by(playing)
    scanner = next(child for child in started if "run" in child.cmdline())
    scanner.kill()
    assert playing.wait(30) == 1
    assert "scanner ended by itself" in playing.log()
    assert "default/pdf-pages: scanning" in playing.log()
    eventually(lambda: not any(map(lives, started)), timeout=10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with _demo(tmp_path) as demo:
        eventually(lambda: "scannerjob run" in demo.log(), timeout=60)
        started = _started_by(demo)
        demo.send(number)
        assert demo.wait(30) == 130
    assert started
    eventually(lambda: not any(map(lives, started)), timeout=10)
    assert [each.name for each in tmp_path.iterdir()] == ["demo.log"]
