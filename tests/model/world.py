"""A world for the cycle to run in: a ledger, a table, a broker and workers, all of which may fail.

Nothing here takes time or chance of its own. Every call of a port stops twice, before it has its
effect and before it is answered; whoever drives the world decides when it goes on, what goes wrong,
and what happens in between. The world is also the judge: it raises `Violation` when a promise is
broken, by what really happened to rows and messages, never by what a ledger says of them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from scannerjob.model.facts import Fact, Observation, Send, TargetTraits
from scannerjob.model.limits import LATEST_SEND, SEND_WITHIN
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import (
    ConfigurationError,
    ConflictError,
    Connections,
    Ref,
    Snapshot,
    SourceError,
    TargetError,
    UnknownOutcomeError,
)
from scannerjob.scan import Scanner

REF = Ref("docs", "pages")
START = datetime(2030, 1, 1, tzinfo=UTC)
# How long a target that knows sends again keeps its record of one, and is asked to rely on it.
RETENTION = timedelta(hours=24)
RESEND_WITHIN = RETENTION - timedelta(hours=1)
NETWORK_DELAY = LATEST_SEND - SEND_WITHIN


class Violation(AssertionError):
    """A promise was broken."""


class Fault(StrEnum):
    """What goes wrong with one call. A port takes what makes no sense to it for NONE."""

    NONE = "none"
    REFUSED = "refused"  # it fails, and says so, and nothing happened
    LOST = "lost"  # no answer, and nothing happened
    LANDED = "landed"  # no answer, but it happened
    LATE = "late"  # no answer, and it may happen later
    STALE = "stale"  # a read gives what was there before the last write


@dataclass(frozen=True)
class Setup:
    """A kind of world.

    `idempotent`: a second send of an id puts no second message. `outcomes`: workers report to a
    result backend. `lifetime`: messages expire, and tasks are killed at their deadline; without it
    a launch whose worker died without a word needs a person. `loses_ledgers`: its status may
    vanish, which only a lifetime mends.
    """

    idempotent: bool = True
    outcomes: bool = False
    lifetime: bool = True
    loses_ledgers: bool = False
    cap: int = 2
    rows: int = 4
    attempts: int = 3
    cooldown: str = "0s"


@dataclass
class RowState:
    """A row of the table. A row that comes back to be done again is of a new generation."""

    generation: int = 1
    pending: bool = True
    done_by_worker: bool = False


@dataclass
class Message:
    """A message on the broker, and the execution it became."""

    id: str
    key: str
    generation: int
    expires_at: datetime | None
    time_limit: timedelta | None
    state: str = "queued"
    started: datetime | None = None


@dataclass
class LateSend:
    """A send that the network still has."""

    send: Send
    generation: int
    not_after: datetime


class Pause:
    """Where a call stops; resumed with the fault that it is to have."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __await__(self) -> Generator[str, Fault, Fault]:
        return (yield self.where)


@dataclass
class Operator:
    """One process: a scanner and its memory, and the cycle it is in the midst of, if any."""

    scanner: Scanner
    cycle: Coroutine[str, Fault, float | None] | None = None
    where: str = "idle"
    delay: float | None = 0.0
    failed: bool = False
    claimed: dict[str, int] = field(default_factory=dict)


