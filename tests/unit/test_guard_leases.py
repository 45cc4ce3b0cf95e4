"""What is due when, of leases and ends."""

from collections.abc import Sequence

import pytest

from scannerjob.worker.leases import End, Leases
from scannerjob.worker.records import Execution, State


class _Store:
    """Answers as it is told to, and notes what it was asked."""

    def __init__(self) -> None:
        self.renewed: list[list[str]] = []
        self.finished: list[str] = []
        self.owners: dict[str, str] = {}
        self.broken = False
        self.takes = 0.0

    def renew(self, executions: Sequence[Execution], lease: float) -> set[str]:
        if self.broken:
            raise ConnectionError("gone")
        self.renewed.append([each.owner for each in executions])
        return {
            each.id for each in executions if self.owners.get(each.id, each.owner) != each.owner
        }

    def finish(
        self, execution: Execution, state: State, reason: str = "", delay: float = 0.0
    ) -> bool:
        if self.broken or execution.owner == "poison":
            raise ConnectionError("gone")
        _now[0] += self.takes
        self.finished.append(execution.owner)
        return True


@pytest.fixture
def store() -> _Store:
    """A store that answers."""
    return _Store()


@pytest.fixture
def leases(store: _Store, monkeypatch: pytest.MonkeyPatch) -> Leases:
    """Leases whose time passes when `tick` is called."""
    monkeypatch.setattr("scannerjob.worker.leases.time.monotonic", lambda: _now[0])
    _now[0] = 1000.0
    return Leases(store, 15, 5)  # type: ignore[arg-type]


_now = [1000.0]


def _execution(owner: str, launch: str = "") -> Execution:
    return Execution(launch or f"launch of {owner}", 0, owner)


def test_what_is_held_is_renewed_with_each_beat(leases: Leases, store: _Store) -> None:
    leases.hold(_execution("a"))
    for seconds, renewals in ((0, 1), (4.9, 1), (0.1, 2), (5, 3)):
        _now[0] += seconds
        leases.act()
        assert len(store.renewed) == renewals
    leases.release("a")
    _now[0] += 5
    leases.act()
    assert len(store.renewed) == 3
    assert leases.idle


def test_leases_in_processes_that_are_frozen_lapse(leases: Leases, store: _Store) -> None:
    leases.hold(_execution("a"))
    leases.hold(_execution("b"))
    leases.act(lambda: {"a"})
    assert store.renewed == [["b"]]


def test_who_lost_a_launch_is_told_from_who_took_it(leases: Leases, store: _Store) -> None:
    earlier, later = _execution("earlier", "x"), _execution("later", "x")
    store.owners["x"] = "later"
    for execution in (later, earlier):
        leases.hold(execution)
    assert leases.act() == [earlier]
    _now[0] += 5
    assert leases.act() == []
    assert store.renewed[-1] == ["later"]


def test_an_end_is_written_at_once_and_again_until_it_is(leases: Leases, store: _Store) -> None:
    leases.act()
    store.broken = True
    leases.end(End(_execution("a"), State.DONE))
    assert leases.due == 0
    leases.act()
    assert leases.due == 1
    store.broken = False
    _now[0] += 1
    leases.act()
    assert store.finished == ["a"]
    assert leases.idle


def test_an_end_that_cannot_be_written_keeps_nothing_else_waiting(
    leases: Leases, store: _Store
) -> None:
    leases.hold(_execution("held"))
    for owner in ("poison", "a", "b"):
        leases.end(End(_execution(owner), State.DONE))
    for _ in range(2):
        leases.act()
        _now[0] += 1
    assert store.finished == ["a", "b"]
    assert store.renewed == [["held"], ["held"]]


def test_leases_are_renewed_in_between_many_ends(leases: Leases, store: _Store) -> None:
    store.takes = 1.0
    leases.hold(_execution("held"))
    for n in range(12):
        leases.end(End(_execution(str(n)), State.FAILED))
    renewals = []
    while leases.due == 0:
        leases.act()
        renewals.append(len(store.finished))
    assert renewals == [5, 10, 12]
    assert len(store.renewed) == 3
