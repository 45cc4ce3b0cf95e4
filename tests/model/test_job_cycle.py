"""The whole cycle with Jobs, against a world in which everything fails.

The target is the real one; only the API server is the world's. SCANNERJOB_PROVE_STEPS=100000 walks
about so many steps instead of the few of a test run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase

from scannerjob.model import settle
from scannerjob.model.facts import Fact, Observation
from scannerjob.scan import Scanner
from scannerjob.targets.job import target
from scannerjob.targets.job.target import JobTarget
from tests.model.basics import Violation
from tests.model.job_machine import JobCycle
from tests.model.machine import STEPS, STEPS_PER_WALK, run


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails_where_rows_become_jobs() -> None:
    run(JobCycle, max_examples=max(1, STEPS // STEPS_PER_WALK), print_blob=True)


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
    patch.setattr(JobTarget, "_predecessors", lambda self: None)


def _claims_not_found_at_once_are_released(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "_never_came", lambda item, seen, at: seen and seen.fact is Fact.GONE)


def _names_are_free_once_their_end_is_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(target, "removable", lambda jobs, *_: list(jobs))


def _a_job_is_made_again_beside_a_pod_of_the_first(patch: pytest.MonkeyPatch) -> None:
    async def runs_on(self: Any, launch: str) -> bool:
        return False

    patch.setattr(JobTarget, "_runs_on", runs_on)


def _jobs_go_before_their_end_is_written(patch: pytest.MonkeyPatch) -> None:
    observe = Scanner._observe

    async def observe_and_clean_up(self: Any, connections: Any, ledger: Any, *of: Any) -> Any:
        facts = await observe(self, connections, ledger, *of)
        ended = [item for item in ledger.outstanding if _has_ended(facts.observations, item.id)]
        out = {item.id for item in ledger.outstanding} - {item.id for item in ended}
        await connections.target.clean_up(out, ended)
        return facts

    patch.setattr(Scanner, "_observe", observe_and_clean_up)


def _has_ended(seen: Mapping[str, Observation] | None, launch: str) -> bool:
    fact = seen[launch].fact if seen and launch in seen else None
    return fact in (Fact.SUCCEEDED, Fact.FAILED)


def _a_wiped_ledger_is_a_new_one(patch: pytest.MonkeyPatch) -> None:
    begin = Scanner._ledger
    patch.setattr(
        Scanner, "_ledger", lambda self, seen, *of: begin(self, replace(seen, marked=False), *of)
    )


# Where each is found soonest: in what kind of world, and by what happens there besides faults.
MISTAKES: dict[Callable[[pytest.MonkeyPatch], None], tuple[dict[str, Any], list[str]]] = {
    _a_missing_job_is_gone_whatever_its_pods_do: ({"loses_ledgers": False}, ["rows return"]),
    _what_a_watch_did_not_tell_is_gone: ({}, ["rows return"]),
    _jobs_without_a_slot_are_left_alone: ({"loses_ledgers": True}, ["wipe", "accept"]),
    _predecessors_are_left_alone: ({"predecessor": True}, ["rows return"]),
    _claims_not_found_at_once_are_released: ({"loses_ledgers": False}, ["crash"]),
    _names_are_free_once_their_end_is_counted: (
        {"history": 0, "loses_ledgers": False, "rows": 1},
        ["rows return"],
    ),
    _a_job_is_made_again_beside_a_pod_of_the_first: (
        {"loses_ledgers": False, "rows": 1},
        ["rows return"],
    ),
    _jobs_go_before_their_end_is_written: ({"history": 0}, ["rows return"]),
    _a_wiped_ledger_is_a_new_one: ({"loses_ledgers": True}, ["wipe"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    setup, changes = MISTAKES[mistake]
    machine = type("Focused", (JobCycle,), {"setup": setup, "changes": changes})
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            run(
                machine, max_examples=2000, derandomize=True, phases=[Phase.generate], database=None
            )
