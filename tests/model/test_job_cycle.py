"""The whole cycle with Jobs, against a world in which everything fails.

The target is the real one; only the API server is the world's. SCANNERJOB_PROVE_STEPS=100000 walks
about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any

import pytest
from hypothesis import Phase, seed

from scannerjob.model import reading, settle
from scannerjob.model.facts import Fact, Facts, Observation
from scannerjob.model.ledger import Item
from scannerjob.model.reading import is_gone
from scannerjob.observer import Observer
from scannerjob.scan import Scanner
from scannerjob.targets.job import target
from scannerjob.targets.job.outcomes import Pod, alive
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.target import JobTarget
from scannerjob.targets.job.view import JobView, view
from tests.model.basics import Fault, Setup, Violation
from tests.model.job_machine import JobCycle
from tests.model.jobs import Process
from tests.model.machine import STEPS_PER_WALK, run
from tests.model.world import World


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails_where_rows_become_jobs() -> None:
    steps = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "6000"))
    run(JobCycle, max_examples=max(1, steps // STEPS_PER_WALK), print_blob=True)


# What must be found: each of these breaks one rule.


async def _gone(target: Any, ids: set[str]) -> Mapping[str, Observation]:
    return dict.fromkeys(ids, Observation(Fact.GONE, "JobDeleted"))


def _a_missing_job_is_gone_whatever_its_pods_do(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JobTarget, "_missing", _gone)


def _what_a_watch_did_not_tell_is_gone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JobTarget, "_missing", _gone)
    patch.setattr(JobTarget, "_should_list", lambda self, ids: self._listed_at is None)


def _jobs_without_a_slot_are_left_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(JobTarget, "_strays", lambda self, *_: ())


def _predecessors_are_left_alone(patch: pytest.MonkeyPatch) -> None:
    async def none(self: Any) -> None:
        return None

    patch.setattr(JobTarget, "_predecessors", none)


def _claims_not_found_at_once_are_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "_never_came", lambda item, seen, at: seen and seen.fact is Fact.GONE)


def _names_are_free_once_their_end_is_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(target, "removable", lambda jobs, *_: list(jobs))


def _an_end_is_as_old_as_its_date(patch: pytest.MonkeyPatch) -> None:
    def ended_for(self: SeenJobs, job: JobView) -> timedelta:
        return target.datetime.now(UTC) - job.changed  # type: ignore[attr-defined]  # imported

    patch.setattr(SeenJobs, "ended_for", ended_for)


def _a_job_is_made_again_beside_a_pod_of_the_first(patch: pytest.MonkeyPatch) -> None:
    async def runs_on(self: Any, launch: str) -> bool:
        return False

    patch.setattr(JobTarget, "_runs_on", runs_on)


def _jobs_go_before_their_end_is_written(patch: pytest.MonkeyPatch) -> None:
    observe = Observer.observe

    async def observe_and_clean_up(self: Any, connections: Any, ledger: Any, *of: Any) -> Any:
        facts = await observe(self, connections, ledger, *of)
        ended = [item for item in ledger.outstanding if _has_ended(facts.observations, item.id)]
        out = {item.id for item in ledger.outstanding} - {item.id for item in ended}
        await connections.target.clean_up(out, ended)
        return facts

    patch.setattr(Observer, "observe", observe_and_clean_up)


def _has_ended(seen: Mapping[str, Observation] | None, launch: str) -> bool:
    fact = seen[launch].fact if seen and launch in seen else None
    return fact in (Fact.SUCCEEDED, Fact.FAILED)


def _jobs_sent_twice_are_gone_at_once(patch: pytest.MonkeyPatch) -> None:
    for module in (reading, settle):
        patch.setattr(module, "is_gone", _is_gone_at_once)


def _what_has_not_started_is_dead(patch: pytest.MonkeyPatch) -> None:
    def started(pods: Iterable[Pod]) -> Mapping[str, str]:
        return alive(pod for pod in pods if pod["status"]["phase"] == "Running")

    patch.setattr(target, "alive", started)


def _is_gone_at_once(item: Item, seen: Observation | None, facts: Facts) -> bool:
    return is_gone(replace(item, sends=1), seen, facts)


def _jobs_go_once_they_have_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(target, "ended", lambda jobs, _: [job for job in jobs if job.end])


def _what_will_fail_has_failed(patch: pytest.MonkeyPatch) -> None:
    def fails(job: Mapping[str, Any]) -> JobView:
        seen = view(job)
        return replace(seen, end="Failed") if seen.ending else seen

    patch.setattr(target, "view", fails)


def _late_words_are_taken_in(patch: pytest.MonkeyPatch) -> None:
    listing = JobTarget._list

    async def all_that_is_known(self: Any) -> set[str]:
        await listing(self)
        return {job.uid for job in self._mine()}

    patch.setattr(JobTarget, "_list", all_that_is_known)


def _a_lost_ledger_is_taken_for_what_was_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Process, "forget", lambda self: None)


def _a_wiped_ledger_is_a_new_one(patch: pytest.MonkeyPatch) -> None:
    begin = Scanner._ledger
    patch.setattr(
        Scanner, "_ledger", lambda self, seen, *of: begin(self, replace(seen, marked=False), *of)
    )


# Where each is found soonest: in what kind of world, and by what happens there.
_PLAIN = {"loses_ledgers": False, "predecessor": False, "unfetchable": 0, "refused": 0, "rows": 1}
MISTAKES: dict[Callable[[pytest.MonkeyPatch], None], dict[str, Any]] = {
    _a_missing_job_is_gone_whatever_its_pods_do: {"setup": _PLAIN, "changes": ["crash"]},
    _what_a_watch_did_not_tell_is_gone: {"setup": _PLAIN},
    _jobs_without_a_slot_are_left_alone: {
        "setup": _PLAIN | {"loses_ledgers": True},
        "changes": ["wipe", "accept"],
        "delete_job": None,
    },
    _predecessors_are_left_alone: {"setup": {"predecessor": True}},
    _claims_not_found_at_once_are_released: {"setup": _PLAIN, "changes": ["crash"]},
    _jobs_go_before_their_end_is_written: {"setup": _PLAIN | {"history": 0}, "delete_job": None},
    _a_wiped_ledger_is_a_new_one: {"setup": {"loses_ledgers": True}, "changes": ["wipe"]},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    machine = type("Focused", (JobCycle,), MISTAKES[mistake])
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            # By a seed that comes there soon.
            run(seed(2)(machine), max_examples=2000, phases=[Phase.generate], database=None)


# What takes so many steps in one order that chance rarely goes there: the ways of what comes late,
# a create after the next send of it has made the Job, or a word of the watch; and of what never
# comes.


def _a_create_comes_late(world: World) -> None:
    """The first send is on its way for long; the operator looks in vain."""
    while not world.operators[0].where.startswith("jobs.create"):
        world.step(0)
    world.step(0, Fault.LATE)
    world.finish_cycle(0)
    world.advance(6)


def _go_on_until(world: World, condition: Callable[[], object]) -> None:
    """... or for two minutes: a late create may come for longer."""
    for _ in range(20):
        if not condition():
            world.finish_cycle(0)
            world.advance(6)


def _the_job_ends_and_goes(world: World) -> None:
    _a_create_comes_late(world)
    _go_on_until(world, lambda: world.cluster.jobs)
    world.workers.work_off()
    world.cluster.control()
    _go_on_until(world, lambda: not world.cluster.jobs)
    world.cluster.land_late(0)


def _the_job_ends_and_goes_by_a_fast_clock(world: World) -> None:
    world.ahead = timedelta(hours=1)
    _the_job_ends_and_goes(world)


def _the_job_of_a_pod_that_waits_is_deleted(world: World) -> None:
    """... by hand; the pod may start for as long as it is there."""
    world.finish_cycle(0)
    world.cluster.control()
    world.cluster.delete(0)
    for _ in range(3):
        world.advance(61)
        world.finish_cycle(0)


def _the_job_is_deleted_by_hand(world: World) -> None:
    _a_create_comes_late(world)
    _go_on_until(world, lambda: world.cluster.jobs)
    world.cluster.delete(0)
    world.workers.start(world.workers.messages[0])
    world.workers.die(world.workers.messages[0])
    _go_on_until(world, lambda: not world.store.outstanding())
    world.cluster.land_late(0)


def _the_late_job_is_deleted_by_hand(world: World) -> None:
    _a_create_comes_late(world)
    while not world.operators[0].where.startswith("source"):
        world.step(0)
    world.cluster.land_late(0)
    world.workers.start(world.workers.messages[0])
    world.cluster.delete(0)
    world.finish_cycle(0)


def _the_watch_tells_late(world: World) -> None:
    """... that a Job was created, when it has ended, and was counted and removed."""
    world.finish_cycle(0)
    world.workers.work_off()
    world.cluster.control()
    world.advance(61)
    _go_on_until(world, lambda: not world.cluster.jobs)
    world.edit(interval="2s")
    while world.operators[0].where != "jobs.find: answered":
        world.step(0)
    world.operators[0].jobs.be_told(1)
    world.finish_cycle(0)


def _the_watch_tells_nothing(world: World) -> None:
    """... to operator 1 of a Job that operator 0 creates, and the ledger is lost."""
    world.finish_row("[0]")
    world.finish_cycle(1)
    world.return_row("[0]")
    world.finish_cycle(0)
    world.store.wipe()
    world.finish_cycle(1)
    world.store.accept()
    world.advance(2)
    world.finish_cycle(1)


def _the_database_is_away(world: World) -> None:
    """... for so long after a Job has failed that no create of it can be on its way any more."""
    world.finish_cycle(0)
    world.workers.start(world.workers.messages[0])
    world.workers.report(world.workers.messages[0], Fact.FAILED)
    world.cluster.control()
    for _ in range(4):
        world.advance(10 * 60)
        while not world.operators[0].where.startswith("source"):
            world.step(0)
        world.step(0, Fault.REFUSED)
        world.finish_cycle(0)


def _a_node_is_lost(world: World) -> None:
    """... with a pod whose Job is to fail, and which may run on all the same."""
    world.edit_lifetime(False)
    world.finish_cycle(0)
    world.workers.start(world.workers.messages[0])
    world.cluster.doom(0)
    world.advance(61)
    world.finish_cycle(0)


WAYS: dict[Callable[[World], None], Callable[[pytest.MonkeyPatch], None]] = {
    _the_job_ends_and_goes: _names_are_free_once_their_end_is_counted,
    _the_job_ends_and_goes_by_a_fast_clock: _an_end_is_as_old_as_its_date,
    _the_job_of_a_pod_that_waits_is_deleted: _what_has_not_started_is_dead,
    _the_job_is_deleted_by_hand: _jobs_sent_twice_are_gone_at_once,
    _the_late_job_is_deleted_by_hand: _a_job_is_made_again_beside_a_pod_of_the_first,
    _the_watch_tells_late: _late_words_are_taken_in,
    _a_node_is_lost: _what_will_fail_has_failed,
    _the_database_is_away: _jobs_go_once_they_have_ended,
    _the_watch_tells_nothing: _a_lost_ledger_is_taken_for_what_was_seen,
}


@pytest.fixture
def world() -> Iterator[World]:
    world = World(Setup(jobs=True, flips=True, rows=1, cap=1))
    yield world
    world.close()


@pytest.mark.parametrize("way", WAYS)
def test_what_comes_late_does_no_harm(way: Callable[[World], None], world: World) -> None:
    way(world)
    world.recover()


@pytest.mark.parametrize("way", WAYS)
def test_finds_the_harm_of_what_comes_late(
    way: Callable[[World], None], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](monkeypatch)
    with pytest.raises(Violation):
        way(world)


def test_a_name_that_somebody_took_is_given_up(world: World) -> None:
    """... though a create that was not answered might still arrive for a while."""
    while not world.operators[0].where.startswith("jobs.create"):
        world.step(0)
    world.step(0, Fault.LOST)
    world.setup = replace(world.setup, taken=1)
    world.finish_cycle(0)
    world.recover()