class World:
    """Everything outside the operators, and the operators."""

    def __init__(self, setup: Setup, operators: int = 2) -> None:
        self.setup = setup = replace(setup, lifetime=setup.lifetime or setup.loses_ledgers)
        self.trace: list[str] = []
        self.broken = False
        self.now = START
        self.rows = {f"[{n}]": RowState() for n in range(setup.rows)}
        self.spec = _spec(setup)
        self.caps = [setup.cap]
        self.query = "query"
        self.store = Store(self)
        self.broker = Broker(self)
        self._ids = 0
        self._acting: Operator | None = None
        self.operators = [self._process() for _ in range(operators)]

    # Operators.

    def _process(self) -> Operator:
        return Operator(Scanner(REF, self.store, _Connector(self), _Clock(self), self.new_id))

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
        return self.operators[n].delay

    def crash(self, n: int) -> None:
        """Operator n is killed where it stands; another process takes its place."""
        self.note(f"operator {n} is killed at {self.operators[n].where}")
        cycle = self.operators[n].cycle
        if cycle is not None:
            cycle.close()
        self.operators[n] = self._process()

    def close(self) -> None:
        """End cycles that are under way."""
        for operator in self.operators:
            if operator.cycle is not None:
                operator.cycle.close()

    def acting(self) -> Operator:
        assert self._acting is not None
        return self._acting

    # Time, rows and people.

    @property
    def boottime(self) -> float:
        return (self.now - START).total_seconds() + 1000

    def advance(self, seconds: float) -> None:
        """Let time pass; what has its deadline within it, ends."""
        self.now += timedelta(seconds=seconds)
        self.note(f"{seconds:g} s pass: it is {self.now:%d %H:%M:%S}")
        self.broker.time_passed()

    def finish_row(self, key: str) -> None:
        """Somebody else does a row's work."""
        self.note(f"row {key} leaves")
        self.rows[key].pending = False

    def return_row(self, key: str) -> None:
        """A row is to be done again."""
        row = self.rows[key]
        if not row.pending:
            self.note(f"row {key} comes back")
            self.rows[key] = RowState(row.generation + 1)

    def edit(self, **fields: Any) -> None:
        """A person changes the spec."""
        self.note(f"spec: {fields}")
        self.spec = {**self.spec, **fields}
        self.caps.append(self.spec["concurrency"])
        self.store.spec_changed()

    def edit_lifetime(self, lifetime: bool) -> None:
        """A person sets `expires` and `deadline`, or takes them out."""
        self.spec.pop("deadline", None)
        self.edit(**_spec(replace(self.setup, lifetime=lifetime, cap=self.spec["concurrency"])))

    def edit_query(self) -> None:
        """A person changes the query; it still finds the same rows."""
        self.query = "another query" if self.query == "query" else "query"
        self.edit(query=f"SELECT id FROM ({self.query})")

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
            self.operators.pop()
        cap = max(1, self.spec["concurrency"])
        self.edit(concurrency=cap, suspend=False, interval="30s")
        self.broker.late.clear()
        self.store.late.clear()
        # What is out ends before a person accepts that a ledger was lost.
        self.broker.work_off()
        self.store.requests = {"accept-lost-ledger": "accepted"}
        quiet = busy = 0
        for _ in range(rounds):
            before = self.store.version
            delay = self.finish_cycle(0)
            assert delay is not None
            self.broker.work_off()
            unwritten = self.store.version == before
            busy = busy + 1 if unwritten and delay < 0.5 else 0
            if busy > 5:
                self.violated("busy: cycles follow each other with nothing to write")
            quiet = quiet + 1 if unwritten else 0
            if quiet >= 3 and self._settled():
                return
            self.advance(max(delay, 0.05))
        left = [key for key, row in self.rows.items() if row.pending]
        items = self.store.status.get("items")
        self.violated(f"liveness: {left} are not done after {rounds} rounds; ledger: {items}")

    def _settled(self) -> bool:
        held = {item["key"]: item for item in self.store.status["items"]}
        stuck = {key for key, item in held.items() if self._for_a_person(item)}
        if sum(held[key]["phase"] != "Parked" for key in stuck) >= self.spec["concurrency"]:
            return True
        cooling = {key for key, item in held.items() if item["phase"] == "Cooling"}
        pending = {key for key, row in self.rows.items() if row.pending}
        return pending <= stuck and held.keys() <= stuck | cooling

    def _for_a_person(self, item: Mapping[str, Any]) -> bool:
        """Whether an item may stay as it is: parked, or held without any means to know."""
        if item["phase"] == "Parked":
            return True
        if item["phase"] not in ("Claimed", "Launched") or "until" in item:
            return False
        age = self.now - datetime.fromisoformat(item["since"])
        unsure = not self.setup.idempotent or age >= RESEND_WITHIN
        return item["phase"] == "Launched" or unsure


def _spec(setup: Setup) -> dict[str, Any]:
    secret = {"urlSecretRef": {"name": "app", "key": "url"}}
    life: dict[str, Any] = {"deadline": "60s"} if setup.lifetime else {}
    celery: dict[str, Any] = {"broker": secret, "task": "docs.make_pages"}
    return {
        "database": secret,
        "query": "SELECT id FROM pdf WHERE NOT done",
        "interval": "1s",
        "concurrency": setup.cap,
        "cooldown": setup.cooldown,
        "retry": {"attempts": setup.attempts, "backoff": "10s"},
        "celery": celery | ({"expires": "60s"} if setup.lifetime else {}),
        **life,
    }


