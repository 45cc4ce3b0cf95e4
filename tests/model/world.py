"""A world for the cycle to run in: a ledger, a table, brokers and workers, all of which may fail.

Nothing here takes time or chance of its own. Every call of a port stops twice, before it has its
effect and before it is answered; whoever drives the world decides when it goes on, what goes wrong,
and what happens in between. The world is also the judge: it raises `Violation` when a promise is
broken, by what really happened to rows and messages, never by what a ledger says of them.
"""

from __future__ import annotations

from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from scannerjob.model.facts import Send
from scannerjob.model.requests import FORCE_DRAIN, RETRY
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import ConfigurationError, Connections, Ref, Snapshot
from scannerjob.scan import Scanner
from tests.model import jobs
from tests.model.basics import REF, RESEND_WITHIN, START, Fault, Pause, Setup, Violation
from tests.model.broker import Broker, Target
from tests.model.cluster import Cluster
from tests.model.store import Store, since
from tests.model.table import ANOTHER_QUERY, KEYS, QUERY, RowState, Source, Table
from tests.model.workers import Workers
from tests.support.notices import Told


@dataclass
class Operator:
    """One process: a scanner and its memory, and the cycle it is in the midst of, if any."""

    scanner: Scanner
    jobs: jobs.Process
    cycle: Coroutine[str, Fault, float | None] | None = None
    where: str = "idle"
    delay: float | None = 0.0
    failed: bool = False
    claimed: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """It is killed."""
        if self.cycle is not None:
            self.cycle.close()
        self.jobs.close()


