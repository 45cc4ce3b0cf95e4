"""What is decided where workers have the guard, whose word is the evidence."""

from __future__ import annotations

from typing import Any

import pytest

from scannerjob.model.facts import Fact, Facts, TargetTraits
from scannerjob.model.ledger import Ledger, Phase
from scannerjob.model.reading import to_supersede, urgent, worth_a_look
from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec
from tests.unit.cases import (
    NOW,
    ago,
    decided,
    facts,
    item,
    later,
    ledger,
    only,
    phases,
    rows,
    seen,
    sent,
    spec,
)
from tests.unit.cases import document as scannerjob

GUARDED = TargetTraits(tells_outcomes=False, resend_within=None, guarded=True)
WITH_GUARD = {"broker": "b", "guard": "g"}
LAUNCHED, CLAIMED, WAITING = Phase.LAUNCHED, Phase.CLAIMED, Phase.WAITING
ALL = tuple(Fact)


def guarded(found: Rows | None = None, **fields: Any) -> Facts:
    return facts(found, **{"traits": GUARDED, "endpoints": WITH_GUARD, **fields})


def out(*items: Any, **fields: Any) -> Ledger:
    return ledger(*items, **{"endpoints": WITH_GUARD, **fields})


def given_up(
    read: Facts, known: Ledger | None = None, a_spec: ScannerJobSpec | None = None
) -> list[str]:
    return to_supersede(a_spec or spec(), known or out(item("a")), read, NOW)


class TestSettling:
    def test_a_row_that_left_settles_nothing_by_itself(self) -> None:
        for fact in (Fact.ACCEPTED, Fact.RUNNING, Fact.STARTED, Fact.SILENT, Fact.FORGOTTEN):
            decision = decided(spec(), out(item("a")), guarded(rows(), observations=seen(a=fact)))

            assert only(decision) == item("a"), fact

    def test_nor_does_it_where_the_guard_said_nothing(self) -> None:
        assert only(decided(spec(), out(item("a")), guarded(rows()))) == item("a")

    @pytest.mark.parametrize("fact", [Fact.LAPSED, Fact.FAILED, Fact.SUPERSEDED])
    def test_what_has_ended_for_certain_and_left_has_succeeded(self, fact: Fact) -> None:
        decision = decided(spec(), out(item("a")), guarded(rows(), observations=seen(a=fact)))

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)

    def test_a_lapsed_lease_costs_an_attempt_and_the_row_waits(self) -> None:
        lapsed = guarded(rows("a"), observations=seen(a=Fact.LAPSED))

        after = only(decided(spec(), out(item("a")), lapsed))

        assert (after.phase, after.attempt, after.reason) == (WAITING, 2, "LeaseLapsed")

    def test_what_never_began_costs_none(self) -> None:
        superseded = guarded(rows("a"), observations=seen(a=Fact.SUPERSEDED))

        decision = decided(spec(), out(item("a")), superseded)

        assert [(send.item.attempt, send.item.reason) for send in decision.sends] == [
            (1, "NeverStarted")
        ]

    def test_a_life_that_is_over_proves_nothing_without_the_guard_s_word(self) -> None:
        over = out(item("a", until=ago(3600)), last_settled=ago(1))
        for fact in (None, Fact.ACCEPTED, Fact.RUNNING, Fact.STARTED, Fact.SILENT):
            observations = {} if fact is None else seen(a=fact)
            decision = decided(spec(), over, guarded(rows("a"), observations=observations))

            assert phases(decision) == {"a": LAUNCHED}, fact

    def test_a_claim_that_a_worker_runs_was_sent(self) -> None:
        claimed = out(item("a", CLAIMED))

        decision = decided(spec(), claimed, guarded(rows("a"), observations=seen(a=Fact.RUNNING)))

        assert (phases(decision), decision.ledger.launched) == ({"a": LAUNCHED}, 1)

    def test_a_guard_that_was_only_now_added_is_not_asked_for_what_is_out(self) -> None:
        before = ledger(item("a"))
        forgotten = guarded(rows("a"), observations=seen(a=Fact.FORGOTTEN))

        assert sent(decided(spec(), before, forgotten)) == []
        assert decided(spec(), before, guarded(rows())).ledger.succeeded == 1


