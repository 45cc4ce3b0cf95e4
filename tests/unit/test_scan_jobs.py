"""What the cycle does with a target that sees all its launches: Jobs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest

from scannerjob.model.facts import Fact, Observation, Send, Sightings, Stray, TargetTraits
from scannerjob.model.ledger import Item, parse_time
from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import Connections, Ref, Snapshot, TargetError
from scannerjob.scan import Scanner
from scannerjob.stores.memory import MemoryStore
from tests.unit.cases import NOW, document, rows
from tests.unit.job_cases import template


class Jobs:
    """A target: `there` are its launches, `bad` says what is wrong with its template."""

    traits = TargetTraits(tells_outcomes=True, resend_within=timedelta.max, sees_all=True)
    endpoints: Mapping[str, str] = {"kubernetes": "jobs"}

    def __init__(self) -> None:
        self.checks = 0
        self.bad = ""
        self.there: dict[str, Observation] = {}
        self.strays: tuple[Stray, ...] = ()
        self.cleaned: list[tuple[list[str], list[str]]] = []

    async def check(self) -> None:
        self.checks += 1
        if self.bad:
            raise TargetError("InvalidTemplate", self.bad)

    async def observe(self, ids: Collection[str]) -> Sightings:
        return Sightings({i: self.there[i] for i in ids if i in self.there}, self.strays)

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        seen = {send.item.id: Observation(Fact.ACCEPTED) for send in sends}
        self.there |= seen
        return seen

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        return {}

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        self.cleaned.append((list(outstanding), [item.id for item in settled]))


class Table:
    """A row source."""

    query_hash = "q"
    warnings: Sequence[str] = ()
    plan = None

    def __init__(self) -> None:
        self.keys = ["a"]

    async def scan(self, limit: int) -> Rows:
        return rows(*self.keys)

    async def fetch(self, found: Rows, keys: Collection[str]) -> Rows:
        return found


class Operator:
    """One ScannerJob that launches Jobs, and the process that runs its cycles; also its clock."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.jobs = Jobs()
        self.table = Table()
        self.time = 0.0
        self.edit()
        self.restart()

    def now(self) -> datetime:
        return NOW + timedelta(seconds=self.time)

    def boottime(self) -> float:
        return 1000 + self.time

    def edit(self, **fields: Any) -> None:
        spec = document(celery=None, job={"template": template()}, **fields)
        del spec["celery"]
        metadata = {"namespace": "docs", "name": "pages"}
        self.ref = asyncio.run(self.store.apply({"metadata": metadata, "spec": spec}))

    def restart(self) -> None:
        ids = iter(f"id-{number}" for number in range(1, 99))
        self.scanner = Scanner(self.ref, self.store, self, self, lambda: next(ids))

    def cycle(self, seconds: float = 30) -> None:
        asyncio.run(self.scanner.cycle())
        self.time += seconds

    @property
    def status(self) -> Mapping[str, Any]:
        snapshot = asyncio.run(self.store.read(self.ref))
        assert snapshot is not None
        return snapshot.status

    def condition(self, kind: str) -> Mapping[str, Any]:
        return next(each for each in self.status["conditions"] if each["type"] == kind)

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        return Connections(self.table, self.jobs)

    def forget(self, ref: Ref) -> None:
        pass

    def reread(self, ref: Ref) -> None:
        pass


@pytest.fixture
def operator() -> Operator:
    return Operator()


class TestTheTemplateIsChecked:
    def test_once_for_each_generation(self, operator: Operator) -> None:
        for _ in range(3):
            operator.cycle()
        assert operator.jobs.checks == 1

        operator.edit(interval="1m")
        for _ in range(3):
            operator.cycle()
        assert operator.jobs.checks == 2

    def test_not_again_by_the_next_process(self, operator: Operator) -> None:
        operator.cycle()
        operator.restart()
        operator.cycle()
        assert operator.jobs.checks == 1

        operator.edit(interval="1m")
        operator.restart()
        operator.cycle()
        assert operator.jobs.checks == 2

    def test_until_it_is_good_and_nothing_is_launched_before(self, operator: Operator) -> None:
        operator.jobs.bad = "spec.job.template.spec.imgae"
        for checks in (1, 2):
            operator.cycle()
            assert operator.jobs.checks == checks
        ready = operator.condition("Ready")
        assert (ready["status"], ready["reason"]) == ("False", "InvalidTemplate")
        assert ready["message"] == "spec.job.template.spec.imgae"
        assert operator.status["items"] == []

        operator.jobs.bad = ""
        operator.cycle()
        assert [item["key"] for item in operator.status["items"]] == ["a"]

    def test_while_what_is_out_is_seen_to_end(self, operator: Operator) -> None:
        operator.cycle()
        operator.cycle()
        operator.jobs.bad = "spec.job.template.spec.imgae"
        operator.edit(interval="1m")
        operator.jobs.there["id-1"] = Observation(Fact.SUCCEEDED)
        operator.table.keys = []

        operator.cycle()

        assert (operator.status["succeeded"], operator.status["active"]) == (1, 0)


def test_a_lost_ledger_launches_nothing_until_no_create_can_be_on_its_way(
    operator: Operator,
) -> None:
    operator.cycle()
    operator.cycle()
    operator.store.wipe(operator.ref)
    lost_at = operator.now()
    operator.table.keys = ["b"]
    operator.jobs.cleaned.clear()

    operator.cycle(899)
    assert operator.condition("Ready")["reason"] == "LedgerLost"
    assert parse_time(operator.status["ledgerLostUntil"]) == lost_at + timedelta(minutes=15)
    operator.cycle()
    assert (operator.status["items"], operator.jobs.cleaned) == ([], [])

    operator.cycle()
    assert [item["key"] for item in operator.status["items"]] == ["b"]


def test_a_job_without_a_slot_gets_one_and_its_row_no_second_launch(operator: Operator) -> None:
    operator.jobs.strays = (Stray("stray", "a", 2, NOW, "Job pages-1"),)

    operator.cycle()

    (item,) = operator.status["items"]
    assert (item["id"], item["phase"], item["attempt"]) == ("stray", "Launched", 2)


def test_a_second_job_of_a_row_is_named(operator: Operator) -> None:
    operator.cycle()
    operator.jobs.strays = (Stray("stray", "a", 1, NOW, "Job pages-1"),)

    operator.cycle()

    assert operator.condition("Ready")["reason"] == "DuplicateJob"
    assert "Job pages-1" in operator.condition("Ready")["message"]


def test_what_keeps_jobs_from_getting_on_is_a_condition_and_no_reason_to_free_their_slots(
    operator: Operator,
) -> None:
    operator.cycle()
    assert operator.condition("Stalled")["status"] == "False"
    operator.jobs.there["id-1"] = Observation(Fact.ACCEPTED, "Job pages-1 has no pod")

    operator.cycle()

    stalled = operator.condition("Stalled")
    assert (stalled["status"], stalled["message"]) == ("True", "Job pages-1 has no pod")
    assert operator.status["active"] == 1


def test_what_settled_is_cleaned_up_once_that_is_written(operator: Operator) -> None:
    operator.cycle()
    operator.cycle()
    assert operator.jobs.cleaned[-1] == (["id-1"], [])
    operator.jobs.there["id-1"] = Observation(Fact.SUCCEEDED)
    operator.table.keys = []

    operator.cycle()

    assert operator.jobs.cleaned[-1] == ([], ["id-1"])
