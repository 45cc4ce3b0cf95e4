"""The whole cycle against a world in which everything fails: no promise may break, in any order.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scannerjob import scan
from scannerjob.model import book, decide, settle
from scannerjob.model.book import Book
from scannerjob.model.facts import Fact
from scannerjob.model.row import Rows
from scannerjob.ports import ConflictError, SourceError, UnknownOutcomeError
from scannerjob.scan import Scanner
from tests.model.basics import Fault, Setup, Violation
from tests.model.broker import Broker
from tests.model.store import Store
from tests.model.world import World

STEPS_PER_WALK = 60
STEPS = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "25000"))

SETUPS: dict[str, st.SearchStrategy[Any]] = {
    "idempotent": st.booleans(),
    "republish": st.sampled_from([False, False, True]),
    "outcomes": st.booleans(),
    "flips": st.sampled_from([False, False, True]),
    "lifetime": st.sampled_from([True, True, False]),
    "loses_ledgers": st.booleans(),
    "cap": st.integers(1, 3),
    "rows": st.integers(1, 4),
    "unfetchable": st.sampled_from([0, 0, 1, 4]),
    "attempts": st.sampled_from([3, 1]),
    "cooldown": st.sampled_from(["0s", "2s", "45s"]),
}
operators = st.integers(0, 1)
CALLS = [
    "target.launch",
    "store.write",
    "source",
    "target.observe",
    "target.supersede",
    "target.check",
    "store",
    "",
]
CHANGES = [
    "crash",
    "row leaves",
    *3 * ["rows return"],
    "cap",
    "suspend",
    "query",
    *2 * ["key"],
    *2 * ["broker"],
    *2 * ["backend"],
    "lifetime",
    *2 * ["wipe"],
    *2 * ["accept"],
    "delete",
]
ENDS = ["commit", "success", "failure", "death", "lie", "flip"]
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
# Each is beyond a bound of its own: an orphan's, a send's, a lifetime, a late send's, a record's.
spells = st.sampled_from([0.3, 0.3, 1.3, 6, 40, 140, 960, 72_000, 90_000])


class Cycle(RuleBasedStateMachine):
    """Two operators, their store, table, broker and workers, one step at a time."""

    world: World
    setup: Mapping[str, Any] = {}
    changes: Sequence[str] = CHANGES

    @initialize(setup=st.fixed_dictionaries(SETUPS))
    def begin(self, setup: dict[str, Any]) -> None:
        self.world = World(Setup(**{**setup, **self.setup}))

    @rule(n=operators, steps=st.integers(1, 12))
    def go_on(self, n: int, steps: int) -> None:
        for _ in range(steps):
            self.world.step(n)

    @rule(n=operators, call=st.sampled_from(CALLS), fault=st.sampled_from(FAULTS))
    def fail(self, n: int, call: str, fault: Fault) -> None:
        """Let operator n get as far as this call, if it does within a cycle, and let that fail."""
        for _ in range(30):
            if self.world.operators[n].where.startswith(call):
                break
            self.world.step(n)
        self.world.step(n, fault)

    @rule(n=operators, cycles=st.integers(1, 3))
    def finish(self, n: int, cycles: int) -> None:
        for _ in range(cycles):
            self.world.finish_cycle(n)

    @rule(seconds=spells)
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.workers.at_work())
    @rule(data=st.data(), end=st.sampled_from(ENDS))
    def work(self, data: st.DataObject, end: str) -> None:
        """A worker takes a message, or gets on with the one that it has."""
        workers = self.world.workers
        message = data.draw(st.sampled_from(workers.at_work()))
        if message.state == "queued":
            workers.start(message)
            return
        if end == "flip" and self.world.setup.flips:
            workers.flip(message)
        if end in ("commit", "success"):
            workers.commit(message)
        if end in ("success", "lie"):
            workers.report(message, Fact.SUCCEEDED)
        elif end == "failure":
            workers.report(message, Fact.FAILED)
        elif end == "death":
            workers.die(message)

    @precondition(lambda self: self.late())
    @rule(newest=st.booleans())
    def land(self, newest: bool) -> None:
        """What the network still had arrives."""
        self.late()[0].land_late(-1 if newest else 0)

    def late(self) -> list[Broker | Store]:
        places: list[Broker | Store] = [*self.world.brokers, self.world.store]
        return [place for place in places if place.late]

    @rule(n=operators, data=st.data(), number=st.integers(0, 3))
    def disturb(self, n: int, data: st.DataObject, number: int) -> None:
        """What happens now and then."""
        world, keys = self.world, sorted(self.world.rows)
        match data.draw(st.sampled_from(self.changes)):
            case "crash":
                world.crash(n)
            case "row leaves":
                world.finish_row(keys[number % len(keys)])
            case "rows return":
                for key in keys:
                    world.return_row(key)
            case "cap":
                world.edit(concurrency=number)
            case "suspend":
                world.edit(suspend=number == 0)
            case "query":
                world.edit_query()
            case "lifetime" if not world.setup.loses_ledgers:
                world.edit_lifetime(number == 0)
            case "wipe" if world.setup.loses_ledgers:
                world.store.wipe()
            case "key":
                world.edit_key()
            case "broker":
                world.edit_broker()
            case "backend":
                world.edit_backend()
            case "accept" if world.setup.loses_ledgers:
                world.accept_lost_ledger()
            case "delete" if number == 0:
                world.store.delete()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                if not self.world.broken:
                    self.world.recover()
            finally:
                self.world.close()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails() -> None:
    _run(max_examples=max(1, STEPS // STEPS_PER_WALK), print_blob=True)


def _run(machine: type[Cycle] = Cycle, **options: Any) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=STEPS_PER_WALK,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )


# What must be found: each of these breaks one rule.


def _orphans_are_taken_for_unsent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "claim_again", lambda self, item, row: self.claim(row, 1, item.id + "x"))


def _lost_writes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scanner, "_claim", _claim_whatever_becomes_of_it)


async def _claim_whatever_becomes_of_it(
    scanner: Any, snapshot: Any, status: Any, decision: Any
) -> Any:
    with suppress(ConflictError, UnknownOutcomeError):
        await scanner._store.write(snapshot, status)
    return status


def _lives_are_over_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "_lapsed", lambda item, facts: item.until is not None)


def _a_look_that_failed_shows_no_rows(patch: pytest.MonkeyPatch) -> None:
    async def look(scanner: Any, connections: Any, *_: Any) -> Rows:
        try:
            return cast(Rows, await connections.source.scan(1000))
        except SourceError:
            return Rows(connections.source.query_hash, complete=True, key=("id",))

    patch.setattr(Scanner, "_look", look)


def _waiting_rows_are_never_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_retry", lambda book, facts, new_id: iter(()))


def _moved_brokers_are_taken_over_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "endpoint_changed", lambda ledger, facts: False)


def _key_columns_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "key_changed", lambda ledger, facts: False)


def _one_loss_is_accepted_for_all(patch: pytest.MonkeyPatch) -> None:
    begin = scan._lost_ledger
    patch.setattr(scan, "_lost_ledger", lambda *seen: replace(begin(*seen), handled_requests={}))


def _rests_are_cut_to_the_second(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book, "whole", lambda moment: moment and moment.replace(microsecond=0))


def _deletion_stops_nothing(patch: pytest.MonkeyPatch) -> None:
    hold = Scanner._hold
    patch.setattr(Scanner, "_hold", lambda self, seen: hold(self, replace(seen, deleting=False)))


def _rows_that_left_settle_what_is_told(patch: pytest.MonkeyPatch) -> None:
    settles = settle._leaving_settles
    patch.setattr(settle, "_leaving_settles", lambda item, facts, told: settles(item, facts, False))


# Where each is found soonest: in what kind of world, and by what happens there besides faults.
MISTAKES: dict[Callable[[pytest.MonkeyPatch], None], tuple[dict[str, Any], list[str]]] = {
    _orphans_are_taken_for_unsent: ({}, ["crash"]),
    _lost_writes_are_forgotten: ({}, CHANGES),
    _lives_are_over_at_once: ({}, CHANGES),
    _a_look_that_failed_shows_no_rows: (
        {"outcomes": False, "flips": False, "loses_ledgers": False, "cooldown": "0s"},
        ["rows return"],
    ),
    _waiting_rows_are_never_due: ({}, CHANGES),
    _moved_brokers_are_taken_over_at_once: ({"idempotent": True, "rows": 1}, ["broker", "crash"]),
    _key_columns_do_not_matter: ({"rows": 3}, ["key"]),
    _one_loss_is_accepted_for_all: ({"loses_ledgers": True}, ["wipe", "accept"]),
    _rests_are_cut_to_the_second: ({"cooldown": "2s"}, ["rows return"]),
    _deletion_stops_nothing: ({}, ["delete"]),
    _rows_that_left_settle_what_is_told: ({"flips": True}, ["rows return"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    setup, changes = MISTAKES[mistake]
    machine = type("Focused", (Cycle,), {"setup": setup, "changes": changes})
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            _run(
                machine, max_examples=2000, derandomize=True, phases=[Phase.generate], database=None
            )
