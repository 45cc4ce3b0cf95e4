"""Giving up what is out, in the world of the cycle: never what may still begin, and only once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from scannerjob import scan
from scannerjob.model import requests
from scannerjob.model.ledger import Ledger
from tests.model.basics import Setup, Violation
from tests.model.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """Launches without an end of their own: what dies without a word holds its slot."""
    world = World(Setup(rows=2, lifetime=False))
    yield world
    world.close()


def test_what_an_operator_is_about_to_send_is_not_given_up(world: World) -> None:
    _drain_before_the_send(world)
    assert len(world.store.outstanding()) == 2


def test_the_world_notices_if_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "_SENDERS_OWN", timedelta(0))
    with pytest.raises(Violation, match="after its slot was freed"):
        _drain_before_the_send(world)


def _drain_before_the_send(world: World) -> None:
    """Operator 0 has won its claims when a person has them given up, which operator 1 heeds."""
    while not world.operators[0].where.startswith("target.launch"):
        world.step(0)
    world.edit(suspend=True)
    world.force_drain()
    world.finish_cycle(1)
    world.finish_cycle(0)


def test_what_is_launched_later_is_not_given_up_again(world: World) -> None:
    _drain_and_go_on(world)
    assert len(world.store.outstanding()) == 2


def test_the_world_notices_if_it_is_given_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    heed = requests.heed

    def heed_and_forget(ledger: Ledger, *asked: Any, **how: Any) -> Ledger:
        return replace(heed(ledger, *asked, **how), handled_requests=ledger.handled_requests)

    monkeypatch.setattr(scan, "heed", heed_and_forget)
    with pytest.raises(Violation):
        _drain_and_go_on(world)


def _drain_and_go_on(world: World) -> None:
    """What died is given up and launched anew; then it is suspended once more."""
    _launch(world)
    for message in world.workers.at_work():
        world.workers.die(message)
    world.edit(suspend=True)
    world.force_drain()
    world.finish_cycle(0)
    assert not world.store.outstanding()
    world.edit(suspend=False)
    _launch(world)
    world.edit(suspend=True)
    world.finish_cycle(0)
    world.edit(suspend=False)
    _launch(world)


def _launch(world: World) -> None:
    """What can be launched is, and the ledger tells that it was sent."""
    for _ in range(2):
        world.advance(2)
        world.finish_cycle(0)
    assert len(world.workers.at_work()) == 2
