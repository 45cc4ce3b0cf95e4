"""The Job target where answers fail or come late: its API server is a list of Jobs and of answers.

What a real API server says is tried in tests/cluster/test_job_target.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Observation
from scannerjob.ports import (
    PortError,
    RefusedError,
    TargetError,
    UnknownOutcomeError,
    UnreachedError,
)
from scannerjob.targets.job import seen
from scannerjob.targets.job.api import JobsApi
from scannerjob.targets.job.names import LAUNCH
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.target import JobTarget
from scannerjob.targets.job.view import JobView, view
from tests.unit.cases import item
from tests.unit.job_cases import (
    OWNER,
    Document,
    Watch,
    condition,
    document,
    job_spec,
    pod,
    send,
    template,
)

UNREACHED = UnreachedError("APIServerUnreachable", "no connection")
NO_ANSWER = UnknownOutcomeError("APIServerUnreachable", "no answer")
NOT_FOUND = RefusedError(404, "NotFound", "there is none")
EXISTS = RefusedError(409, "Conflict", "it exists")
FORBIDDEN = RefusedError(403, "Forbidden", "no rights")
INVALID = RefusedError(422, "Invalid", "the value is not taken")
LATER = boottime() + 3600


class Api:
    """Stands in for JobsApi: `fails` says which calls fail, and with what.

    `told_meanwhile` is what a watch tells while a list is made.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, Document] = {}
        self.pods_there: list[Document] = []
        self.fails: dict[str, PortError] = {}
        self.calls: list[str] = []
        self.told_meanwhile: list[JobView] = []
        self.seen = SeenJobs()
        self._version = 100

    def add(self, *jobs: Document) -> None:
        self.jobs |= {job["metadata"]["name"]: job for job in jobs}

    async def create(self, job: Mapping[str, Any]) -> Document:
        self._called("create")
        name = job["metadata"]["name"]
        if name in self.jobs:
            raise EXISTS
        self._version += 1
        created = document(job["metadata"]["annotations"]["scannerjob.dev/key"], self._version)
        self.add(created)
        return created

    async def try_out(self, job: Document) -> None:
        self._called("try_out")

    async def get(self, namespace: str, name: str) -> Document:
        self._called("get")
        if name not in self.jobs:
            raise NOT_FOUND
        return self.jobs[name]

    async def find(self, namespace: str, selector: str) -> list[Document]:
        self._called("find")
        found = list(self.jobs.values())
        for job in self.told_meanwhile:
            self.seen.put(job)
        return found

    async def delete(self, job: JobView) -> None:
        self._called("delete")
        del self.jobs[job.name]

    async def let_expire(self, job: JobView, seconds: int) -> None:
        self._called("let_expire")

    async def pods_of(self, namespace: str, launches: Collection[str]) -> list[Document]:
        self._called("pods_of")
        return [each for each in self.pods_there if each["metadata"]["labels"][LAUNCH] in launches]

    async def pods(self, namespace: str, selector: str) -> list[Document]:
        self._called("pods")
        return []

    def _called(self, what: str) -> None:
        self.calls.append(what)
        if what in self.fails:
            raise self.fails[what]


class World:
    """A target, its API server, and what was seen."""

    def __init__(self, **fields: Any) -> None:
        self.api = Api()
        self.seen = self.api.seen
        self._spec = job_spec(**fields)
        self.target = self.opened()

    def opened(self) -> JobTarget:
        assert self._spec.job is not None
        api = cast(JobsApi, self.api)
        return JobTarget(api, self.seen, OWNER, self._spec, self._spec.job)

    def observe(self, *keys: str) -> Mapping[str, Observation]:
        ids = [f"id-{key}" for key in keys]
        return asyncio.run(self.target.observe(ids)).observations

    def strays(self, *keys: str) -> list[str]:
        found = asyncio.run(self.target.observe([f"id-{key}" for key in keys]))
        return [stray.key for stray in found.strays]

    def launch(self, key: str = "[7]", sends: int = 1, until: float = LATER) -> Observation:
        outcomes = asyncio.run(self.target.launch([send(key, sends)], until))
        return outcomes[f"id-{key}"]

    def clean_up(self, *outstanding: str, settled: Collection[str] = (), sends: int = 1) -> None:
        async def wait() -> None:
            items = [item(key, sends=sends) for key in settled]
            await self.target.clean_up([f"id-{key}" for key in outstanding], items)
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others)

        asyncio.run(wait())


