"""The ledger store of the world, which judges every write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scannerjob.model.limits import LATEST_SEND
from scannerjob.model.requests import ACCEPT_LOST_LEDGER
from scannerjob.ports import ConflictError, Ref, Snapshot, UnknownOutcomeError
from tests.model.basics import REF, START, Fault, Pause

if TYPE_CHECKING:
    from tests.model.world import Operator, World

# Of a world that loses ledgers: `expires` and `deadline` of all that may be out.
LIFETIME = timedelta(seconds=120)


class Store:
    """A ledger store with a true compare-and-swap, whose answers may be lost, late or stale."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.version = 1
        self.generation = 1
        self.status: dict[str, Any] = {}
        self.marked = False
        self.deleting = False
        self.requests: dict[str, str] = {}
        self.late: list[tuple[Snapshot, str]] = []
        self._before: Snapshot | None = None
        self._closed: set[str] = set()
        # By which columns the row of a launch was known.
        self._keys: dict[str, tuple[str, ...]] = {}
        self._lost_until = START
        # When an end was last counted of which a worker was the cause.
        self._last_end = START

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

    # What a person does.

    def wipe(self) -> None:
        """The status is lost, as a backup restored without it loses it."""
        self._world.note("the status is wiped")
        self._bump()
        self.status = {}
        self._world.cluster.end_forgotten()
        if self.marked:
            life = LATEST_SEND if self._world.setup.jobs else LIFETIME
            self._lost_until = self._world.now + life

    def accept(self) -> None:
        """A person says that nothing is out of which a lost ledger would tell."""
        self.ask(ACCEPT_LOST_LEDGER)
        self._lost_until = START

    def ask(self, name: str, what: str = "") -> None:
        """A person asks for something, by an annotation."""
        self._bump()
        self.requests = {**self.requests, name: f"nonce-{self.version} {what}".strip()}
        self._world.note(f"asked for: {self.requests}")

    def delete(self) -> None:
        """The object is to go, and is kept by somebody else's finalizer."""
        self._world.note("the object is deleted")
        self._bump()
        self.deleting = True

    def spec_changed(self) -> None:
        self._bump()
        self.generation += 1

    def outstanding(self) -> Mapping[str, Any]:
        """The items that hold a slot, by launch id."""
        return _outstanding(self.status)

    def is_closed(self, launch_id: str) -> bool:
        """Whether the ledger once had this launch and let it go."""
        return launch_id in self._closed

    def _land(self, snapshot: Snapshot, status: str, operator: Operator | None) -> None:
        if snapshot.version != str(self.version):
            raise ConflictError
        self._bump()
        if not status:
            self.marked = True
            return
        before, self.status = self.status, json.loads(status)
        if "items" not in self.status:
            # It could not be connected yet, and says so.
            self._judge_unbegun(before)
            return
        sends = _claims(self.status).items() - _sends(before).items()
        self._judge_ends(before, self.status)
        self._judge_claims({launch_id for launch_id, _ in sends} - _sends(before).keys())
        self._judge_rests(before)
        self._judge_first_attempts(before)
        if sends:
            self._judge_time()
            self._judge_jobs()
        if operator is not None:
            operator.claimed = dict(sends)

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
            deleting=self.deleting,
            requests=self.requests,
        )

    # What every write must keep.

    def _judge_unbegun(self, before: Mapping[str, Any]) -> None:
        if "items" in before:
            self._world.violated("a ledger is written away")

    def _judge_time(self) -> None:
        if self.deleting:
            self._world.violated("an object that is deleted launches")
        if self._world.now < self._lost_until:
            self._world.violated("a launch before the loss of the ledger was accepted")

    def _judge_jobs(self) -> None:
        if self._world.cluster.predecessor_runs():
            self._world.violated("a launch while a Job of an earlier ScannerJob runs")
        if unrecorded := self._world.cluster.unrecorded(self.outstanding()):
            self._world.violated(f"a launch while Jobs of {unrecorded} run unrecorded")

    def _judge_claims(self, claims: set[str]) -> None:
        """The cap, and that no row is claimed twice or anew."""
        world, items = self._world, self.status["items"]
        if len({item["key"] for item in items}) < len(items):
            world.violated("a row is remembered twice")
        if reopened := self.outstanding().keys() & self._closed:
            world.violated(f"{reopened} are outstanding again")
        for item in items:
            if item["id"] in claims and self._is_done(item):
                world.violated(f"{item['id']} launches a finished row")

    def _judge_rests(self, before: Mapping[str, Any]) -> None:
        """That a row which left is not seen at once costs no attempt: the cooldown is longer."""
        known = {item["id"] for item in before.get("items", ()) if not _had_slot(item)}
        for item in self.status["items"]:
            still_matches = item.get("reason") == "StillMatches" and item["id"] not in known
            if still_matches and self._is_done(item):
                self._world.violated(f"{item['key']} is done, and said to match still")

    def _judge_first_attempts(self, before: Mapping[str, Any]) -> None:
        """That a row which a launch has left undone is not launched as if it were new.

        By another key it is another row.
        """
        key, keys = tuple(self.status.get("key", ())), self._keys
        self._keys = {item["id"]: self._keys.get(item["id"], key) for item in self.status["items"]}
        if before.get("queryHash") != self.status.get("queryHash"):
            return
        known = {each["key"]: each["id"] for each in before.get("items", ()) if _had_slot(each)}
        for item in self.status["items"]:
            launch_id = known.get(item["key"], item["id"])
            is_new = item["attempt"] == 1 and "reason" not in item
            same_key = keys.get(launch_id) == key
            if item["id"] != launch_id and is_new and same_key and self._has_failed(launch_id):
                self._world.violated(f"{item['key']} matches still, and is launched as a new row")

    def _has_failed(self, launch_id: str) -> bool:
        """Whether this launch has ended, and its row has matched ever since."""
        messages = [each for each in self._world.workers.messages if each.id == launch_id]
        rows = [(self._world.rows[each.row], each) for each in messages if each.result]
        return any(row.pending and row.generation == each.generation for row, each in rows)

    def _judge_lost(self, launch: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """That a launch which nobody began costs no attempt while nobody worked."""
        item = next((each for each in after["items"] if each["key"] == launch["key"]), None)
        spent = item and (item["phase"] == "Parked" or item["attempt"] > launch["attempt"])
        began = launch["id"] in self._world.workers.executed or self._last_end >= since(launch)
        if item and spent and item.get("reason") == "Lost" and not began:
            self._world.violated(f"{launch['id']} costs an attempt, and nobody worked meanwhile")

    def _is_done(self, item: Mapping[str, Any]) -> bool:
        name = self._world.table.name_of(item["key"], self.status.get("key", ("id",)))
        done = self._world.rows[name].done_by_worker
        return done and not self._world.workers.is_repeated(name)

    def _judge_ends(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """The cap, and counters that tell each outcome once."""
        world = self._world
        old, new = _outstanding(before), _outstanding(after)
        # Jobs that ran without a slot get one, whatever the cap is.
        taken_in = new.keys() - old.keys() - _claims(after).keys()
        if len(new) - len(taken_in) > max(len(old), world.spec["concurrency"]):
            world.violated(f"cap: a write brings {len(new)} launches")
        launched = {i for i, item in new.items() if item["phase"] == "Launched"}
        if unlaunched := launched - world.workers.landed:
            world.violated(f"{unlaunched} count as launched, but never were")
        if after["launched"] != _ended(after) + len(launched):
            world.violated("counters: launched is not succeeded + failed + lost + outstanding")
        if "items" not in before:
            return
        left = old.keys() - new.keys()
        counted = _ended(after) - _ended(before)
        landed = len(left & world.workers.landed - world.cluster.by_hand)
        if not landed <= counted <= len(left):
            world.violated(f"counters: {counted} ends for {landed} of {len(left)} launches")
        if _worked(after) > _worked(before):
            self._last_end = world.now
        for launch_id in left:
            world.workers.judge_end(launch_id)
            self._judge_lost(old[launch_id], after)
        self._closed |= left


def since(item: Mapping[str, Any]) -> datetime:
    """When an item was claimed, or changed its phase."""
    return datetime.fromisoformat(item["since"])


def _sends(status: Mapping[str, Any]) -> dict[str, int]:
    return {launch_id: item["sends"] for launch_id, item in _outstanding(status).items()}


def _claims(status: Mapping[str, Any]) -> dict[str, int]:
    """The sends of those that are not known to have arrived."""
    claimed = {i for i, item in _outstanding(status).items() if item["phase"] == "Claimed"}
    return {i: sends for i, sends in _sends(status).items() if i in claimed}


def _outstanding(status: Mapping[str, Any]) -> dict[str, Any]:
    phases = ("Claimed", "Launched")
    return {item["id"]: item for item in status.get("items", ()) if item["phase"] in phases}


def _had_slot(item: Mapping[str, Any]) -> bool:
    """Whether an item stands for a launch, one that is out or one that succeeded."""
    return item["phase"] in ("Claimed", "Launched", "Cooling")


def _worked(status: Mapping[str, Any]) -> int:
    return int(status.get("succeeded", 0)) + int(status.get("failed", 0))


def _ended(status: Mapping[str, Any]) -> int:
    return int(status["succeeded"]) + int(status["failed"]) + int(status["lost"])