class Store:
    """A ledger store with a true compare-and-swap, whose answers may be lost, late or stale."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.version = 1
        self.generation = 1
        self.status: dict[str, Any] = {}
        self.marked = False
        self.requests: dict[str, str] = {}
        self.late: list[tuple[Snapshot, str]] = []
        self._before: Snapshot | None = None
        self._closed: dict[str, str] = {}

    async def read(self, ref: Ref) -> Snapshot | None:
        fault = await Pause("store.read")
        if fault not in (Fault.NONE, Fault.STALE):
            self._world.acting().failed = True
            raise UnknownOutcomeError("StoreUnreachable", "no answer")
        snapshot = self._before if fault is Fault.STALE and self._before else self._snapshot()
        await Pause("store.read: answered")
        return snapshot

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        return await self._change(snapshot, json.dumps(status))

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        return await self._change(snapshot, "")

    async def _change(self, snapshot: Snapshot, status: str) -> Snapshot:
        fault = await Pause("store.write" if status else "store.mark")
        operator = self._world.acting()
        if fault in (Fault.NONE, Fault.LANDED, Fault.STALE):
            try:
                self._land(snapshot, status, operator)
            except ConflictError:
                operator.failed = True
                raise
        elif fault is Fault.LATE:
            self.late.append((snapshot, status))
        written = self._snapshot()
        await Pause("store.write: answered")
        if fault in (Fault.NONE, Fault.STALE):
            return written
        operator.failed = True
        raise UnknownOutcomeError("StoreUnreachable", "no answer")

    def land_late(self, index: int) -> None:
        """A write that the network still had arrives."""
        snapshot, status = self.late.pop(index)
        self._world.note("a late write arrives")
        try:
            self._land(snapshot, status, None)
        except ConflictError:
            self._world.note("... and conflicts")

    def wipe(self) -> None:
        """The status is lost, as a backup restored without it loses it."""
        self._world.note("the status is wiped")
        self._bump()
        self.status = {}

    def spec_changed(self) -> None:
        self._bump()
        self.generation += 1

    def _land(self, snapshot: Snapshot, status: str, operator: Operator | None) -> None:
        if snapshot.version != str(self.version):
            raise ConflictError
        self._bump()
        if not status:
            self.marked = True
            return
        before, self.status = self.status, json.loads(status)
        self._judge(before, self.status)
        if operator is not None:
            sent_before = {item["id"]: item["sends"] for item in before.get("items", ())}
            now = {item["id"]: item["sends"] for item in self.status.get("items", ())}
            operator.claimed = {i: n for i, n in now.items() if sent_before.get(i) != n}

    def _bump(self) -> None:
        self._before = self._snapshot()
        self.version += 1

    def _snapshot(self) -> Snapshot:
        return Snapshot(
            ref=REF,
            uid="uid",
            generation=self.generation,
            spec=self._world.spec,
            status=json.loads(json.dumps(self.status)),
            version=str(self.version),
            marked=self.marked,
            requests=self.requests,
        )

    def _judge(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """What every write must keep: the cap, and counters that tell each outcome once."""
        world = self._world
        old, new = _outstanding(before), _outstanding(after)
        if len(new) > max(len(old), world.spec["concurrency"]):
            world.violated(f"cap: a write brings {len(new)} launches")
        if len({item["key"] for item in after["items"]}) < len(after["items"]):
            world.violated("a row is remembered twice")
        if reopened := new.keys() & self._closed.keys():
            world.violated(f"{reopened} are outstanding again")
        launched = sum(item["phase"] == "Launched" for item in new.values())
        if after["launched"] != _ended(after) + launched:
            world.violated("counters: launched is not succeeded + failed + lost + outstanding")
        if not before:
            return
        left = old.keys() - new.keys()
        counted = _ended(after) - _ended(before)
        landed = sum(i in world.broker.landed for i in left)
        if not landed <= counted <= len(left):
            world.violated(f"counters: {counted} ends for {landed} of {len(left)} launches")
        self._closed |= {i: old[i]["key"] for i in left}
        for launch_id in new.keys() - old.keys():
            row = world.rows[new[launch_id]["key"]]
            if row.done_by_worker:
                world.violated(f"{launch_id} launches a finished row")

    def is_closed(self, launch_id: str) -> bool:
        """Whether the ledger once had this launch and let it go."""
        return launch_id in self._closed


def _outstanding(status: Mapping[str, Any]) -> dict[str, Any]:
    phases = ("Claimed", "Launched")
    return {item["id"]: item for item in status.get("items", ()) if item["phase"] in phases}


def _ended(status: Mapping[str, Any]) -> int:
    return int(status["succeeded"]) + int(status["failed"]) + int(status["lost"])


class Broker:
    """A target, its workers and their result backend."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.messages: list[Message] = []
        self.late: list[LateSend] = []
        self.landed: set[str] = set()
        self.executed: set[str] = set()
        self.results: dict[str, Fact] = {}
        self._records: dict[str, tuple[str, datetime]] = {}

    # The port.

    @property
    def traits(self) -> TargetTraits:
        setup = self._world.setup
        return TargetTraits(setup.outcomes, RESEND_WITHIN if setup.idempotent else None)

    @property
    def endpoints(self) -> Mapping[str, str]:
        backend = {"resultBackend": "backend"} if self._world.setup.outcomes else {}
        return {"broker": "broker", **backend}

    async def check(self) -> None:
        await self._may_fail("target.check")

    async def observe(self, ids: Collection[str]) -> Mapping[str, Observation]:
        await self._may_fail("target.observe")
        seen = {i: Observation(self.results[i]) for i in ids if i in self.results}
        await Pause("target.observe: answered")
        return seen

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        operator, seen = self._world.acting(), {}
        self._judge_launch(operator, sends)
        generations = {send.row.key: self._world.rows[send.row.key].generation for send in sends}
        for send in sends:
            fault = await Pause(f"target.launch {send.item.id}")
            late = self._world.boottime >= deadline
            fact = Fact.NOT_SENT if late else self._hand_over(send, fault, generations)
            seen[send.item.id] = Observation(fact, str(fault))
        await Pause("target.launch: answered")
        return seen

    def _hand_over(self, send: Send, fault: Fault, generations: Mapping[str, int]) -> Fact:
        match fault:
            case Fault.REFUSED:
                return Fact.NOT_SENT
            case Fault.LATE:
                until = self._world.now + NETWORK_DELAY
                self.late.append(LateSend(send, generations[send.row.key], until))
                return Fact.UNCERTAIN
            case Fault.LOST:
                return Fact.UNCERTAIN
            case Fault.LANDED:
                self._put(send, generations[send.row.key])
                return Fact.UNCERTAIN
            case _:
                put = self._put(send, generations[send.row.key])
                return Fact.ACCEPTED if put else Fact.SUPERSEDED

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        fault = await Pause("target.supersede")
        if fault in (Fault.REFUSED, Fault.LOST, Fault.LATE):
            self._world.acting().failed = True
            raise TargetError("BrokerUnreachable", "no answer")
        states = {i: self._supersede(i) for i in ids} if self._world.setup.idempotent else {}
        await Pause("target.supersede: answered")
        if fault is Fault.LANDED:
            self._world.acting().failed = True
            raise TargetError("BrokerUnreachable", "no answer")
        return states

    def _supersede(self, launch_id: str) -> Observation:
        state = self._record(launch_id) or "superseded"
        self._keep(launch_id, state)
        return Observation(Fact.SUPERSEDED if state == "superseded" else Fact.ACCEPTED)

    async def _may_fail(self, where: str) -> None:
        if await Pause(where) not in (Fault.NONE, Fault.STALE):
            self._world.acting().failed = True
            raise TargetError("BrokerUnreachable", "no answer")

    def _judge_launch(self, operator: Operator, sends: Sequence[Send]) -> None:
        if sends and operator.failed:
            self._world.violated("a launch in a cycle in which something was unknown")
        for send in sends:
            if operator.claimed.get(send.item.id) != send.item.sends:
                self._world.violated(f"{send.item.id} is sent without a claim won in this cycle")

    # The broker.

    def land_late(self, index: int) -> None:
        """A send that the network still had arrives, if it still can."""
        late = self.late.pop(index)
        if self._world.now <= late.not_after:
            self._world.note(f"a late send of {late.send.item.id} arrives")
            self._put(late.send, late.generation)

    def _record(self, launch_id: str) -> str | None:
        state, until = self._records.get(launch_id, (None, START))
        return state if until > self._world.now else None

    def _keep(self, launch_id: str, state: str) -> None:
        self._records[launch_id] = (state, self._world.now + RETENTION)

    def _put(self, send: Send, generation: int) -> bool:
        """Put a message; False where the launch was superseded."""
        launch_id = send.item.id
        if self._world.setup.idempotent:
            if state := self._record(launch_id):
                self._keep(launch_id, state)
                return state != "superseded"
            self._keep(launch_id, "queued")
        self.landed.add(launch_id)
        message = Message(launch_id, send.row.key, generation, send.expires_at, send.time_limit)
        self.messages.append(message)
        if not self._expired(message) and self._world.store.is_closed(launch_id):
            self._world.violated(f"a message of {launch_id} arrives after its slot was freed")
        self._judge_live()
        return True

    def _expired(self, message: Message) -> bool:
        return message.expires_at is not None and message.expires_at <= self._world.now

    def is_live(self, message: Message) -> bool:
        """Whether a message may still do the work that it was sent for."""
        row = self._world.rows[message.key]
        wanted = row.pending and row.generation == message.generation
        waits = message.state == "queued" and not self._expired(message)
        return wanted and (waits or message.state == "running")

    def _judge_live(self) -> None:
        live = [message for message in self.messages if self.is_live(message)]
        keys = [message.key for message in live]
        if len(set(keys)) < len(keys):
            self._world.violated(f"two live launches of one row: {[m.id for m in live]}")
        if len(live) > max(self._world.caps):
            self._world.violated(f"cap: {len(live)} launches are live")

    # Workers. They commit their row before they report.

    def start(self, message: Message) -> None:
        """A worker takes a message."""
        self._world.note(f"a worker takes {message.id}")
        if self._expired(message):
            self._end(message, Fact.NOT_STARTED)
            return
        row = self._world.rows[message.key]
        if self._world.setup.idempotent and message.id in self.executed:
            self._world.violated(f"{message.id} is executed twice")
        if row.done_by_worker and row.generation == message.generation:
            self._world.violated(f"{message.id} does a finished row again")
        self.executed.add(message.id)
        message.state, message.started = "running", self._world.now
        self.results[message.id] = Fact.STARTED

    def commit(self, message: Message) -> None:
        """Its work is done and committed; nothing is reported yet."""
        row = self._world.rows[message.key]
        self._world.note(f"{message.id} commits")
        if row.generation == message.generation:
            row.pending, row.done_by_worker = False, True

    def report(self, message: Message, fact: Fact) -> None:
        """It says how it ended."""
        self._world.note(f"{message.id} ends: {fact}")
        self._end(message, fact)

    def die(self, message: Message) -> None:
        """Its worker is killed, and says nothing."""
        self._world.note(f"{message.id} dies")
        message.state = "gone"

    def time_passed(self) -> None:
        """Messages past their time limit are killed."""
        for message in self.messages:
            started, limit = message.started, message.time_limit
            overdue = started and limit and started + limit <= self._world.now
            if message.state == "running" and overdue:
                self.report(message, Fact.FAILED)

    def _end(self, message: Message, fact: Fact) -> None:
        message.state = "gone"
        self.results[message.id] = fact

    def at_work(self) -> list[Message]:
        return self.in_state("queued") + self.in_state("running")

    def in_state(self, state: str) -> list[Message]:
        return [message for message in self.messages if message.state == state]

    def work_off(self) -> None:
        """Healthy workers do all there is."""
        for message in self.in_state("queued"):
            self.start(message)
        for message in self.in_state("running"):
            self.commit(message)
            self.report(message, Fact.SUCCEEDED)


