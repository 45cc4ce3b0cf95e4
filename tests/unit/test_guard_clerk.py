"""What keeps a worker's journal: it waits for no disk."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from scannerjob.worker.clerk import Clerk
from scannerjob.worker.journal import Journal, Journals
from scannerjob.worker.leases import DIED, End
from scannerjob.worker.records import Execution, State
from tests.support.waiting import eventually

STORE = "Redis app-redis:6379/0"
HELD = End(Execution("launch", 2, "owner"), State.FAILED, DIED)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def ends() -> Iterator[ExitStack]:
    """What is to be closed at last."""
    with ExitStack() as stack:
        yield stack


def new(ends: ExitStack) -> tuple[Path, int]:
    path, descriptor = Journals.of(STORE).create()
    ends.callback(os.close, descriptor)
    return path, descriptor


def test_what_a_dead_worker_has_left_is_found_and_kept(ends: ExitStack) -> None:
    dead, descriptor = Journals.of(STORE).create()
    Journal(descriptor).put(HELD)
    os.close(descriptor)
    path, descriptor = new(ends)
    clerk = Clerk(path, descriptor)

    assert eventually(lambda: list(clerk.left())) == [HELD]
    eventually(lambda: not dead.exists())
    assert b"launch" in path.read_bytes()


def test_what_it_is_told_is_written(ends: ExitStack) -> None:
    path, descriptor = new(ends)
    clerk = Clerk(path, descriptor)
    clerk.put(HELD)
    clerk.drop("owner")
    eventually(lambda: path.read_bytes().endswith(b'["owner"]'))


def test_a_disk_that_hangs_holds_nobody_up(ends: ExitStack) -> None:
    path, _ = new(ends)
    # Nobody reads this pipe: once it is full, a write to it waits. It stays the clerk's.
    reader, writer = os.pipe()
    ends.callback(os.close, reader)
    clerk = Clerk(path, writer)
    for n in range(10_000):
        clerk.put(End(Execution("launch", 0, str(n)), State.FAILED, DIED))
    assert list(clerk.left()) == []


def test_a_worker_that_has_ended_leaves_no_file(ends: ExitStack) -> None:
    path, descriptor = new(ends)
    Clerk(path, descriptor).remove()
    assert not path.exists()
