"""What a scanner does between cycles: when it looks again, and what it remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta

import pytest

from scannerjob.model.conditions import find
from scannerjob.model.facts import Fact
from tests.model.basics import Fault, Setup
from tests.model.world import World

_worlds = ExitStack()


@pytest.fixture(autouse=True)
def close_worlds() -> Iterator[None]:
    with _worlds:
        yield


def opened(setup: Setup, operators: int) -> World:
    """A world of this test alone."""
    return _worlds.enter_context(closing(World(setup, operators)))


def one(lifetime: bool = True, outcomes: bool = False) -> World:
    """One row, one slot, one operator, and a ledger that was begun."""
    world = opened(Setup(rows=1, cap=1, lifetime=lifetime, outcomes=outcomes), operators=1)
    world.finish_row("[0]")
    world.finish_cycle(0)
    world.store.marked = True
    world.return_row("[0]")
    world.advance(30)
    return world


def until(world: World, where: str, fault: Fault = Fault.NONE) -> None:
    """Go on to this point, and past it with this fault."""
    world.step(0)
    while not world.operators[0].where.startswith(where):
        world.step(0)
    world.step(0, fault)


def finish(world: World) -> float:
    while world.operators[0].cycle is not None:
        world.step(0)
    delay = world.operators[0].delay
    assert delay is not None
    return delay


def conditions(world: World) -> dict[str, str]:
    return {each["type"]: each["status"] for each in world.store.status["conditions"]}


def phases(world: World) -> list[str]:
    return [each["phase"] for each in world.store.status["items"]]


def test_the_ledger_is_begun_and_marked_before_the_first_claim() -> None:
    world = opened(Setup(), operators=1)

    until(world, "store.mark")

    assert world.store.marked
    assert world.store.status["items"] == []


def test_the_outcome_of_a_send_is_written_at_once() -> None:
    world = one()

    delay = world.finish_cycle(0)
    assert (delay is not None and delay < 0.1, phases(world)) == (True, ["Claimed"])

    world.finish_cycle(0)
    assert phases(world) == ["Launched"]


def test_nothing_is_written_where_nothing_is_new() -> None:
    world = one(lifetime=False)
    for _ in range(3):
        world.finish_cycle(0)
    before = world.store.version

    for _ in range(5):
        world.advance(30)
        world.finish_cycle(0)

    assert world.store.version == before


@pytest.mark.parametrize("where", ["source.scan", "target.observe"])
def test_what_failed_is_tried_again_after_a_rest_and_not_after_the_interval(where: str) -> None:
    world = one()
    world.edit(interval="1h")

    until(world, where, Fault.REFUSED)
    delay = finish(world)
    assert delay == 1
    assert conditions(world)["Ready"] == "False"

    world.advance(delay)
    world.finish_cycle(0)
    assert phases(world) == ["Claimed"]
    world.finish_cycle(0)
    assert conditions(world)["Ready"] == "True"


def test_changes_of_the_conditions_are_told_once() -> None:
    world = one()
    world.recorder.notices.clear()

    until(world, "source.scan", Fault.REFUSED)
    world.advance(finish(world))
    for _ in range(3):
        world.finish_cycle(0)
    world.edit(interval="often")
    for _ in range(3):
        world.finish_cycle(0)
    world.edit(interval="1s")
    world.finish_cycle(0)

    assert [(each.type, each.reason) for each in world.recorder.notices] == [
        ("Warning", "DatabaseUnreachable"),
        ("Normal", "Scanning"),
        ("Warning", "InvalidSpec"),
        ("Normal", "Scanning"),
    ]


def test_what_was_wrong_with_the_spec_before_hides_nothing_that_is_wrong_now() -> None:
    world = one()
    until(world, "source.scan", Fault.REFUSED)
    world.advance(finish(world))

    world.edit(interval="1h")
    until(world, "target.observe", Fault.REFUSED)
    finish(world)

    ready = find(world.store.status, "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "BrokerUnreachable")


def test_a_row_out_of_attempts_is_told_once() -> None:
    world = opened(Setup(rows=1, cap=1, outcomes=True, attempts=1), operators=1)
    for _ in range(3):
        world.finish_cycle(0)
    [message] = world.workers.messages
    world.workers.start(message)
    world.workers.report(message, Fact.FAILED)
    for _ in range(3):
        world.finish_cycle(0)

    assert phases(world) == ["Parked"]
    assert world.recorder.reasons.count("RowsParked") == 1


def test_a_refused_launch_is_released_and_sent_anew() -> None:
    world = one()

    until(world, "target.launch", Fault.REFUSED)
    finish(world)
    world.finish_cycle(0)
    assert phases(world) == []

    world.advance(1)
    world.finish_cycle(0)
    world.finish_cycle(0)
    assert phases(world) == ["Launched"]
    assert len(world.workers.messages) == 1


@pytest.mark.parametrize("fault", [Fault.LANDED, Fault.LOST])
def test_a_claim_whose_write_had_no_answer_is_never_sent_and_released(fault: Fault) -> None:
    world = one()

    until(world, "store.write", fault)
    finish(world)
    assert world.workers.messages == []

    world.advance(1)
    for _ in range(3):
        world.finish_cycle(0)
    assert len(world.workers.messages) == 1
    assert phases(world) == ["Launched"]


def test_a_process_that_was_frozen_after_its_claim_sends_nothing() -> None:
    world = one()

    until(world, "store.write: answered")
    world.advance(31)
    finish(world)
    assert world.workers.messages == []

    world.finish_cycle(0)
    assert phases(world) == []


def test_a_claim_is_dated_when_it_is_made_however_long_reading_took() -> None:
    world = one()

    until(world, "source.scan")
    world.advance(3600)
    finish(world)

    assert world.store.status["items"][0]["since"] == "2030-01-01T01:00:30Z"


def test_a_launch_that_was_superseded_before_its_row_came_back_is_launched_anew() -> None:
    world = one(lifetime=False)
    until(world, "store.write")
    world.crash(0)
    world.finish_row("[0]")
    world.advance(6)
    until(world, "store.write", Fault.LOST)
    world.crash(0)
    world.return_row("[0]")

    world.recover()

    assert not world.rows["[0]"].pending
    assert world.workers.executed == {"launch-2"}


def test_a_rest_that_ends_during_a_cycle_is_not_slept_over() -> None:
    world = one(outcomes=True)
    world.edit(interval="1h")
    world.finish_cycle(0)
    world.finish_cycle(0)
    (message,) = world.workers.messages
    world.workers.start(message)
    world.workers.report(message, Fact.FAILED)
    world.advance(30)
    assert (world.finish_cycle(0) or 0) <= 11

    until(world, "target.observe")
    world.advance(20)
    assert finish(world) < 1
    world.finish_cycle(0)
    world.finish_cycle(0)
    assert phases(world) == ["Launched"]


def test_a_rest_begun_by_a_clock_that_was_ahead_lasts_no_longer_than_another() -> None:
    world = one(outcomes=True)
    world.ahead = timedelta(hours=3)
    world.finish_cycle(0)
    world.finish_cycle(0)
    (message,) = world.workers.messages
    world.workers.start(message)
    world.workers.report(message, Fact.FAILED)
    world.advance(30)
    world.finish_cycle(0)
    assert phases(world) == ["Waiting"]

    world.ahead = timedelta(0)
    world.finish_cycle(0)
    world.advance(1)
    world.finish_cycle(0)
    assert phases(world) == ["Waiting"]  # its rest is kept all the same
    world.advance(30)
    world.finish_cycle(0)
    world.finish_cycle(0)
    assert phases(world) == ["Launched"]


def test_a_claim_that_a_fast_clock_holds_for_old_may_still_be_on_its_way() -> None:
    world = opened(Setup(rows=1, cap=1, jobs=True), operators=2)
    while not world.operators[0].where.startswith("jobs.create"):
        world.step(0)

    world.ahead = timedelta(hours=1)
    for _ in range(3):
        world.finish_cycle(1)
    world.ahead = timedelta(0)
    world.finish_cycle(0)

    (item,) = world.store.status["items"]
    assert item["id"] == "launch-1"


def test_that_a_lost_ledger_was_accepted_says_nothing_of_the_next_loss() -> None:
    world = one(lifetime=False)
    world.store.requests = {"accept-lost-ledger": "once"}
    world.finish_cycle(0)
    before = len(world.workers.messages)
    world.store.wipe()

    for _ in range(3):
        world.advance(30)
        world.finish_cycle(0)

    assert {each["reason"] for each in world.store.status["conditions"]} >= {"LedgerLost"}
    assert len(world.workers.messages) == before


def test_of_what_a_person_asked_for_a_lost_ledger_keeps_what_is_known() -> None:
    """The schema bounds how many there are: more would keep the loss itself from being written."""
    world = one(lifetime=False)
    others = {f"other-{number}": "once" for number in range(100)}
    world.store.requests = {"accept-lost-ledger": "once", **others}
    world.store.wipe()

    world.finish_cycle(0)

    assert world.store.status["handledRequests"] == {"accept-lost-ledger": "once"}


def test_what_is_out_is_given_up_though_the_secret_of_its_broker_is_gone() -> None:
    world = one(lifetime=False)
    for _ in range(2):
        world.finish_cycle(0)
    for message in world.workers.at_work():
        world.workers.die(message)
    world.edit(suspend=True)
    world.force_drain()

    while world.operators[0].where != "connect":
        world.step(0)
    world.step(0, Fault.REFUSED)
    world.finish_cycle(0)

    assert not world.store.outstanding()
    assert world.store.status["lost"] == 1
    assert world.store.status["handledRequests"].keys() == {"force-drain"}


@pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99", 5])
def test_a_time_of_the_last_scan_that_is_none_ends_no_cycle(time: object) -> None:
    world = one(lifetime=False)
    for _ in range(2):
        world.finish_cycle(0)
        world.advance(1)
        world.store.status = {**world.store.status, "lastScanTime": time}
    world.advance(30)

    world.finish_cycle(0)

    assert world.store.status["lastScanTime"] != time


def test_a_target_that_answers_again_is_reachable_though_nothing_is_left_to_launch() -> None:
    world = one()
    until(world, "target.launch", Fault.REFUSED)
    finish(world)
    world.finish_cycle(0)
    assert conditions(world)["TargetReachable"] == "False"

    world.finish_row("[0]")
    world.advance(30)
    world.finish_cycle(0)

    assert conditions(world)["TargetReachable"] == "True"
    assert conditions(world)["Ready"] == "True"


def test_nothing_is_claimed_while_a_target_that_failed_does_not_answer() -> None:
    world = one()
    until(world, "target.launch", Fault.REFUSED)
    finish(world)
    world.finish_cycle(0)

    world.advance(1)
    until(world, "target.check", Fault.REFUSED)
    finish(world)
    assert phases(world) == []

    world.advance(2)
    world.finish_cycle(0)
    assert phases(world) == ["Claimed"]


def test_a_claim_that_may_be_on_its_way_to_the_old_broker_is_not_superseded_at_the_new_one() -> (
    None
):
    world = one(lifetime=False)
    old = world.broker
    until(world, "target.launch", Fault.LATE)
    world.crash(0)
    world.edit_broker()
    world.finish_row("[0]")
    world.advance(6)
    world.finish_cycle(0)

    old.land_late(0)

    assert phases(world) == ["Claimed"]
    assert conditions(world)["Ready"] == "False"


def test_a_finished_row_that_a_replica_still_shows_is_not_launched_by_another_key() -> None:
    world = opened(Setup(rows=2, cap=1, outcomes=True, cooldown="2s"), operators=1)
    for _ in range(2):
        world.finish_cycle(0)
    (message,) = world.workers.messages
    world.workers.start(message)
    world.workers.commit(message)
    world.workers.report(message, Fact.SUCCEEDED)
    world.edit_key()

    for _ in range(2):
        world.finish_cycle(0)
    assert phases(world) == ["Cooling"]
    assert len(world.workers.messages) == 1

    world.recover()
    assert world.workers.executed == {"launch-1", "launch-2"}


def test_a_healthy_sender_is_not_forestalled_though_republishing_is_wanted() -> None:
    world = opened(Setup(rows=1, cap=1, idempotent=False, republish=True), operators=2)
    while not world.operators[0].where.startswith("target.launch"):
        world.step(0)
    world.advance(6)

    world.finish_cycle(1)
    finish(world)
    world.finish_cycle(1)

    assert len(world.workers.messages) == 1


def test_a_row_beyond_the_scan_that_cannot_be_looked_up_holds_its_slot() -> None:
    world = opened(Setup(rows=4, cap=1, unfetchable=4), operators=1)
    for name in ("[0]", "[1]", "[2]"):
        world.finish_row(name)
    for _ in range(2):
        world.finish_cycle(0)
    for name in ("[0]", "[1]", "[2]"):
        world.return_row(name)

    world.advance(30)
    world.finish_cycle(0)

    assert [item["key"] for item in world.store.status["items"]] == ["[3]"]
    assert len(world.workers.messages) == 1


def launched_with_an_hour_to_the_next_look() -> World:
    world = one(lifetime=False)
    world.edit(interval="1h")
    for _ in range(2):
        world.finish_cycle(0)
    assert phases(world) == ["Launched"]
    world.advance(1)
    return world


def test_a_hint_has_the_rows_looked_at_before_it_is_time() -> None:
    world = launched_with_an_hour_to_the_next_look()
    world.finish_row("[0]")
    world.finish_cycle(0)
    assert phases(world) == ["Launched"]

    world.hinted = True
    world.finish_cycle(0)

    assert phases(world) == []


def test_a_hint_is_no_evidence() -> None:
    world = launched_with_an_hour_to_the_next_look()
    before = world.store.status

    world.hinted = True
    until(world, "source.scan")
    finish(world)

    assert world.store.status == before


def test_a_hint_outlives_a_look_that_failed() -> None:
    world = launched_with_an_hour_to_the_next_look()
    world.finish_row("[0]")

    world.hinted = True
    until(world, "source.scan", Fault.REFUSED)
    world.advance(finish(world))
    world.finish_cycle(0)

    assert phases(world) == []
