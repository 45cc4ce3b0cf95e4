"""One thing that happens, or goes wrong, at every single point of a cycle in turn.

Random walks come to each pair of a point and an event in the long run only; here none is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest

from scannerjob import scan
from scannerjob.model.facts import Fact
from scannerjob.model.limits import SEND_WITHIN
from tests.model.basics import Fault, Setup, Violation
from tests.model.world import World

_CELERY = Setup(rows=2, cap=2)
_FOR_EVER = replace(_CELERY, idempotent=False, lifetime=False)
SETUPS = {
    "Redis": replace(_CELERY, loses_ledgers=True),
    "Redis with results": replace(_CELERY, outcomes=True),
    "RabbitMQ": _FOR_EVER,
    "Jobs": replace(_FOR_EVER, jobs=True, flips=True, loses_ledgers=True),
}


# What operator 0 has done before its cycle.


def _nothing(world: World) -> None:
    pass


def _one_row_is_worked_on(world: World) -> None:
    world.finish_row("[1]")
    world.finish_cycle(0)
    for message in world.workers.in_state("queued"):
        world.workers.start(message)
    world.finish_cycle(0)
    world.return_row("[1]")
    world.advance(2)


def _a_send_was_not_answered(world: World) -> None:
    """It has arrived all the same."""
    while not world.operators[0].where.startswith(("target.launch", "jobs.create")):
        world.step(0)
    world.step(0, Fault.LANDED)
    world.finish_cycle(0)
    world.advance(2)


# What happens in the midst of it.


def _tasks_succeed(world: World) -> None:
    for message in world.workers.in_state("running"):
        world.workers.commit(message)
        world.workers.report(message, Fact.SUCCEEDED)
    world.cluster.control()


def _tasks_fail(world: World) -> None:
    for message in world.workers.in_state("running"):
        world.workers.report(message, Fact.FAILED)
    world.cluster.control()


def _rows_leave(world: World) -> None:
    for name in world.rows:
        world.finish_row(name)


def _it_freezes_and_its_rows_leave(world: World) -> None:
    """It wakes when the other operator has let all those claims go."""
    _rows_leave(world)
    _it_freezes(world)


def _it_freezes(world: World) -> None:
    """The other operator looks at its claims for so long that no send can answer for them."""
    for seconds in (16 * 60, 6, 6, 6):
        world.finish_cycle(1)
        world.advance(seconds)


def _it_is_killed(world: World) -> None:
    world.crash(0)


def _it_is_killed_and_another_takes_over(world: World) -> None:
    world.crash(0)
    for seconds in (6, 40):
        world.advance(seconds)
        world.finish_cycle(1)


def _another_is_quicker(world: World) -> None:
    world.finish_cycle(1)


def _the_ledger_is_lost(world: World) -> None:
    if world.setup.loses_ledgers:
        world.store.wipe()
        world.finish_cycle(1)


Event = Callable[[World], None]
STAGES: list[Event] = [_nothing, _one_row_is_worked_on, _a_send_was_not_answered]
EVENTS: list[Event] = [
    _tasks_succeed,
    _tasks_fail,
    _rows_leave,
    _it_freezes,
    _it_freezes_and_its_rows_leave,
    _it_is_killed,
    _it_is_killed_and_another_takes_over,
    _another_is_quicker,
    _the_ledger_is_lost,
]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", SETUPS)
def test_no_event_breaks_a_promise_wherever_it_comes(kind: str, stage: Event) -> None:
    for event in EVENTS:
        _at_each_point(kind, stage, event)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", SETUPS)
def test_no_call_that_fails_breaks_a_promise(kind: str, stage: Event) -> None:
    for fault in Fault:
        _at_each_point(kind, stage, partial(World.step, n=0, fault=fault))


def test_finds_a_sender_that_forgets_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "SEND_WITHIN", 100 * SEND_WITHIN)
    with pytest.raises(Violation, match="after its slot was freed"):
        _at_each_point("RabbitMQ", _nothing, _it_freezes_and_its_rows_leave)


def test_rows_that_are_parked_keep_no_other_from_its_turn() -> None:
    with closing(World(Setup(rows=5, cap=2, attempts=1, outcomes=True))) as world:
        for _ in range(2):
            world.finish_cycle(0)
            for message in world.workers.in_state("queued"):
                world.workers.start(message)
            _tasks_fail(world)
            world.finish_cycle(0)
            world.advance(2)
        world.recover()


def _at_each_point(kind: str, stage: Event, event: Event) -> None:
    """Let the event come at each point at which a cycle of operator 0 waits for something."""
    point, in_the_midst = 0, True
    while in_the_midst:
        point += 1
        with closing(World(SETUPS[kind])) as world:
            stage(world)
            for _ in range(point):
                world.step(0)
            in_the_midst = world.operators[0].cycle is not None
            event(world)
            _go_on(world)


def _go_on(world: World) -> None:
    """Let the cycle end, and what the network still has come late; all rows must be done."""
    if world.operators[0].cycle is not None:
        world.finish_cycle(0)
    for seconds in (2, 12):
        world.finish_cycle(1)
        world.advance(seconds)
        world.finish_cycle(0)
    for network in world.networks:
        while network.late:
            network.land_late(0)
    world.recover()
