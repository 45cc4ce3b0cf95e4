"""The guard in every order of what may go wrong with it, and proof that a mistake would be found.

SCANNERJOB_PROVE_STEPS=1000000 visits so many states of each pair of faults.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from datetime import timedelta

import pytest

from scannerjob.model import reading
from scannerjob.targets.celery import lapses
from scannerjob.worker.records import Execution, Record, State
from tests.model.guard_rules import Rules
from tests.model.guard_small import explore
from tests.model.guard_world import Broken, Model

STATES = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "300"))
ALL = 10**6
WORKERS = ("child dies", "worker dies", "fails", "retries", "duplicate")
HALTS = ("frozen", "cut off", "without heartbeat")
STORES = ("store down", "wiped", "begun anew", "restored", "clock")
OPERATORS = ("operator dies", "operator stalls", "operator cut off", "row leaves")
KINDS = (*WORKERS, *HALTS, *STORES, *OPERATORS)
# What is explored in part only, unless it is asked for more.
BOUNDED = {"restored": 3000, "store down": 3000, "begun anew": 3000}
# A retry outlives its execution: what may come of it beside another death comes late.
WITH_RETRIES = 2500

pytestmark = pytest.mark.timeout(24 * 3600)


def _depth(pair: tuple[str, ...]) -> int:
    return WITH_RETRIES if "retries" in pair and set(pair) <= set(WORKERS) else 0


def model(*kinds: str, one_redis: bool = True, faults: int = 1, operators: int = 1) -> Model:
    return Model(Rules(), one_redis, operators, faults, frozenset(kinds))


@pytest.mark.parametrize("one_redis", [True, False], ids=["one Redis", "another broker"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_goes_wrong_once_breaks_a_promise(kind: str, one_redis: bool) -> None:
    limit = max(BOUNDED.get(kind, ALL), STATES)
    visited = explore(model(kind, one_redis=one_redis), limit)
    print(visited, "states", "" if visited >= limit else "and no others")


@pytest.mark.parametrize("one_redis", [True, False], ids=["one Redis", "another broker"])
def test_no_two_things_that_go_wrong_break_a_promise(one_redis: bool) -> None:
    visited = sum(
        explore(model(*pair, one_redis=one_redis, faults=2), max(_depth(pair), STATES))
        for pair in itertools.combinations(KINDS, 2)
    )
    print(visited, "states")


@pytest.mark.parametrize("one_redis", [True, False], ids=["one Redis", "another broker"])
def test_two_operators_break_no_promise(one_redis: bool) -> None:
    print(explore(model(*KINDS, one_redis=one_redis, operators=2), 5 * STATES), "states")


def test_without_faults_all_is_explored_to_the_end() -> None:
    assert 100 < explore(model(operators=2), ALL) < ALL


# What must be found: each of these breaks one rule.


class OwnerOnly(Rules):
    """What the store had before it lost writes is not replaced by who knows better."""

    def may_write(self, record: Record | None, execution: Execution) -> bool:
        waiting = record is None or record.state is State.QUEUED
        return waiting or (record is not None and self.owns(record, execution))


class TakesLapsed(Rules):
    """A lease that has lapsed is taken over by another delivery, and nobody asks for the row."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        same = record.state is State.RUNNING and record.retries == execution.retries
        lapsed = same and not self.is_live(record, now)
        return lapsed or super().goes_on(record, execution, now)


class TakesLive(Rules):
    """A claim does not look at the lease."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        return record.state is State.RUNNING or super().goes_on(record, execution, now)


class TakesAnyRetry(Rules):
    """A claim does not count retries."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        return record.state is State.RETRYING or super().goes_on(record, execution, now)


class TakesSuperseded(Rules):
    """A claim does not care for what was given up."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        return record.state is State.SUPERSEDED or super().goes_on(record, execution, now)


class TakesEnded(Rules):
    """A claim does not care for what has ended."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        return record.state is State.FAILED or super().goes_on(record, execution, now)


class NeverWritesBack(Rules):
    """A heartbeat that finds no record takes its launch for lost."""

    def renew(self, record: Record | None, execution: Execution, now: float) -> Record | None:
        return super().renew(record, execution, now) if record else None


class FinishesAnothers(Rules):
    """Whoever ends writes it down, whosever the launch is by now."""

    def finish(
        self, record: Record | None, execution: Execution, state: State, now: float
    ) -> Record | None:
        return super().finish(None, execution, state, now)


class SupersedesRunning(Rules):
    """A launch is given up although it runs."""

    def is_live(self, record: Record, now: float) -> bool:
        return False


MISTAKEN_RULES: dict[type[Rules], Model] = {
    OwnerOnly: model("retries", "restored", one_redis=False, faults=2),
    TakesLapsed: model("worker dies"),
    TakesLive: model("duplicate"),
    TakesAnyRetry: model("retries", "duplicate", faults=2),
    TakesSuperseded: model("worker dies"),
    TakesEnded: model("child dies"),
    NeverWritesBack: model("wiped"),
    FinishesAnothers: model("retries", "duplicate", faults=2),
    SupersedesRunning: model("row leaves"),
}


@pytest.mark.parametrize("rules", MISTAKEN_RULES)
def test_finds_a_store_with_a_mistaken_rule(rules: type[Rules]) -> None:
    found(replace(MISTAKEN_RULES[rules], rules=rules()))


def test_finds_that_a_lapse_is_believed_when_it_is_first_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lapses, "SEEN_AGAIN", 0.0)
    found(model("clock"))


def test_finds_that_a_store_is_believed_that_was_not_read_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lapses, "STEADY", 0.0)
    found(model("wiped"))


def test_finds_that_another_store_is_taken_for_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    note = lapses.Lapses.note
    monkeypatch.setattr(lapses.Lapses, "note", lambda self, _, moment: note(self, "0", moment))
    found(model("restored", one_redis=False))


def test_finds_that_readings_which_failed_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapses.Lapses, "failed", lambda self: None)
    monkeypatch.setattr(lapses.Moment, "is_near", lambda self, other: True)
    found(model("store down"))


def test_finds_that_what_is_missing_is_sent_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "RESEND_FORGOTTEN", timedelta(0))
    found(model("wiped", faults=2))


@pytest.mark.parametrize(
    "mistaken",
    [
        replace(model("retries", "worker dies", faults=2), no_supersede=True),
        replace(model("retries", "worker dies", faults=2), supersede_late=True),
        replace(model("row leaves", "wiped", faults=2), gives_up_unclear=True),
        replace(model("operator dies", one_redis=False), queued_is_sent=True),
    ],
    ids=[
        "does not supersede",
        "supersedes after the query",
        "gives up what is missing",
        "takes a record for a message",
    ],
)
def test_finds_an_operator_that(mistaken: Model) -> None:
    found(mistaken)


def test_finds_what_a_store_forgets_where_nothing_excuses_it() -> None:
    found(replace(model("restored"), store_may_lose=False))


def found(mistaken: Model) -> None:
    with pytest.raises(Broken) as broken:
        explore(mistaken, 30_000)
    print(broken.value)
