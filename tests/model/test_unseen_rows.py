"""Rows that a look does not show although their work is not done, and one that shows it still."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from scannerjob.model.facts import Fact
from tests.model.basics import Fault, Setup
from tests.model.table import QUERY
from tests.model.world import World

# Nothing but its row tells how a launch has ended, and it may take any time.
_BY_ROW = Setup(rows=4, cap=2, idempotent=False, lifetime=False)


def _a_limit_keeps_it_back(world: World) -> None:
    world.return_row("[0]")


def _another_query_does_not_find_it(world: World) -> None:
    world.edit_query()


def _it_lies_beyond_what_is_read(world: World) -> None:
    for name in world.rows:
        world.return_row(name)
    world.edit(concurrency=1)


_Event = Callable[[World], None]
# In what kind of world, and which row it is that is not shown.
UNSEEN: dict[_Event, tuple[Setup, str]] = {
    _a_limit_keeps_it_back: (replace(_BY_ROW, limit=1), "[1]"),
    _another_query_does_not_find_it: (_BY_ROW, "[0]"),
    _it_lies_beyond_what_is_read: (_BY_ROW, "[3]"),
}


@pytest.mark.parametrize("event", UNSEEN)
def test_a_row_that_is_not_shown_is_not_launched_anew_when_it_is(event: _Event) -> None:
    setup, worked_on = UNSEEN[event]
    with closing(World(setup)) as world:
        _work_on(world, worked_on)
        event(world)
        _let_time_pass(world)
        _show_it_alone(world, worked_on)
        _let_time_pass(world)
        world.recover()


def test_a_row_that_its_launch_has_left_undone_is_tried_so_often_and_parked() -> None:
    with closing(World(replace(_BY_ROW, rows=1, outcomes=True))) as world:
        for _ in range(10):
            world.finish_cycle(0)
            for message in world.workers.in_state("queued"):
                world.workers.start(message)
                world.workers.report(message, Fact.SUCCEEDED)
            world.advance(60)
        world.finish_cycle(0)
        assert [item["phase"] for item in world.store.status["items"]] == ["Parked"]
        assert len(world.workers.executed) == world.setup.attempts


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(hours=1)], ids=["", "clock set"])
def test_a_launch_that_may_be_on_its_way_keeps_its_slot_when_its_row_has_left(
    ahead: timedelta,
) -> None:
    with closing(World(replace(_BY_ROW, rows=1))) as world:
        while not world.operators[0].where.startswith("target.launch"):
            world.step(0)
        world.step(0, Fault.LATE)
        world.ahead = ahead
        world.finish_row("[0]")
        _let_time_pass(world)
        world.brokers[0].land_late(0)
        world.recover()


def test_what_is_in_doubt_at_one_broker_is_not_sent_to_another() -> None:
    with closing(World(replace(_BY_ROW, idempotent=True, rows=1))) as world:
        while not world.operators[0].where.startswith("target.launch"):
            world.step(0)
        world.step(0, Fault.LANDED)
        world.edit_broker()
        _let_time_pass(world)
        world.recover()


def _work_on(world: World, name: str) -> None:
    for other in world.rows.keys() - {name}:
        world.finish_row(other)
    world.finish_cycle(0)
    for message in world.workers.in_state("queued"):
        world.workers.start(message)
    world.advance(2)


def _show_it_alone(world: World, name: str) -> None:
    for other in world.rows.keys() - {name}:
        world.finish_row(other)
    if world.table.query != QUERY:
        world.edit_query()
    world.edit(concurrency=world.setup.cap)


def _let_time_pass(world: World) -> None:
    """Both operators look, more than once."""
    for n in (0, 1, 0, 1):
        world.finish_cycle(n)
        world.advance(20)
