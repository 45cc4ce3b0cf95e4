"""What the conditions say, and when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from scannerjob.model.conditions import (
    MAX_MESSAGE,
    Condition,
    Contact,
    Look,
    Trouble,
    Truth,
    Workers,
    running,
    stamped,
    unusable,
)
from scannerjob.model.facts import Hold
from scannerjob.model.ledger import Ledger, format_time
from scannerjob.model.plan import INDEXED, PLAN_UNKNOWN, PlanFinding
from tests.unit.cases import NOW, ago, item, later, ledger

FINE = Contact(tried=True)
DOWN = Contact(tried=True, trouble=Trouble("DatabaseUnreachable", "db: refused"))
SUSPENDED = Hold("Suspended", "spec.suspend is true")
LOST = Hold("LedgerLost", "the ledger has vanished")


def said(**fields: Any) -> dict[str, Condition]:
    known: dict[str, Any] = {
        "ledger": Ledger(),
        "look": Look(),
        "holds": (),
        "warnings": (),
        "plan": None,
        "database": FINE,
        "target": FINE,
        "workers": None,
        "stuck": None,
        "alive": (),
        "now": NOW,
        **fields,
    }
    return {each.type: each for each in running(**known)}


def test_where_all_is_well() -> None:
    conditions = said()

    assert {kind: each.status for kind, each in conditions.items()} == {
        "Ready": "True",
        "DatabaseReachable": "True",
        "TargetReachable": "True",
        "Stalled": "False",
    }


def missing(unseen_since: datetime | None, *, counted: bool) -> Condition:
    return said(workers=Workers("celery", unseen_since, counted))["WorkersMissing"]


def test_a_queue_without_workers_is_named_after_a_while() -> None:
    assert missing(None, counted=True).status == "False"
    assert missing(ago(59), counted=True).reason == "WorkersSeen"
    assert missing(ago(540), counted=False).status == "False"

    condition = missing(ago(60), counted=True)
    assert (condition.status, condition.reason) == ("True", "NoConsumer")
    assert f"no worker seen on celery since {format_time(ago(60))}" in condition.message
    assert "celery worker --queues celery" in condition.message
    assert missing(ago(600), counted=False).reason == "NothingTaken"


def test_what_was_not_tried_is_not_spoken_of() -> None:
    assert said(database=Contact(), target=Contact()).keys() == {"Ready", "Stalled"}


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (PlanFinding("SequentialScan", "table pdf"), "True"),
        (PlanFinding("Sort", "table pdf"), "True"),
        (INDEXED, "False"),
        (PLAN_UNKNOWN, "Unknown"),
    ],
)
def test_what_a_look_costs_is_said_and_makes_nobody_less_ready(
    plan: PlanFinding, status: Truth
) -> None:
    conditions = said(plan=plan)

    assert conditions["ScanNotIndexed"] == Condition(
        "ScanNotIndexed", status, plan.reason, plan.message
    )
    assert conditions["Ready"] == said()["Ready"]


def test_trouble_outside_is_named_and_comes_before_holds() -> None:
    conditions = said(database=DOWN, holds=(LOST,))

    for kind in ("Ready", "DatabaseReachable"):
        each = conditions[kind]
        assert (each.status, each.reason) == ("False", "DatabaseUnreachable")
        assert each.message == "db: refused"


def test_a_hold_is_not_ready_unless_it_was_asked_for() -> None:
    assert said(holds=(LOST,))["Ready"].status == "False"
    assert said(holds=(SUSPENDED,))["Ready"] == Condition(
        "Ready", "True", "Suspended", SUSPENDED.message
    )


def test_rows_that_are_held_back_are_named_up_to_five() -> None:
    problems = tuple(f"row {n}: its key is NULL" for n in range(7))

    ready = said(look=Look(problems))["Ready"]

    assert (ready.status, ready.reason) == ("True", "RowsHeldBack")
    assert "7 rows" in ready.message
    assert "row 4" in ready.message
    assert "row 5" not in ready.message
    assert "and 2 more" in ready.message


def test_a_scan_without_any_usable_row_is_blocked() -> None:
    ready = said(look=Look(("row 1: NULL",), blocked=True))["Ready"]

    assert (ready.status, ready.reason) == ("False", "ScanBlocked")


def test_a_brake_of_the_last_look_is_not_ready() -> None:
    ready = said(look=Look(brakes=(Hold("TooManyFailures", "look at them"),)))["Ready"]

    assert (ready.status, ready.reason) == ("False", "TooManyFailures")


def test_launches_of_which_nothing_is_heard_for_an_hour_are_stalled() -> None:
    young, old = item("a", since=ago(3599)), item("b", since=ago(7200))

    assert said(ledger=ledger(young))["Stalled"].status == "False"
    stalled = said(ledger=ledger(young, old))["Stalled"]
    assert (stalled.status, stalled.reason) == ("True", "NoEvidence")
    assert stalled.message.startswith("1 launches hold their slots")
    assert "2 h" in stalled.message


def test_launches_whose_life_goes_on_are_not_stalled() -> None:
    alive = item("a", since=ago(7200), until=later(60))

    assert said(ledger=ledger(alive))["Stalled"].status == "False"


def test_jobs_that_do_not_get_on_are_stalled_and_named_up_to_five() -> None:
    stalled = said(stuck=[f"Job {n} has no pod" for n in range(7)])["Stalled"]

    assert (stalled.status, stalled.reason) == ("True", "JobsStuck")
    assert stalled.message.startswith("Job 0 has no pod; Job 1 has no pod; ")
    assert "Job 5" not in stalled.message
    assert stalled.message.endswith("; and 2 more")


def test_long_work_on_a_target_that_sees_it_all_is_not_stalled() -> None:
    old = ledger(item("a", since=ago(999_999)))

    assert said(ledger=old, stuck=[])["Stalled"].status == "False"


def test_the_transition_time_moves_only_with_the_status() -> None:
    first = stamped(unusable(Trouble("InvalidSpec", "a")), [], 1, ago(60))
    second = stamped(unusable(Trouble("SecretNotFound", "b")), first, 2, NOW)
    third = stamped([Condition("Ready", "True", "Scanning")], second, 2, NOW)

    assert [each["lastTransitionTime"] for each in (*first, *second, *third)] == [
        "2030-01-01T11:59:00Z",
        "2030-01-01T11:59:00Z",
        "2030-01-01T12:00:00Z",
    ]
    assert (second[0]["reason"], second[0]["observedGeneration"]) == ("SecretNotFound", 2)


def test_what_nothing_new_is_said_of_keeps_what_was_said() -> None:
    before = stamped([Condition("TargetReachable", "True", "Reachable")], [], 1, ago(60))

    after = stamped([Condition("Ready", "True", "Scanning")], before, 2, NOW)

    assert [each["type"] for each in after] == ["Ready", "TargetReachable"]
    assert after[1] == before[0]


def test_a_previous_condition_that_was_damaged_does_no_harm() -> None:
    (after,) = stamped([Condition("Ready", "True", "Scanning")], [{"type": "Ready"}], 1, NOW)
    (same,) = stamped(
        [Condition("Ready", "True", "Scanning")], [{"type": "Ready", "status": "True"}], 1, NOW
    )

    assert after["lastTransitionTime"] == same["lastTransitionTime"] == "2030-01-01T12:00:00Z"


def test_conditions_of_other_kinds_take_no_room_from_ours() -> None:
    """The schema takes sixteen of them: more would keep all from being written."""
    others = [Condition(f"Other{number}", "True", "Forged") for number in range(16)]
    before = [{"type": each.type, "status": each.status} for each in others]

    (after,) = stamped([Condition("Ready", "True", "Scanning")], before, 1, NOW)

    assert after["type"] == "Ready"


def test_a_long_message_is_cut() -> None:
    (condition,) = stamped(unusable(Trouble("InvalidSpec", "x" * 9999)), [], 1, NOW)

    assert len(condition["message"]) == MAX_MESSAGE


def test_launches_that_a_worker_holds_are_no_silence() -> None:
    old = ledger(item("a", since=ago(7200)), item("b", since=ago(7200)))

    assert said(ledger=old, alive=["id-a", "id-b"])["Stalled"].status == "False"
    assert "1 launches" in said(ledger=old, alive=["id-a"])["Stalled"].message
