"""The whole cycle against a world in which everything fails: no promise may break, in any order.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
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

from scannerjob.model import decide, settle
from scannerjob.model.book import Book
from scannerjob.model.facts import Fact
from scannerjob.model.row import Rows
from scannerjob.ports import ConflictError, SourceError, UnknownOutcomeError
from scannerjob.scan import Scanner
from tests.model.world import Fault, Setup, Violation, World

STEPS_PER_WALK = 60
STEPS = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "25000"))

setups = st.builds(
    Setup,
    idempotent=st.booleans(),
    outcomes=st.booleans(),
    lifetime=st.sampled_from([True, True, False]),
    loses_ledgers=st.booleans(),
    cap=st.integers(1, 3),
    rows=st.integers(1, 4),
    attempts=st.sampled_from([3, 1]),
    cooldown=st.sampled_from(["0s", "45s"]),
)
operators = st.integers(0, 1)
CALLS = [
    "target.launch",
    "store.write",
    "source",
    "target.observe",
    "target.supersede",
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
    "lifetime",
    "wipe",
]
FAULTS = [fault for fault in Fault if fault is not Fault.NONE]
# Each is beyond a bound of its own: an orphan's, a send's, a lifetime, a late send's, a record's.
spells = st.sampled_from([0.3, 6, 40, 140, 960, 72_000, 90_000])


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

    @precondition(lambda self: self.world.broker.at_work())
    @rule(data=st.data(), end=st.sampled_from(["commit", "success", "failure", "death", "lie"]))
    def work(self, data: st.DataObject, end: str) -> None:
        """A worker takes a message, or gets on with the one that it has."""
        broker = self.world.broker
        message = data.draw(st.sampled_from(broker.at_work()))
        if message.state == "queued":
            broker.start(message)
            return
        if end in ("commit", "success"):
            broker.commit(message)
        if end in ("success", "lie"):
            broker.report(message, Fact.SUCCEEDED)
        elif end == "failure":
            broker.report(message, Fact.FAILED)
        elif end == "death":
            broker.die(message)

    @precondition(lambda self: self.world.broker.late or self.world.store.late)
    @rule(newest=st.booleans())
    def land(self, newest: bool) -> None:
        """What the network still had arrives."""
        broker, store = self.world.broker, self.world.store
        (broker if broker.late else store).land_late(-1 if newest else 0)

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
    patch.setattr(Book, "claim_again", lambda book, item, row: book.claim(row, 1, item.id + "x"))


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
            return Rows("query", complete=True)

    patch.setattr(Scanner, "_look", look)


def _waiting_rows_are_never_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_retry", lambda book, facts, new_id: iter(()))


@pytest.mark.parametrize(
    "mistake",
    [
        _orphans_are_taken_for_unsent,
        _lost_writes_are_forgotten,
        _lives_are_over_at_once,
        _a_look_that_failed_shows_no_rows,
        _waiting_rows_are_never_due,
    ],
)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            _run(max_examples=2000, derandomize=True, phases=[Phase.generate], database=None)
