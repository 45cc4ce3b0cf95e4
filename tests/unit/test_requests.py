"""What a person asks for by a nonce: done once, and only as far as it may be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.requests import (
    ACCEPT_LOST_LEDGER,
    FORCE_DRAIN,
    RETRY,
    SCAN,
    asks_anew,
    heed,
)
from tests.unit.cases import NOW, ago, item, later, ledger


def heeded(before: Ledger, suspended: bool = False, **requests: str) -> Ledger:
    asked = {name.replace("_", "-"): nonce for name, nonce in requests.items()}
    return heed(before, asked, suspended=suspended, now=NOW)


def parked(key: str) -> Item:
    return item(key, phase=Phase.PARKED, attempt=3, since=ago(60), reason="exit code 1")


def phases(of: Ledger) -> dict[str, Phase]:
    return {each.key: each.phase for each in of.items}


def test_where_nothing_is_asked_for_nothing_changes() -> None:
    before = ledger(item("a"))

    assert heeded(before) is before


def test_what_was_heeded_is_not_heeded_again() -> None:
    once = heeded(Ledger(lost_at=NOW), accept_lost_ledger="nonce")
    again = heeded(replace(once, lost_at=NOW), accept_lost_ledger="nonce")

    assert (once.lost_at, again.lost_at) == (None, NOW)


def test_a_new_nonce_is_heeded_beside_what_was_heeded_before() -> None:
    after = heeded(heeded(ledger(), scan="1"), scan="2", retry="3 *")

    assert after.handled_requests == {SCAN: "2", RETRY: "3 *"}


def test_what_means_nothing_is_not_kept() -> None:
    """The schema bounds how many there are, and anybody who may annotate can add one."""
    others = {f"other-{number}": "x" for number in range(100)}

    after = heed(ledger(), {SCAN: "1", **others}, suspended=False, now=NOW)

    assert after.handled_requests == {SCAN: "1"}


def test_a_look_is_asked_for_until_it_was_heeded() -> None:
    asked = {SCAN: "1"}

    assert asks_anew(SCAN, asked, ledger())
    assert not asks_anew(SCAN, asked, heed(ledger(), asked, suspended=False, now=NOW))
    assert not asks_anew(SCAN, {}, ledger())


class TestRetry:
    def test_lets_a_parked_row_begin_anew_now(self) -> None:
        (after,) = heeded(ledger(parked("a")), retry="nonce a").items

        assert (after.phase, after.attempt, after.until) == (Phase.WAITING, 1, NOW)
        assert after.reason == "exit code 1"

    def test_ends_the_rest_of_one_that_waits(self) -> None:
        before = item("a", phase=Phase.WAITING, attempt=2, until=later(600))

        (after,) = heeded(ledger(before), retry="nonce a").items

        assert (after.phase, after.attempt, after.until) == (Phase.WAITING, 1, NOW)

    def test_is_of_this_row_alone(self) -> None:
        after = heeded(ledger(parked("a"), parked("b b")), retry="nonce b b")

        assert phases(after) == {"a": Phase.PARKED, "b b": Phase.WAITING}

    def test_of_all_is_of_those_that_are_parked(self) -> None:
        resting = item("c", phase=Phase.WAITING, attempt=2, until=later(600))
        before = ledger(parked("a"), parked("b"), resting, item("d"))

        after = heeded(before, retry="nonce *")

        waiting = {"a": Phase.WAITING, "b": Phase.WAITING, "c": Phase.WAITING}
        assert phases(after) == {**waiting, "d": Phase.LAUNCHED}
        assert after.items[2:] == before.items[2:]

    @pytest.mark.parametrize("phase", [Phase.CLAIMED, Phase.LAUNCHED, Phase.COOLING])
    def test_changes_nothing_of_one_that_is_out_or_finished(self, phase: Phase) -> None:
        before = ledger(item("a", phase=phase))

        assert heeded(before, retry="nonce a").items == before.items


class TestForcedDrain:
    def test_frees_the_slots_and_counts_each_loss_once(self) -> None:
        before = ledger(item("a"), item("b", attempt=2), launched=5, lost=1)

        after = heeded(before, suspended=True, force_drain="nonce")

        assert after.outstanding == ()
        assert (after.launched, after.lost) == (5, 3)
        assert [(each.attempt, each.reason) for each in after.items] == [
            (1, "GivenUp"),
            (2, "GivenUp"),
        ]

    def test_leaves_a_claim_to_who_may_be_sending_it(self) -> None:
        young = item("a", phase=Phase.CLAIMED, since=ago(30))
        old = item("b", phase=Phase.CLAIMED, since=ago(3600))

        after = heeded(ledger(young, old, launched=0), suspended=True, force_drain="nonce")

        assert phases(after) == {"a": Phase.CLAIMED, "b": Phase.WAITING}
        assert (after.launched, after.lost) == (1, 1)

    def test_leaves_a_launch_to_who_may_be_sending_it_once_more(self) -> None:
        young, old = item("a", sends=2, since=ago(30)), item("b", sends=2, since=ago(3600))

        after = heeded(ledger(young, old), suspended=True, force_drain="nonce")

        assert phases(after) == {"a": Phase.LAUNCHED, "b": Phase.WAITING}

    def test_does_nothing_while_launches_go_on(self) -> None:
        """Nor later: it was asked for when it could not be meant."""
        before = ledger(item("a"))

        after = heeded(before, force_drain="nonce")

        assert after.items == before.items
        assert not asks_anew(FORCE_DRAIN, {FORCE_DRAIN: "nonce"}, after)

    def test_leaves_what_rests_as_it_is(self) -> None:
        before = ledger(parked("a"), item("b", phase=Phase.COOLING))

        assert heeded(before, suspended=True, force_drain="nonce").items == before.items


def test_a_loss_that_is_accepted_holds_nothing_any_more() -> None:
    lost = Ledger(lost_at=NOW, lost_until=later(60))

    after = heeded(lost, accept_lost_ledger="nonce")

    assert (after.lost_at, after.lost_until) == (None, None)
    assert after.handled_requests == {ACCEPT_LOST_LEDGER: "nonce"}
