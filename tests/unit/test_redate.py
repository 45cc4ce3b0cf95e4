"""Ledgers that were written by a clock which was ahead."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.redate import redated

NOW = datetime(2026, 1, 31, 12, 0, 0, 400_000, UTC)
SECOND = NOW.replace(microsecond=0)
AHEAD = SECOND + timedelta(hours=3)
REST = timedelta(seconds=10)


def item(
    phase: Phase, since: datetime, until: datetime | None = None, claimed: datetime | None = None
) -> Item:
    return Item("[1]", "a", phase, 1, 2, since, until=until, claimed=claimed)


def one(given: Item) -> Item:
    (found,) = redated(Ledger(items=(given,)), NOW).items
    return found


@pytest.mark.parametrize("phase", [Phase.WAITING, Phase.COOLING])
def test_a_rest_begins_anew_and_is_not_cut_short(phase: Phase) -> None:
    found = one(item(phase, AHEAD, until=AHEAD + REST))
    assert found.since == SECOND
    assert found.until == SECOND + REST + timedelta(seconds=1)


def test_a_parked_row_has_no_rest() -> None:
    assert one(item(Phase.PARKED, AHEAD)) == item(Phase.PARKED, SECOND)


@pytest.mark.parametrize("phase", [Phase.CLAIMED, Phase.LAUNCHED])
def test_what_is_out_lives_as_long_as_its_message_says(phase: Phase) -> None:
    until, early = AHEAD + timedelta(hours=1), SECOND - timedelta(minutes=1)
    assert one(item(phase, AHEAD, until=until)) == item(phase, SECOND, until=until)
    assert one(item(phase, AHEAD, claimed=AHEAD)).claimed == SECOND
    assert one(item(phase, AHEAD, claimed=early)).claimed == early


def test_what_two_clocks_differ_by_changes_nothing() -> None:
    near = SECOND + timedelta(minutes=2)
    ledger = Ledger(items=(item(Phase.WAITING, near, until=near + REST),), last_settled=near)
    assert redated(ledger, NOW) == ledger


def test_nobody_has_settled_in_the_future() -> None:
    assert redated(Ledger(last_settled=AHEAD), NOW).last_settled == SECOND
    assert redated(Ledger(), NOW).last_settled is None
