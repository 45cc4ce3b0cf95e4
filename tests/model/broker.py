"""The brokers of the world, and the target by which one of them is used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from scannerjob.model.facts import Fact, Observation, Send, Sightings, TargetTraits
from scannerjob.model.ledger import Item
from scannerjob.ports import TargetError
from tests.model.basics import NETWORK_DELAY, RESEND_WITHIN, RETENTION, START, Fault, Pause
from tests.model.workers import Message

if TYPE_CHECKING:
    from tests.model.world import World


@dataclass
class LateSend:
    """A message that the network still has."""

    message: Message
    not_after: datetime


class Broker:
    """Where messages are put, and, in a world where that is so, remembered."""

    def __init__(self, world: World, name: str) -> None:
        self.name = name
        self.late: list[LateSend] = []
        self._world = world
        self._records: dict[str, tuple[str, datetime]] = {}

    def delay(self, message: Message) -> None:
        """The network keeps this message for a while, or for good."""
        self._world.workers.doubtful.add(message.id)
        self.late.append(LateSend(message, self._world.now + NETWORK_DELAY))

    def land_late(self, index: int) -> None:
        """A send that the network still had arrives, if it still can."""
        late = self.late.pop(index)
        if self._world.now <= late.not_after:
            self._world.note(f"a late send of {late.message.id} arrives")
            self.put(late.message)

    def put(self, message: Message) -> bool:
        """Put a message; False where its launch was superseded."""
        if self._world.setup.idempotent:
            if state := self._record(message.id):
                self._keep(message.id, state)
                return state != "superseded"
            self._keep(message.id, "queued")
        self._world.workers.get(message)
        return True

    def supersede(self, launch_id: str) -> Observation:
        state = self._record(launch_id) or "superseded"
        self._keep(launch_id, state)
        return Observation(Fact.SUPERSEDED if state == "superseded" else Fact.ACCEPTED)

    def _record(self, launch_id: str) -> str | None:
        state, until = self._records.get(launch_id, (None, START))
        return state if until > self._world.now else None

    def _keep(self, launch_id: str, state: str) -> None:
        self._records[launch_id] = (state, self._world.now + RETENTION)


class Target:
    """The broker and result backend that the Secrets named when a cycle connected."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._broker = world.broker
        self._backend = world.backend

    @property
    def traits(self) -> TargetTraits:
        setup = self._world.setup
        within = RESEND_WITHIN if setup.idempotent else None
        return TargetTraits(self._backend, within, republish=setup.republish)

    @property
    def endpoints(self) -> Mapping[str, str]:
        backend = {"resultBackend": "backend"} if self._backend else {}
        return {"broker": self._broker.name, **backend}

    async def check(self) -> None:
        await self._may_fail("target.check")

    async def observe(self, ids: Collection[str]) -> Sightings:
        await self._may_fail("target.observe")
        results = self._world.workers.results if self._backend else {}
        hinted, self._world.hinted = self._world.hinted, False
        seen = {i: Observation(results[i]) for i in ids if i in results}
        await Pause("target.observe: answered")
        return Sightings(seen, hinted=hinted)

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        seen = {}
        self._world.judge_sends(sends)
        messages = [self._message(send) for send in sends]
        for message in messages:
            fault = await Pause(f"target.launch {message.id}")
            late = self._world.boottime >= deadline
            fact = Fact.NOT_SENT if late else self._hand_over(message, fault)
            seen[message.id] = Observation(fact, str(fault))
        await Pause("target.launch: answered")
        return seen

    def _message(self, send: Send) -> Message:
        name = str(send.row.values["id"])
        return Message(
            id=send.item.id,
            row=name,
            generation=self._world.rows[name].generation,
            expires_at=send.expires_at,
            time_limit=send.time_limit,
            reports=self._backend,
        )

    def _hand_over(self, message: Message, fault: Fault) -> Fact:
        match fault:
            case Fault.REFUSED:
                return Fact.NOT_SENT
            case Fault.LATE:
                self._broker.delay(message)
                return Fact.UNCERTAIN
            case Fault.LOST:
                return Fact.UNCERTAIN
            case Fault.LANDED:
                self._world.workers.doubtful.add(message.id)
                self._broker.put(message)
                return Fact.UNCERTAIN
            case _:
                return Fact.ACCEPTED if self._broker.put(message) else Fact.SUPERSEDED

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        fault = await Pause("target.supersede")
        if fault in (Fault.REFUSED, Fault.LOST, Fault.LATE):
            self._fail()
        idempotent = self._world.setup.idempotent
        states = {i: self._broker.supersede(i) for i in ids} if idempotent else {}
        await Pause("target.supersede: answered")
        if fault is Fault.LANDED:
            self._fail()
        return states

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        pass

    async def _may_fail(self, where: str) -> None:
        if await Pause(where) not in (Fault.NONE, Fault.STALE):
            self._fail()

    def _fail(self) -> None:
        self._world.acting().failed = True
        raise TargetError("BrokerUnreachable", "no answer")
