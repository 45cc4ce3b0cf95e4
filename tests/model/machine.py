"""The machine that walks through a world at random: what may happen to it, one rule each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

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
from scannerjob.model.requests import ALL_PARKED, SCAN
from tests.model.basics import Fault, Setup
from tests.model.broker import Broker
from tests.model.cluster import Cluster
from tests.model.store import Store
from tests.model.workers import Message
from tests.model.world import World

STEPS_PER_WALK = 60
STEPS = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "10000"))

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
    "limit": st.sampled_from([0, 0, 0, 1, 2]),
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
    "hint",
    "lifetime",
    *2 * ["wipe"],
    *2 * ["accept"],
    "scan",
    "retry",
    "force-drain",
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
        self.get_to(n, call, fault)

    def get_to(self, n: int, call: str, fault: Fault) -> None:
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
        self.go_on_with(message, end)

    def go_on_with(self, message: Message, end: str) -> None:
        """The task of this message gets so far."""
        workers = self.world.workers
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

    def late(self) -> list[Broker | Cluster | Store]:
        places: list[Broker | Cluster | Store] = [*self.world.networks, self.world.store]
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
            case "key" if not (world.setup.jobs and world.setup.loses_ledgers):
                world.edit_key()
            case "broker":
                world.edit_broker()
            case "backend":
                world.edit_backend()
            case "hint":
                world.hinted = True
            case "accept" if world.setup.loses_ledgers:
                world.accept_lost_ledger()
            case "scan":
                world.store.ask(SCAN)
            case "retry":
                world.retry(ALL_PARKED if number >= len(keys) else keys[number])
            case "force-drain":
                world.force_drain()
            case "delete" if number == 0:
                world.store.delete()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            try:
                if not self.world.broken:
                    self.world.recover()
            finally:
                self.world.close()


def run(machine: type[Cycle] = Cycle, **options: Any) -> None:
    """Walk, with these of Hypothesis' settings."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            stateful_step_count=STEPS_PER_WALK,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **options,
        ),
    )