class TestGivingUp:
    def test_a_silent_worker_s_launch_is_given_up_before_the_rows_are_read(self) -> None:
        silent = seen(a=Fact.SILENT)

        assert given_up(guarded(observations=silent)) == ["id-a"]
        assert given_up(guarded(rows("a"), observations=silent)) == []

    def test_what_has_not_begun_is_given_up_when_its_row_leaves(self) -> None:
        assert given_up(guarded(rows(), observations=seen(a=Fact.ACCEPTED))) == ["id-a"]
        assert given_up(guarded(rows())) == ["id-a"]
        assert given_up(guarded(rows("a"), observations=seen(a=Fact.ACCEPTED))) == []
        assert given_up(guarded(rows(complete=False))) == []

    @pytest.mark.parametrize("fact", [Fact.RUNNING, Fact.STARTED])
    def test_what_has_begun_is_not(self, fact: Fact) -> None:
        assert given_up(guarded(rows(), observations=seen(a=fact))) == []

    def test_what_has_ended_needs_it_not(self) -> None:
        for fact in (Fact.SUCCEEDED, Fact.FAILED, Fact.LAPSED, Fact.SUPERSEDED):
            assert given_up(guarded(rows(), observations=seen(a=fact))) == [], fact

    def test_what_outlived_its_life_is_given_up_unless_it_runs(self) -> None:
        over = out(item("a", until=ago(1)))
        for fact, expected in {Fact.RUNNING: [], Fact.STARTED: ["id-a"]}.items():
            assert given_up(guarded(observations=seen(a=fact)), over) == expected

    def test_a_message_that_expired_unread_is_given_up_though_nothing_else_bounds_it(self) -> None:
        secret = {"urlSecretRef": {"name": "app", "key": "url"}}
        celery = {**scannerjob()["celery"], "guard": secret, "expires": "60s"}
        expiring, waits = spec(celery=celery), guarded(observations={})

        assert given_up(waits, out(item("a", since=ago(181))), expiring) == ["id-a"]
        assert given_up(waits, out(item("a", since=ago(170))), expiring) == []

    def test_absence_from_another_query_gives_nothing_up(self) -> None:
        assert given_up(guarded(rows()), out(item("a", query_hash="old"))) == []

    def test_another_guard_is_not_asked(self) -> None:
        elsewhere = guarded(rows(), endpoints={"broker": "b", "guard": "other"})

        assert given_up(elsewhere) == []

    @pytest.mark.parametrize("other", [{"broker": "other"}, {"resultBackend": "added"}])
    def test_the_guard_is_asked_though_something_else_has_changed(
        self, other: dict[str, str]
    ) -> None:
        over, moved = out(item("a", until=ago(1))), guarded(endpoints={**WITH_GUARD, **other})

        assert given_up(moved, over) == ["id-a"]

    def test_a_guard_that_was_only_now_added_supersedes_nothing(self) -> None:
        orphan = ledger(item("a", CLAIMED, since=ago(60)))

        assert given_up(guarded(rows(), observations={}), orphan) == []


class TestSendingAgain:
    def test_what_is_forgotten_is_sent_again_under_its_id_and_counted(self) -> None:
        forgotten = guarded(rows("a"), observations=seen(a=Fact.FORGOTTEN))

        decision = decided(spec(), out(item("a")), forgotten)

        assert sent(decision) == [("a", "id-a", 2)]
        assert (only(decision).phase, only(decision).since) == (LAUNCHED, NOW)
        assert decision.ledger.launched == 1

    def test_each_time_after_twice_as_long(self) -> None:
        def is_sent(sends: int, seconds: float) -> bool:
            again = out(item("a", sends=sends, since=ago(seconds), claimed=ago(9999)))
            return bool(sent(decided(spec(), again, forgotten)))

        forgotten = guarded(rows("a"), observations=seen(a=Fact.FORGOTTEN))

        assert [is_sent(1, 29), is_sent(1, 30)] == [False, True]
        assert [is_sent(3, 119), is_sent(3, 120)] == [False, True]
        assert [is_sent(50, 1919), is_sent(50, 1920)] == [False, True]

    def test_not_where_its_row_left_nor_where_its_life_is_over(self) -> None:
        gone = guarded(rows(), observations=seen(a=Fact.FORGOTTEN))
        there = guarded(rows("a"), observations=seen(a=Fact.FORGOTTEN))

        assert sent(decided(spec(), out(item("a")), gone)) == []
        assert sent(decided(spec(), out(item("a", until=ago(1))), there)) == []


class TestLooking:
    def test_rows_of_what_runs_are_not_worth_a_look(self) -> None:
        full, known = spec(concurrency=1), out(item("a", until=later(60)))
        for fact in (Fact.RUNNING, Fact.STARTED):
            assert not worth_a_look(full, known, guarded(observations=seen(a=fact)), NOW)
        assert worth_a_look(full, known, guarded(observations=seen(a=Fact.ACCEPTED)), NOW)

    def test_what_must_be_settled_is_urgent(self) -> None:
        known = out(item("a", until=later(60)))
        told = {fact for fact in ALL if urgent(known, guarded(observations=seen(a=fact)), NOW)}

        assert told == {
            *(Fact.SUCCEEDED, Fact.FAILED, Fact.GONE),
            *(Fact.SILENT, Fact.LAPSED, Fact.SUPERSEDED, Fact.FORGOTTEN),
        }
