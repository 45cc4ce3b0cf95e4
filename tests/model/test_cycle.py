"""The whole cycle against a world in which everything fails: no promise may break, in any order.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
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
from scannerjob.model import book, decide, reading, settle
from scannerjob.model.book import Book
from scannerjob.model.facts import Fact
from scannerjob.model.limits import ORPHAN_AFTER
from scannerjob.model.row import Presence, Rows
from scannerjob.ports import ConflictError, SourceError, UnknownOutcomeError
from scannerjob.scan import Scanner
from tests.model.basics import Fault, Setup, Violation
from tests.model.broker import Broker
from tests.model.store import Store
from tests.model.world import World

STEPS_PER_WALK = 60
STEPS = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "25000"))

setups = st.builds(
    Setup,
    idempotent=st.booleans(),
    republish=st.sampled_from([False, False, True]),
    outcomes=st.booleans(),
    flips=st.sampled_from([False, False, True]),
    lifetime=st.sampled_from([True, True, False]),
    loses_ledgers=st.booleans(),
    cap=st.integers(1, 3),
    rows=st.integers(1, 4),
    unfetchable=st.sampled_from([0, 0, 1, 4]),
    attempts=st.sampled_from([3, 1]),
    cooldown=st.sampled_from(["0s", "2s", "45s"]),
)
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

    @initialize(setup=setups)
    def begin(self, setup: Setup) -> None:
        self.world = World(setup)

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

    @rule(n=operators, change=st.sampled_from(CHANGES), number=st.integers(0, 3))
    def disturb(self, n: int, change: str, number: int) -> None:
        """What happens now and then."""
        world, keys = self.world, sorted(self.world.rows)
        match change:
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


def _run(**options: Any) -> None:
    run_state_machine_as_test(
        Cycle,
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


def _moved_brokers_remember_all(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading, "endpoint_changed", lambda ledger, facts: False)


def _moved_brokers_are_taken_over_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "endpoint_changed", lambda ledger, facts: False)


def _what_was_not_found_has_left(patch: pytest.MonkeyPatch) -> None:
    def presence(rows: Rows, key: str) -> Presence:
        return Presence.PRESENT if rows.find(key) else Presence.ABSENT

    patch.setattr(Rows, "presence", presence)


def _key_columns_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "key_changed", lambda ledger, facts: False)


def _one_loss_is_accepted_for_all(patch: pytest.MonkeyPatch) -> None:
    begin = scan._lost_ledger
    patch.setattr(scan, "_lost_ledger", lambda *seen: replace(begin(*seen), handled_requests={}))


def _senders_are_given_up_too_early(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading, "_orphan_after", lambda traits: ORPHAN_AFTER)


def _rests_are_cut_to_the_second(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book, "whole", lambda moment: moment and moment.replace(microsecond=0))


def _deletion_stops_nothing(patch: pytest.MonkeyPatch) -> None:
    hold = Scanner._hold
    patch.setattr(Scanner, "_hold", lambda self, seen: hold(self, replace(seen, deleting=False)))


def _rows_that_left_settle_what_is_told(patch: pytest.MonkeyPatch) -> None:
    settles = settle._leaving_settles
    patch.setattr(settle, "_leaving_settles", lambda item, facts, told: settles(item, facts, False))


@pytest.mark.parametrize(
    "mistake",
    [
        _orphans_are_taken_for_unsent,
        _lost_writes_are_forgotten,
        _lives_are_over_at_once,
        _a_look_that_failed_shows_no_rows,
        _waiting_rows_are_never_due,
        _moved_brokers_remember_all,
        _moved_brokers_are_taken_over_at_once,
        _what_was_not_found_has_left,
        _key_columns_do_not_matter,
        _one_loss_is_accepted_for_all,
        _senders_are_given_up_too_early,
        _rests_are_cut_to_the_second,
        _deletion_stops_nothing,
        _rows_that_left_settle_what_is_told,
    ],
)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            _run(max_examples=2000, derandomize=True, phases=[Phase.generate], database=None)