@pytest.fixture
def world() -> World:
    return World()


def ended(key: str, end: str = "Complete", seconds_ago: float = 0, version: int = 1) -> Document:
    since = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return document(key, version, conditions=[condition(end, since=since)])


class TestLaunching:
    def test_a_job_that_was_made_is_accepted_and_known_before_any_watch_tells(
        self, world: World
    ) -> None:
        world.observe()
        assert world.launch() == Observation(Fact.ACCEPTED)
        world.api.calls.clear()

        assert world.observe("[7]")["id-[7]"].fact is Fact.ACCEPTED
        assert world.api.calls == []

    @pytest.mark.parametrize(
        ("error", "fact"),
        [
            (UNREACHED, Fact.NOT_SENT),
            (NO_ANSWER, Fact.UNCERTAIN),
            (FORBIDDEN, Fact.NOT_SENT),
            (NOT_FOUND, Fact.NOT_SENT),
            (INVALID, Fact.REFUSED),
        ],
    )
    def test_what_an_error_proves_is_said(self, world: World, error: PortError, fact: Fact) -> None:
        world.api.fails["create"] = error

        assert world.launch() == Observation(fact, str(error))

    def test_a_refusal_is_not_the_rows_where_no_job_is_taken(self, world: World) -> None:
        world.api.fails |= {"create": INVALID, "try_out": INVALID}

        seen = world.launch()

        assert seen.fact is Fact.NOT_SENT
        assert seen.reason is not None
        assert seen.reason.startswith("spec.job.template")

    def test_whether_a_refusal_is_the_rows_must_be_known(self, world: World) -> None:
        world.api.fails |= {"create": INVALID, "try_out": UNREACHED}

        assert world.launch().fact is Fact.NOT_SENT

    def test_a_conflict_over_a_job_of_the_same_launch_is_success(self, world: World) -> None:
        world.api.add(document("[7]"))

        assert world.launch() == Observation(Fact.ACCEPTED)

    def test_a_conflict_where_there_is_no_such_job_proves_that_nothing_was_made(
        self, world: World
    ) -> None:
        quota = RefusedError(409, "Conflict", "the quota has been modified")
        world.api.fails["create"] = quota

        assert world.launch() == Observation(Fact.NOT_SENT, str(quota))

    def test_a_conflict_that_cannot_be_looked_into_is_uncertain(self, world: World) -> None:
        world.api.add(document("[7]"))
        world.api.fails["get"] = NO_ANSWER

        assert world.launch() == Observation(Fact.UNCERTAIN, "no answer")

    def test_nothing_is_sent_too_late(self, world: World) -> None:
        assert world.launch(until=boottime()).fact is Fact.NOT_SENT
        assert world.api.calls == []

    def test_no_second_job_is_made_while_a_pod_of_the_first_runs(self, world: World) -> None:
        world.api.pods_there = [pod("[7]", "Running")]

        assert world.launch(sends=2).fact is Fact.UNCERTAIN
        assert world.api.jobs == {}
        world.api.pods_there = [pod("[7]", "Failed")]
        assert world.launch(sends=2).fact is Fact.ACCEPTED

    def test_that_cannot_be_looked_for_makes_no_second_job(self, world: World) -> None:
        world.api.fails["pods_of"] = NO_ANSWER

        assert world.launch(sends=2) == Observation(Fact.UNCERTAIN, "no answer")

    def test_a_row_that_no_environment_holds_is_refused_and_others_go_on(
        self, world: World
    ) -> None:
        sends = [send("a", title="a\0"), send("b", title="b")]

        seen = asyncio.run(world.target.launch(sends, LATER))

        assert {launch: each.fact for launch, each in seen.items()} == {
            "id-a": Fact.REFUSED,
            "id-b": Fact.ACCEPTED,
        }

    def test_a_template_without_room_for_a_name_launches_nothing(self) -> None:
        world = World(a_template={"metadata": "a", **template()})

        assert world.launch().fact is Fact.NOT_SENT
        with pytest.raises(TargetError, match=r"spec\.job\.template\.metadata"):
            asyncio.run(world.target.check())
        assert world.api.calls == []

    def test_a_claim_cannot_be_superseded(self, world: World) -> None:
        assert asyncio.run(world.target.supersede(["id-[7]"])) == {}


