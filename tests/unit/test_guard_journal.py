"""What a dead worker's journal tells the next one, and which journals are left alone."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from scannerjob.worker import journal
from scannerjob.worker.journal import Journal, Journals
from scannerjob.worker.leases import DIED, End
from scannerjob.worker.records import Execution, State

STORE = "Redis app-redis:6379/0"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the journals are."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"scannerjob-guard-{os.geteuid()}"


class Worker:
    """One that has a journal, and may die."""

    def __init__(self, store: str = STORE) -> None:
        self.path, self._descriptor = Journals.of(store).create()
        self.journal = Journal(self._descriptor)

    def die(self) -> None:
        os.close(self._descriptor)


def held(owner: str) -> End:
    return End(Execution(f"launch-{owner}", 2, owner), State.FAILED, DIED)


def left(store: str = STORE) -> list[End]:
    return list(Journals.of(store).left())


def test_what_a_dead_worker_held_is_told_once() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    worker.journal.put(held("b"))
    worker.die()

    assert left() == [held("a"), held("b")]
    assert left() == []


def test_nothing_is_told_of_a_worker_that_lives() -> None:
    worker = Worker()
    worker.journal.put(held("a"))

    assert left() == []

    worker.die()
    assert left() == [held("a")]


def test_a_process_that_was_forked_keeps_it_alive() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    copy = os.dup(worker._descriptor)
    worker.die()

    assert left() == []

    os.close(copy)
    assert left() == [held("a")]


def test_nothing_is_told_of_what_has_ended() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    worker.journal.put(held("b"))
    worker.journal.drop("a")
    worker.journal.drop("unknown")
    worker.die()

    assert left() == [held("b")]


def test_of_an_owner_the_last_word_counts() -> None:
    worker = Worker()
    done = End(Execution("launch-a", 2, "a"), State.RETRYING, "", 2.5)
    worker.journal.put(held("a"))
    worker.journal.put(done)
    worker.die()

    assert left() == [done]


def test_a_line_that_was_not_written_to_its_end_is_no_line() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    os.write(worker._descriptor, b'\n["b", "launch-b", 0, "fai')
    worker.journal.put(held("c"))
    worker.die()

    assert left() == [held("a"), held("c")]


@pytest.mark.parametrize(
    "line",
    [b"\xff\xfe", b"{}", b"[]", b'["b", 1]', b'["b", 1, 2, "x", 4, 5]', b'[["b"]]', b"[" * 100_000],
)
def test_a_line_of_nonsense_is_no_line(line: bytes) -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    os.write(worker._descriptor, b"\n" + line)
    worker.die()

    assert left() == [held("a")]


def test_a_process_that_takes_the_journal_over_begins_it_anew() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    Journal(worker._descriptor).put(held("b"))
    worker.die()

    assert left() == [held("b")]


def test_a_journal_does_not_grow_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_MAX_BYTES", 1000)
    worker = Worker()
    worker.journal.put(held("first"))
    for n in range(100):
        worker.journal.put(held(str(n)))
        worker.journal.drop(str(n))
    worker.journal.put(held("last"))

    assert worker.path.stat().st_size < 1300
    worker.die()
    assert left() == [held("first"), held("last")]


def test_many_that_are_held_are_not_written_anew_with_each_line() -> None:
    worker = Worker()
    many = 5000
    for n in range(many):
        worker.journal.put(held(str(n)))
    long = worker.path.stat().st_size
    for n in range(100):
        worker.journal.drop(str(n))

    assert worker.path.stat().st_size > long
    worker.die()
    assert len(left()) == many - 100


def test_a_journal_is_there_until_all_of_it_was_taken() -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    worker.journal.put(held("b"))
    worker.die()
    next(Journals.of(STORE).left())  # by an heir that dies, too

    assert left() == [held("a"), held("b")]


def test_what_is_no_file_is_left_alone() -> None:
    for make in (os.mkfifo, os.mkdir):
        worker = Worker()
        worker.die()
        worker.path.unlink()
        make(worker.path, 0o600)

    assert left() == []


def test_journals_are_in_memory_unless_a_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There, the next container of a pod finds those of the last one."""
    monkeypatch.setattr(journal, "_MEMORY", tmp_path / "shm")
    monkeypatch.delenv("TMPDIR")
    assert Worker().path.parent.parent == tmp_path

    (tmp_path / "shm").mkdir()
    assert Worker().path.parent.parent == tmp_path / "shm"

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert Worker().path.parent.parent == tmp_path


def test_a_copy_of_a_journal_is_left_alone(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody locks it, though the worker lives whose journal it is a copy of."""
    worker = Worker()
    worker.journal.put(held("a"))
    shutil.copytree(folder, tmp_path / "copy" / folder.name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copy"))

    assert left() == []


def test_a_journal_of_another_mount_is_left_alone() -> None:
    """Two mounts of one file system need not see each other's locks."""
    worker = Worker()
    worker.journal.put(held("a"))
    worker.die()
    boot, _, rest = worker.path.name.rpartition(f"-{worker.path.stat().st_dev:x}-")
    worker.path.rename(worker.path.with_name(f"{boot}-0-{rest}"))

    assert left() == []


def test_a_worker_whose_file_was_taken_away_goes_on() -> None:
    worker = Worker()
    worker.path.unlink()
    worker.journal.put(held("a"))
    worker.die()

    assert left() == []


def test_another_stores_workers_are_left_alone() -> None:
    worker = Worker("Redis app-redis:6379/1")
    worker.journal.put(held("a"))
    worker.die()

    assert left() == []


def test_what_another_kernel_has_locked_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Machines may share a file system that does not share its locks."""
    worker = Worker()
    worker.journal.put(held("a"))
    worker.die()
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(journal, "_BOOT", tmp_path / "boot")

    assert left() == []


def test_a_folder_that_others_may_write_to_is_not_used(folder: Path) -> None:
    worker = Worker()
    worker.journal.put(held("a"))
    worker.die()
    journals = Journals.of(STORE)
    folder.chmod(0o770)

    assert list(journals.left()) == []
    with pytest.raises(PermissionError, match="of this user alone"):
        Worker()


def test_a_folder_that_is_a_link_is_not_used(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(PermissionError, match="of this user alone"):
        Worker()


def test_the_name_of_the_store_is_not_in_the_files_name(folder: Path) -> None:
    Worker()

    assert not any("app-redis" in path.name for path in folder.iterdir())
