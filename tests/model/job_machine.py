"""The machine that walks through a world in which rows become Jobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.model.basics import Fault, Setup
from tests.model.machine import CHANGES, FAULTS, Cycle, operators
from tests.model.world import World

SETUPS: dict[str, st.SearchStrategy[Any]] = {
    "lifetime": st.booleans(),
    "loses_ledgers": st.booleans(),
    "cap": st.integers(1, 3),
    "rows": st.integers(1, 4),
    "unfetchable": st.sampled_from([0, 0, 1, 4]),
    "limit": st.sampled_from([0, 0, 0, 1, 2]),
    "attempts": st.sampled_from([3, 1]),
    "cooldown": st.sampled_from(["0s", "2s", "45s"]),
    "refused": st.sampled_from([0, 0, 1]),
    "predecessor": st.sampled_from([False, False, True]),
    "taken": st.sampled_from([0, 0, 1]),
    "history": st.integers(0, 1),
    "ttl": st.sampled_from([None, None, 60]),
}
CALLS = [
    *2 * ["jobs.create"],
    "store.write",
    "source",
    "jobs.find",
    "jobs.pods",
    "jobs.try_out",
    "store",
    "",
]
# There is no broker and no result backend to change; and what a Job's label tells of its row after
# the ledger was lost, it tells by the key columns of its time.
JOB_CHANGES = [change for change in CHANGES if change not in ("broker", "backend")]


# Each is beyond a bound of its own: an orphan's, a send's, a watch's, a late send's.
spells = st.sampled_from([0.3, 1.3, 6, 6, 40, 140, 960])


class JobCycle(Cycle):
    """Two operators, their store and table, and Jobs, one step at a time."""

    changes: Sequence[str] = JOB_CHANGES
    calls: Sequence[str] = CALLS
    faults: Sequence[Fault] = FAULTS

    @initialize(setup=st.fixed_dictionaries(SETUPS))
    def begin(self, setup: dict[str, Any]) -> None:
        setup = {**setup, **self.setup}
        # A task may take its row out of the query before it is done: its Job tells its end.
        self.world = World(Setup(jobs=True, flips=True, **setup))

    @rule(n=operators, data=st.data())
    def fail(self, n: int, data: st.DataObject) -> None:
        call, fault = data.draw(st.sampled_from(self.calls)), data.draw(self._some_fault())
        self.get_to(n, call, fault)

    def _some_fault(self) -> st.SearchStrategy[Fault]:
        return st.sampled_from(self.faults)

    @rule(seconds=spells)
    def wait(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule(n=operators, end=st.sampled_from(["success", "failure", "death"]))
    def get_done(self, n: int, end: str) -> None:
        """All pods start and end, the Job controller sees it, and so does operator n."""
        for pod in self.world.workers.in_state("queued"):
            self.world.workers.start(pod)
        for pod in self.world.workers.in_state("running"):
            self.go_on_with(pod, end)
        self.world.cluster.control()
        self.world.finish_cycle(n)

    @rule(n=operators, events=st.integers(1, 6))
    def tell(self, n: int, events: int) -> None:
        """The watch of operator n tells what it has, or some of it."""
        self.world.operators[n].jobs.be_told(events)

    @rule(n=operators)
    def go_silent(self, n: int) -> None:
        """The watch of operator n loses what it has, without a word."""
        self.world.operators[n].jobs.watch.events.clear()

    @precondition(lambda self: self.world.cluster.jobs)
    @rule()
    def control(self) -> None:
        """The Job controller looks at all Jobs."""
        self.world.cluster.control()

    @precondition(lambda self: any(each.jobs.tasks for each in self.world.operators))
    @rule(n=operators, steps=st.integers(1, 6), data=st.data())
    def go_on_aside(self, n: int, steps: int, data: st.DataObject) -> None:
        """What operator n does in the background goes on, and may fail."""
        for _ in range(steps):
            self.world.step_aside(n)
        self.world.step_aside(n, data.draw(self._some_fault()))

    @precondition(lambda self: self.world.cluster.jobs)
    @rule(index=st.integers(0, 3))
    def doom(self, index: int) -> None:
        """A Job is to fail, as soon as its pod has ended."""
        self.world.cluster.doom(index)

    @precondition(lambda self: self.world.cluster.jobs)
    @rule(index=st.integers(0, 3))
    def delete_job(self, index: int) -> None:
        """A person deletes a Job."""
        self.world.cluster.delete(index)
