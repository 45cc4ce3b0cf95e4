"""The whole cycle against a world in which everything fails: no promise may break, in any order.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from scannerjob.model.facts import Fact
from tests.model.world import Fault, Message, Setup, World

STEPS_PER_WALK = 60
STEPS = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "12000"))

setups = st.builds(
    Setup,
    idempotent=st.booleans(),
    outcomes=st.booleans(),
    lifetime=st.booleans(),
    loses_ledgers=st.booleans(),
    cap=st.integers(1, 3),
    rows=st.integers(1, 4),
    attempts=st.sampled_from([3, 1]),
    cooldown=st.sampled_from(["0s", "45s"]),
)
operators = st.integers(0, 1)
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

    @rule(n=operators, fault=st.sampled_from(Fault))
    def fail(self, n: int, fault: Fault) -> None:
        self.world.step(n, fault)

    @rule(n=operators, cycles=st.integers(1, 3))
    def finish(self, n: int, cycles: int) -> None:
        for _ in range(cycles):
            self.world.finish_cycle(n)

    @rule(n=operators)
    def crash(self, n: int) -> None:
        self.world.crash(n)

    @rule(seconds=spells)
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: self.world.broker.in_state("queued"))
    @rule(data=st.data())
    def start(self, data: st.DataObject) -> None:
        self.world.broker.start(self._one(data, "queued"))

    @precondition(lambda self: self.world.broker.in_state("running"))
    @rule(data=st.data(), end=st.sampled_from(["commit", "success", "failure", "death"]))
    def work(self, data: st.DataObject, end: str) -> None:
        broker, message = self.world.broker, self._one(data, "running")
        match end:
            case "commit":
                broker.commit(message)
            case "success":
                broker.commit(message)
                broker.report(message, Fact.SUCCEEDED)
            case "failure":
                broker.report(message, Fact.FAILED)
            case "death":
                broker.die(message)

    @precondition(lambda self: self.world.broker.in_state("running"))
    @rule(data=st.data())
    def claim_success_without_work(self, data: st.DataObject) -> None:
        self.world.broker.report(self._one(data, "running"), Fact.SUCCEEDED)

    @precondition(lambda self: self.world.broker.late)
    @rule(data=st.data())
    def land_a_late_send(self, data: st.DataObject) -> None:
        broker = self.world.broker
        broker.land_late(data.draw(st.integers(0, len(broker.late) - 1)))

    @precondition(lambda self: self.world.store.late)
    @rule(data=st.data())
    def land_a_late_write(self, data: st.DataObject) -> None:
        store = self.world.store
        store.land_late(data.draw(st.integers(0, len(store.late) - 1)))

    @rule(data=st.data(), comes_back=st.booleans())
    def touch_a_row(self, data: st.DataObject, comes_back: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.world.rows)))
        if comes_back:
            self.world.return_row(key)
        else:
            self.world.finish_row(key)

    @rule(cap=st.integers(0, 3), suspend=st.booleans())
    def edit(self, cap: int, suspend: bool) -> None:
        self.world.edit(concurrency=cap, suspend=suspend)

    @precondition(lambda self: not self.world.setup.loses_ledgers)
    @rule(lifetime=st.booleans())
    def edit_lifetime(self, lifetime: bool) -> None:
        self.world.edit_lifetime(lifetime)

    @rule()
    def edit_query(self) -> None:
        self.world.edit_query()

    @precondition(lambda self: self.world.setup.loses_ledgers)
    @rule()
    def wipe(self) -> None:
        self.world.store.wipe()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                self.world.recover()
            finally:
                self.world.close()

    def _one(self, data: st.DataObject, state: str) -> Message:
        return data.draw(st.sampled_from(self.world.broker.in_state(state)))


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails() -> None:
    run_state_machine_as_test(
        Cycle,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_PER_WALK),
            stateful_step_count=STEPS_PER_WALK,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