class World:
    """Everything outside the operators, and the operators."""

    def __init__(self, setup: Setup, operators: int = 2) -> None:
        self.setup = setup = replace(
            setup,
            lifetime=setup.lifetime or (setup.loses_ledgers and not setup.jobs),
            outcomes=setup.outcomes or setup.flips,
        )
        self.trace: list[str] = []
        self.recorder = Told(REF, "uid")
        self.broken = False
        self.now = START
        # How far ahead the operators' wall clocks are.
        self.ahead = timedelta(0)
        self.spec = setup.document()
        self.caps = [setup.cap]
        self.table = Table(self)
        self.store = Store(self)
        self.workers = Workers(self)
        self.cluster = Cluster(self)
        self.brokers = [Broker(self, "broker"), Broker(self, "another broker")]
        self.broker = self.brokers[0]
        self.backend = setup.outcomes
        # Whether the next observation comes with word that something has ended, true or not.
        self.hinted = False
        self._patch = pytest.MonkeyPatch()
        # In any world: a client of a real API server takes long to make.
        jobs.install(self._patch, self)
        if setup.predecessor:
            self.cluster.begin_with_a_predecessor()
        self._ids = self._ticks = 0
        self._acting: Operator | None = None
        self.operators = [self._process() for _ in range(operators)]

    @property
    def rows(self) -> Mapping[str, RowState]:
        return self.table.rows

    @property
    def networks(self) -> list[Broker | Cluster]:
        """Where something that was sent may arrive late."""
        return [*self.brokers, self.cluster]

    # Operators.

    def _process(self) -> Operator:
        process = jobs.Process(self)
        connector = _Connector(self, process)
        scanner = Scanner(REF, self.store, connector, _Clock(self), self.new_id, self.recorder)
        return Operator(scanner, process)

    def new_id(self) -> str:
        self._ids += 1
        return f"launch-{self._ids}"

    def step(self, n: int, fault: Fault = Fault.NONE) -> None:
        """Let operator n run to the next point where it waits for something."""
        operator = self._acting = self.operators[n]
        if operator.cycle is None:
            operator.cycle = operator.scanner.cycle()
            operator.failed, operator.claimed = False, {}
            self._resume(operator, None)
        else:
            self._resume(operator, fault)

    def _resume(self, operator: Operator, fault: Fault | None) -> None:
        assert operator.cycle is not None
        said = f" ({fault})" if fault not in (None, Fault.NONE) else ""
        self.note(f"operator {self.operators.index(operator)}: {operator.where}{said}")
        try:
            operator.where = operator.cycle.send(fault)  # type: ignore[arg-type]  # None starts it
        except StopIteration as end:
            operator.cycle, operator.where, operator.delay = None, "idle", end.value

    def finish_cycle(self, n: int) -> float | None:
        """Let operator n run, without faults, to the end of its cycle or of a new one."""
        self.step(n)
        while self.operators[n].cycle is not None:
            self.step(n)
        self.operators[n].jobs.finish()
        return self.operators[n].delay

    def crash(self, n: int) -> None:
        """Operator n is killed where it stands; another process takes its place."""
        self.note(f"operator {n} is killed at {self.operators[n].where}")
        self.operators[n].close()
        # What it sent in this cycle or the last one, it may not have told yet.
        claimed = [i for i, item in self.store.outstanding().items() if item["phase"] == "Claimed"]
        self.workers.doubtful.update(claimed)
        self.operators[n] = self._process()

    def close(self) -> None:
        """End cycles that are under way."""
        for operator in self.operators:
            operator.close()
        self._patch.undo()

    def step_aside(self, n: int, fault: Fault = Fault.NONE) -> None:
        """Let operator n go on with what it does in the background."""
        self._acting = self.operators[n]
        self._acting.jobs.step(fault)

    def is_at_hand(self, launch_id: str) -> bool:
        """Whether an operator is about to send this launch, or just did."""
        return any(each.cycle and launch_id in each.claimed for each in self.operators)

    def judge_sends(self, sends: Sequence[Send]) -> None:
        """What is sent follows a write that was won in a cycle that knew everything."""
        operator = self.acting()
        if sends and operator.failed:
            self.violated("a launch in a cycle in which something was unknown")
        for send in sends:
            if operator.claimed.get(send.item.id) != send.item.sends:
                self.violated(f"{send.item.id} is sent without a claim won in this cycle")

    def acting(self) -> Operator:
        assert self._acting is not None
        return self._acting

    # Time, rows and people.

    @property
    def boottime(self) -> float:
        return (self.now - START).total_seconds() + 1000

    def monotonic(self) -> float:
        """Seconds of which no two are the same."""
        self._ticks += 1
        return self.boottime + self._ticks * 1e-6

    def advance(self, seconds: float) -> None:
        """Let time pass; what has its deadline within it, ends."""
        self.now += timedelta(seconds=seconds)
        self.note(f"{seconds:g} s pass: it is {self.now:%d %H:%M:%S.%f}")
        self.workers.time_passed()
        self.cluster.time_passed()

    def finish_row(self, name: str) -> None:
        """Somebody else does a row's work."""
        self.note(f"row {name} leaves")
        self.table.leave(name)

    def return_row(self, name: str) -> None:
        """A row is to be done again."""
        row = self.table.rows[name]
        if not row.pending:
            self.note(f"row {name} comes back")
            self.table.rows[name] = RowState(row.generation + 1)

    def edit(self, **fields: Any) -> None:
        """A person changes the spec."""
        self.note(f"spec: {fields}")
        self.spec = {**self.spec, **fields}
        self.caps.append(self.spec["concurrency"])
        self.store.spec_changed()

    def edit_lifetime(self, lifetime: bool) -> None:
        """A person sets `expires` and `deadline`, or takes them out."""
        self.spec.pop("deadline", None)
        setup = replace(self.setup, lifetime=lifetime, cap=self.spec["concurrency"])
        self.edit(**setup.document())

    def edit_query(self) -> None:
        """A person changes the query; see `Table.shown`."""
        self.table.query = ANOTHER_QUERY if self.table.query == QUERY else QUERY
        self.edit(query=f"SELECT id FROM ({self.table.query})")

    def edit_key(self) -> None:
        """A person changes the query's first column, by which rows are known."""
        self.table.key = KEYS[1 - KEYS.index(self.table.key)]
        self.edit(query=f"SELECT {self.table.key[0]} FROM ({self.table.query})")

    def edit_broker(self) -> None:
        """A person changes what the Secret says: what is out stays where it is."""
        self.broker = self.brokers[1 - self.brokers.index(self.broker)]
        self.note(f"Secret: {self.broker.name}")

    def edit_backend(self) -> None:
        """A person adds a result backend, or takes it out."""
        if not self.setup.flips:
            self.backend = not self.backend
            self.note(f"result backend: {self.backend}")

    def accept_lost_ledger(self) -> None:
        """A person who sees that nothing is out says that a lost ledger may be forgotten."""
        # Jobs that are out are found by their labels.
        out = self.workers.live() and not self.setup.jobs
        busy = any(operator.cycle for operator in self.operators) or self.store.late
        if not busy and not out and not self._more_may_come():
            self.store.accept()

    def retry(self, key: str) -> None:
        """A person who sees that a row is not done asks for it, or for all that are parked."""
        if not self.table.lags():
            self.store.ask(RETRY, key)

    def force_drain(self) -> None:
        """A person who sees that nothing runs has all slots freed.

        While it is suspended: else nothing becomes of it. Whether an operator is about to send
        something is not for a person to see.
        """
        at_work = self.workers.at_work() or self.cluster.at_work()
        if not at_work and not self._more_may_come():
            self.store.ask(FORCE_DRAIN)

    def _more_may_come(self) -> bool:
        """Whether something that was sent is on its way, or a row that left is still seen."""
        return any(network.late for network in self.networks) or self.table.lags()

    def note(self, event: str) -> None:
        self.trace.append(event)

    def violated(self, promise: str) -> None:
        self.broken = True
        raise Violation(promise + "\n" + "\n".join(self.trace[-200:]))

    # Recovery.

    def recover(self, rounds: int = 300) -> None:
        """All faults stop, workers work: every row must be done, and the ledger come to rest."""
        self.note("all is well from here on")
        while len(self.operators) > 1:
            self.operators.pop().close()
        self._mend()
        quiet = busy = 0
        for _ in range(rounds):
            before = self.store.version
            delay = self.finish_cycle(0)
            assert delay is not None
            self._work_off()
            unwritten = self.store.version == before
            busy = busy + 1 if unwritten and delay < 0.5 else 0
            if busy > 5:
                self.violated("busy: cycles follow each other with nothing to write")
            quiet = quiet + 1 if unwritten else 0
            if quiet >= 3 and self._settled():
                return
            self.advance(max(delay, 0.05))
        left = [name for name, row in self.rows.items() if row.pending]
        items = self.store.status.get("items")
        self.violated(f"liveness: {left} are not done after {rounds} rounds; ledger: {items}")

    def _mend(self) -> None:
        """What a person does who finds launches held."""
        self.edit(concurrency=max(1, self.spec["concurrency"]), suspend=False, interval="30s")
        self.finish_cycle(0)
        self.store.late.clear()
        for network in self.networks:
            network.late.clear()
        # What is out ends, and is seen to, before a person accepts that a ledger was lost.
        self._work_off()
        self.advance(self.setup.lag.total_seconds())
        self.store.accept()
        if self.table.query != QUERY:
            self.edit_query()
        status = self.store.status
        if self.table.key != tuple(status.get("key", self.table.key)):
            self.edit_key()
        endpoints = status.get("endpoints")
        if endpoints and not self.setup.jobs:
            self.backend = "resultBackend" in endpoints
            self.broker = next(b for b in self.brokers if b.name == endpoints["broker"])

    def _work_off(self) -> None:
        self.workers.work_off()
        self.cluster.control()

    def _settled(self) -> bool:
        if self.store.deleting:
            return True
        held = {self._name(item): item for item in self.store.status["items"]}
        stuck = {name for name, item in held.items() if self._for_a_person(item)}
        if sum(held[name]["phase"] != "Parked" for name in stuck) >= self.spec["concurrency"]:
            return True
        resting = {name for name, item in held.items() if self._may_stay(name, item)}
        pending = {name for name in self.table.shown() if self.rows[name].pending}
        return pending <= stuck and held.keys() <= stuck | resting

    def _name(self, item: Mapping[str, Any]) -> str:
        return self.table.name_of(item["key"], self.store.status.get("key", KEYS[0]))

    def _may_stay(self, name: str, item: Mapping[str, Any]) -> bool:
        """Whether an item holds up nothing: it cools, or that its row left can't be told."""
        unseen = self.setup.limit and name not in self.table.shown()
        unfetchable = self.setup.unfetchable and not self.rows[name].pending
        untold = item["phase"] == "Waiting" and bool(unseen or unfetchable)
        return item["phase"] == "Cooling" or untold

    def _for_a_person(self, item: Mapping[str, Any]) -> bool:
        """Whether an item may stay as it is: parked, or held without any means to know."""
        if item["phase"] == "Parked":
            return True
        if item["phase"] not in ("Claimed", "Launched") or "until" in item:
            return False
        if self.setup.jobs:
            return False
        unsure = not self.setup.idempotent or self.now - since(item) >= RESEND_WITHIN
        untold = self.setup.unfetchable or self.setup.limit
        return item["phase"] == "Launched" or unsure or untold > 0


class _Connector:
    def __init__(self, world: World, process: jobs.Process) -> None:
        self._world = world
        self._process = process

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        if await Pause("connect") is Fault.REFUSED:
            self._world.acting().failed = True
            raise ConfigurationError("SecretNotFound", "there is no Secret app")
        if self._world.setup.jobs:
            return Connections(Source(self._world), self._process.open(snapshot, spec))
        return Connections(Source(self._world), Target(self._world))

    def forget(self, ref: Ref) -> None:
        self._process.forget()

    def reread(self, ref: Ref) -> None:
        pass


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.now + self._world.ahead

    def boottime(self) -> float:
        return self._world.boottime