class TestChecking:
    @pytest.mark.parametrize(
        ("error", "reason", "message"),
        [
            (INVALID, "InvalidTemplate", "spec.job.template: the value is not taken"),
            (FORBIDDEN, "LaunchRefused", "no rights"),
            (UNREACHED, "APIServerUnreachable", "no connection"),
            (
                RefusedError(
                    422, "Invalid", "told", "told", [("spec.a", "bad"), ("spec.b", "too")]
                ),
                "InvalidTemplate",
                "spec.job.template.spec.a: bad; spec.job.template.spec.b: too",
            ),
        ],
    )
    def test_says_what_is_wrong(
        self, world: World, error: PortError, reason: str, message: str
    ) -> None:
        world.api.fails["try_out"] = error

        with pytest.raises(TargetError) as told:
            asyncio.run(world.target.check())

        assert (told.value.reason, str(told.value)) == (reason, message)


class TestObserving:
    def test_a_launch_that_nobody_told_of_is_looked_for(self, world: World) -> None:
        world.observe()
        world.api.add(ended("[7]"))

        assert world.observe("[7]")["id-[7]"].fact is Fact.SUCCEEDED

    def test_one_that_is_not_there_is_gone_unless_a_pod_of_it_runs(self, world: World) -> None:
        world.api.pods_there = [pod("a", "Running"), pod("b", "Succeeded")]

        seen = world.observe("a", "b", "c")

        assert {launch: each.fact for launch, each in seen.items()} == {
            "id-a": Fact.ACCEPTED,
            "id-b": Fact.GONE,
            "id-c": Fact.GONE,
        }
        assert seen["id-a"].reason == "its Job was deleted, but pod pod-a runs"

    @pytest.mark.parametrize(("seconds", "fact"), [(58, Fact.ACCEPTED), (62, Fact.SUCCEEDED)])
    def test_what_a_watch_kept_back_is_found_within_a_minute(
        self, world: World, monkeypatch: pytest.MonkeyPatch, seconds: float, fact: Fact
    ) -> None:
        world.observe()
        world.launch()
        world.api.add(ended("[7]", version=200))
        later = time.monotonic() + seconds
        monkeypatch.setattr("time.monotonic", lambda: later)

        assert world.observe("[7]")["id-[7]"].fact is fact

    @pytest.mark.parametrize("call", ["find", "pods_of", "pods"])
    @pytest.mark.parametrize("error", [UNREACHED, NO_ANSWER, FORBIDDEN])
    def test_what_cannot_be_asked_frees_no_slot(
        self, world: World, call: str, error: PortError
    ) -> None:
        world.api.fails[call] = error

        with pytest.raises(TargetError):
            world.observe("[7]")

    def test_why_it_failed_is_asked_once(self, world: World) -> None:
        world.api.add(ended("[7]", "Failed"))
        world.api.pods_there = [pod("[7]", containerStatuses=[])]
        assert world.observe("[7]")["id-[7]"].fact is Fact.FAILED
        world.api.calls.clear()

        assert world.observe("[7]")["id-[7]"].fact is Fact.FAILED
        assert world.api.calls == []

    def test_a_job_that_runs_and_holds_no_slot_is_a_stray(self, world: World) -> None:
        world.api.add(document("a"), document("b"), ended("c"))

        assert world.strays("a") == ["b"]

    def test_what_a_late_watch_tells_is_no_stray_once_a_list_lacks_it(self, world: World) -> None:
        world.observe()
        world.seen.put(view(document("[7]")))
        assert world.strays() == []

    def test_nor_is_it_where_the_watch_tells_it_while_the_list_is_made(self, world: World) -> None:
        world.api.told_meanwhile = [view(document("[7]"))]

        assert world.strays() == []

    def test_a_copy_is_neither_ours_nor_touched(self, world: World) -> None:
        copy = ended("[7]", seconds_ago=9999)
        copy["metadata"]["name"] = "copy"
        running = document("[8]")
        running["metadata"]["name"] = "another-copy"
        world.api.add(copy, running)

        assert world.observe("[7]")["id-[7]"].fact is Fact.GONE
        assert world.strays() == []
        world.clean_up()
        assert "delete" not in world.api.calls


