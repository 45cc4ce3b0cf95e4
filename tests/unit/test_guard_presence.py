"""What a worker announces, when, and how it goes on where it cannot."""

import logging
from collections.abc import Callable, Collection

import pytest

from scannerjob.worker import presence
from scannerjob.worker.presence import MAX_TASKS, keep_announcing
from tests.support.memory_guard import MemoryGuard
from tests.support.waiting import eventually


class _Fails(MemoryGuard):
    """One that cannot be asked at first."""

    fails = True

    def announce(self, tasks: Collection[str], duration: float) -> None:
        if self.fails:
            raise ConnectionError("gone")
        super().announce(tasks, duration)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Announce often. The threads of these tests go on until the process ends, and do no harm."""
    monkeypatch.setattr(presence, "_EVERY", 0.05)
    monkeypatch.setattr(presence, "_AGAIN", 0.05)


def _guards(store: MemoryGuard, *tasks: str) -> Callable[[], bool]:
    return lambda: all(store.is_guarded(task) for task in tasks)


def test_a_store_that_has_forgotten_is_told_again() -> None:
    store = MemoryGuard()
    keep_announcing(store, ["a", "b"])
    for _ in range(2):
        eventually(_guards(store, "a", "b"))
        store.forget_all()


def test_a_store_that_is_down_is_told_once_it_is_back() -> None:
    store = _Fails()
    keep_announcing(store, ["a"])
    assert not store.is_guarded("a")
    store.fails = False
    eventually(_guards(store, "a"))


def test_many_tasks_are_announced_up_to_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    store, names = MemoryGuard(), [f"task {number}" for number in range(MAX_TASKS + 7)]
    with caplog.at_level(logging.WARNING):
        keep_announcing(store, names)
    eventually(_guards(store, *names[:MAX_TASKS]))
    assert store.announced.keys() == set(names[:MAX_TASKS])
    assert "the last 7" in caplog.text