class _Source:
    """The table, seen through the query."""

    warnings: Sequence[str] = ()

    def __init__(self, world: World) -> None:
        self._world = world

    @property
    def query_hash(self) -> str:
        return self._world.query

    async def scan(self, limit: int) -> Rows:
        await self._may_fail("source.scan")
        keys = [key for key, row in self._world.rows.items() if row.pending]
        found = tuple(Row(key, {"id": key}) for key in keys[:limit])
        rows = Rows(self.query_hash, found, complete=len(keys) < limit)
        await Pause("source.scan: answered")
        return rows

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        await self._may_fail("source.fetch")
        found = [key for key in keys if self._world.rows[key].pending]
        fetched = tuple(Row(key, {"id": key}) for key in found)
        rows = replace(rows, fetched=fetched, absent=frozenset(keys) - frozenset(found))
        await Pause("source.fetch: answered")
        return rows

    async def _may_fail(self, where: str) -> None:
        if await Pause(where) not in (Fault.NONE, Fault.STALE):
            self._world.acting().failed = True
            raise SourceError("DatabaseUnreachable", "no answer")


class _Connector:
    def __init__(self, world: World) -> None:
        self._world = world

    async def connect(self, ref: Ref, spec: ScannerJobSpec) -> Connections:
        if await Pause("connect") is Fault.REFUSED:
            self._world.acting().failed = True
            raise ConfigurationError("SecretNotFound", "there is no Secret app")
        return Connections(_Source(self._world), self._world.broker)

    def forget(self, ref: Ref) -> None:
        pass


class _Clock:
    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return self._world.now

    def boottime(self) -> float:
        return self._world.boottime