class TestCleaningUp:
    @pytest.fixture
    def world(self) -> World:
        return World(successfulJobsHistoryLimit=0)

    def test_what_was_counted_goes(self, world: World) -> None:
        world.api.add(ended("[7]"))
        world.observe("[7]")

        world.clean_up(settled=["[7]"])

        assert world.api.jobs == {}
        assert world.seen.of(("docs", "pdf-pages")) == []

    def test_what_was_sent_twice_stays_however_long_ago_it_is_said_to_have_ended(
        self, world: World
    ) -> None:
        world.api.add(ended("[7]"), ended("[8]", seconds_ago=9999))
        world.observe("[7]", "[8]")

        world.clean_up(settled=["[7]", "[8]"], sends=2)

        assert "delete" not in world.api.calls

    def test_it_goes_once_its_end_has_been_known_for_long(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(seen, "time", watch := Watch())
        world.api.add(ended("[7]"))
        world.observe("[7]")
        watch.now += 1261

        world.clean_up(settled=["[7]"], sends=2)

        assert world.api.jobs == {}

    def test_what_holds_a_slot_or_was_not_counted_stays(self, world: World) -> None:
        world.api.add(ended("a", seconds_ago=9999), ended("b"), document("c"))
        world.observe("a")

        world.clean_up("a", "c")

        assert "delete" not in world.api.calls

    @pytest.mark.parametrize("error", [EXISTS, FORBIDDEN, NO_ANSWER, UNREACHED])
    def test_what_could_not_be_removed_is_tried_again(
        self, world: World, error: PortError, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.api.add(ended("[7]"))
        world.observe("[7]")
        world.api.fails["delete"] = error
        with caplog.at_level(logging.WARNING):
            world.clean_up(settled=["[7]"])
        assert (str(error) in caplog.text) == (error is FORBIDDEN)

        del world.api.fails["delete"]
        world.clean_up()

        assert world.api.jobs == {}

    def test_what_is_gone_already_is_forgotten(self, world: World) -> None:
        world.api.add(ended("[7]"))
        world.observe("[7]")
        world.api.fails["delete"] = NOT_FOUND

        world.clean_up(settled=["[7]"])

        assert world.seen.of(("docs", "pdf-pages")) == []

    def test_a_time_to_live_is_put_on_what_is_kept(self) -> None:
        world = World(a_template=template(ttlSecondsAfterFinished=60))
        world.api.add(ended("[7]"), ended("uncounted"))
        world.observe("[7]")

        world.clean_up(settled=["[7]"])

        assert world.api.calls.count("let_expire") == 1
        assert "delete" not in world.api.calls
