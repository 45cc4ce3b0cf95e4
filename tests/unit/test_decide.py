"""The rules of the decision, one by one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from scannerjob.model.decide import decide
from scannerjob.model.facts import Fact, Facts, Hold, Observation, Report, Stray, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase, ledger_to_status
from scannerjob.model.limits import MAX_LEDGER_BYTES, MAX_REASON
from scannerjob.model.reading import to_supersede
from tests.unit.cases import (
    ENDPOINTS,
    IDEMPOTENT,
    NOW,
    SILENT,
    TELLING,
    WITH_BACKEND,
    ago,
    bounded,
    decided,
    facts,
    item,
    later,
    ledger,
    only,
    phases,
    report,
    rows,
    seen,
    sent,
    spec,
)

JOBS = TargetTraits(tells_outcomes=True, resend_within=timedelta.max, sees_all=True)

CLAIMED, LAUNCHED, COOLING = Phase.CLAIMED, Phase.LAUNCHED, Phase.COOLING
WAITING, PARKED = Phase.WAITING, Phase.PARKED


def reasons(holds: tuple[Hold, ...]) -> list[str]:
    return [hold.reason for hold in holds]


class TestTheCap:
    def test_new_rows_are_claimed_in_the_querys_order_up_to_the_cap(self) -> None:
        decision = decided(spec(), ledger(), facts(rows("c", "a", "b")))

        assert sent(decision) == [("c", "new-1", 1), ("a", "new-2", 1)]
        assert phases(decision) == {"c": CLAIMED, "a": CLAIMED}
        assert decision.more_rows

    def test_a_lowered_cap_stops_launches_and_ends_none(self) -> None:
        out = ledger(item("a"), item("b"))

        decision = decided(spec(concurrency=1), out, facts(rows("a", "b", "c")))

        assert sent(decision) == []
        assert phases(decision) == {"a": LAUNCHED, "b": LAUNCHED}

    def test_a_cap_of_zero_launches_nothing(self) -> None:
        assert sent(decided(spec(concurrency=0), ledger(), facts(rows("a")))) == []

    def test_retries_come_before_new_rows(self) -> None:
        late = item("late", WAITING, until=ago(1), attempt=2)
        later_still = item("later", WAITING, until=ago(9), attempt=3)

        decision = decided(spec(), ledger(late, later_still), facts(rows("new", "late", "later")))

        assert [key for key, _, _ in sent(decision)] == ["later", "late"]
        assert [send.item.attempt for send in decision.sends] == [3, 2]

    def test_suspended_settles_but_sends_nothing(self) -> None:
        out = ledger(item("a"), item("b", WAITING, until=ago(1)))

        decision = decided(spec(suspend=True), out, facts(rows("b", "new")))

        assert (sent(decision), reasons(decision.holds)) == ([], ["Suspended"])
        assert decision.ledger.succeeded == 1


class TestWhatIsUnknown:
    def test_without_observations_nothing_is_freed(self) -> None:
        past = ledger(item("a", until=ago(1)), item("b", until=ago(1)))

        decision = decided(bounded(), past, facts(rows(), observations=None))

        assert phases(decision) == {"a": LAUNCHED, "b": LAUNCHED}

    def test_without_rows_nothing_is_launched_and_a_failure_waits_for_its_row(self) -> None:
        out = ledger(item("a"), item("b", WAITING, until=ago(1)))

        decision = decided(
            spec(), out, facts(None, traits=TELLING, observations=seen(a=Fact.FAILED))
        )

        assert sent(decision) == []
        assert phases(decision) == {"a": LAUNCHED, "b": WAITING}

    def test_a_hold_from_outside_sends_nothing(self) -> None:
        hold = Hold("BrokerUnreachable", "no answer")

        decision = decided(spec(), ledger(), facts(rows("a"), hold=hold))

        assert (sent(decision), decision.holds) == ([], (hold,))

    def test_a_row_that_was_not_looked_for_is_not_absent(self) -> None:
        decision = decided(spec(), ledger(item("a")), facts(rows("b", complete=False)))

        assert phases(decision)["a"] is LAUNCHED


class TestWhatBecameOfASend:
    def test_a_release_costs_no_attempt(self) -> None:
        first, second = item("a", CLAIMED), item("b", CLAIMED, attempt=2)
        hold = Hold("LaunchFailed", "refused")
        unsent = {**report("a", Fact.NOT_SENT), **report("b", Fact.NOT_SENT)}

        decision = decided(
            spec(), ledger(first, second), facts(rows("a", "b"), reports=unsent, hold=hold)
        )

        assert only(decision).key == "b"
        assert (only(decision).phase, only(decision).attempt) == (WAITING, 2)
        assert decision.ledger.launched == decision.ledger.lost == 0

    def test_accepted_is_launched(self) -> None:
        decision = decided(
            spec(), ledger(item("a", CLAIMED)), facts(reports=report("a", Fact.ACCEPTED))
        )

        assert only(decision).phase is LAUNCHED
        assert (decision.ledger.launched, decision.ledger.last_launch) == (1, NOW)

    def test_unsent_the_second_time_says_nothing_of_the_first(self) -> None:
        twice = item("a", CLAIMED, sends=2, since=ago(1))

        decision = decided(
            spec(), ledger(twice), facts(rows("a"), reports=report("a", Fact.NOT_SENT, sends=2))
        )

        assert (only(decision).phase, only(decision).reason) == (CLAIMED, "a reason")

    def test_a_report_of_an_earlier_send_that_failed_counts_for_nothing(self) -> None:
        twice = item("a", CLAIMED, sends=2, since=ago(1))

        decision = decided(
            spec(), ledger(twice), facts(rows("a"), reports=report("a", Fact.NOT_SENT, sends=1))
        )

        assert only(decision) == twice

    def test_superseded_is_proof_for_all_sends(self) -> None:
        twice = item("a", CLAIMED, sends=2, since=ago(9))
        read = facts(rows("a"), traits=IDEMPOTENT, reports=report("a", Fact.SUPERSEDED, sends=2))

        assert sent(decided(spec(), ledger(twice), read)) == [("a", "new-1", 1)]

    def test_superseded_proves_nothing_once_the_target_may_have_forgotten(self) -> None:
        old = item("a", CLAIMED, since=ago(9), claimed=ago(90_000))
        read = facts(rows(), traits=IDEMPOTENT, observations=seen(a=Fact.SUPERSEDED))

        assert only(decided(spec(), ledger(old), read)).phase is CLAIMED


class TestClaimsNobodyAnswersFor:
    def test_are_sent_again_under_the_same_id(self) -> None:
        orphan = item("a", CLAIMED, since=ago(6))

        decision = decided(spec(), ledger(orphan), facts(rows("a"), traits=IDEMPOTENT))

        assert sent(decision) == [("a", "id-a", 2)]
        assert (only(decision).since, only(decision).claimed) == (NOW, ago(6))

    @pytest.mark.parametrize("age", [0, 4])
    def test_are_left_alone_while_another_process_may_be_sending(self, age: int) -> None:
        orphan = item("a", CLAIMED, since=ago(age))

        assert sent(decided(spec(), ledger(orphan), facts(rows("a"), traits=IDEMPOTENT))) == []

    def test_are_held_where_a_second_send_is_a_second_execution(self) -> None:
        orphan = item("a", CLAIMED, since=ago(9999))

        decision = decided(spec(), ledger(orphan), facts(rows("a")))

        assert (sent(decision), only(decision)) == ([], orphan)

    @pytest.mark.parametrize(("seconds", "sends"), [(300, 1), (301, 0)])
    def test_whose_look_is_long_ago_are_looked_for_again_first_where_all_are_seen(
        self, seconds: int, sends: int
    ) -> None:
        orphan = item("a", CLAIMED, since=ago(400))
        read = facts(rows("a"), traits=replace(IDEMPOTENT, sees_all=True), read_at=ago(seconds))

        assert len(sent(decided(spec(), ledger(orphan), read))) == sends

    def test_are_not_sent_again_without_their_row(self) -> None:
        orphan = item("a", CLAIMED, since=ago(6))

        assert sent(decided(spec(), ledger(orphan), facts(rows(), traits=IDEMPOTENT))) == []

    def test_are_remembered_by_the_target_since_their_first_claim(self) -> None:
        orphan = item("a", CLAIMED, sends=9, since=ago(30), claimed=ago(90_000))

        assert sent(decided(spec(), ledger(orphan), facts(rows("a"), traits=IDEMPOTENT))) == []

    def test_expire_at_the_same_moment_with_every_send(self) -> None:
        first = decided(bounded(), ledger(), facts(rows("a"))).sends[0]
        orphan = replace(first.item, since=ago(50), until=later(82))

        again = decided(bounded(), ledger(orphan), facts(rows("a"), traits=IDEMPOTENT)).sends[0]

        assert first.expires_at == later(60)
        assert again.expires_at == later(10)
        assert again.item.until == later(82)

    def test_are_not_sent_without_an_end_where_their_slot_has_one(self) -> None:
        orphan = item("a", CLAIMED, since=ago(6), until=later(100))

        assert sent(decided(spec(), ledger(orphan), facts(rows("a"), traits=IDEMPOTENT))) == []

    def test_whose_row_left_are_kept_while_a_late_send_is_possible(self) -> None:
        early, old = item("a", CLAIMED, since=ago(899)), item("b", CLAIMED, since=ago(900))

        decision = decided(spec(), ledger(early, old), facts(rows()))

        assert phases(decision) == {"a": CLAIMED}
        assert (decision.ledger.launched, decision.ledger.succeeded) == (1, 1)


class TestEndings:
    def test_a_success_is_remembered_while_it_cools(self) -> None:
        decision = decided(
            spec(cooldown="1m"),
            ledger(item("a")),
            facts(rows("a"), traits=TELLING, observations=seen(a=Fact.SUCCEEDED)),
        )

        assert (only(decision).phase, only(decision).until) == (COOLING, later(60))
        assert decision.ledger.last_settled == NOW

    def test_a_success_whose_row_left_is_forgotten(self) -> None:
        read = facts(rows(), traits=TELLING, observations=seen(a=Fact.SUCCEEDED))

        decision = decided(spec(), ledger(item("a")), read)

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)

    def test_a_success_that_still_matches_waits_then_is_parked(self) -> None:
        read = facts(rows("a"), traits=TELLING, observations=seen(a=Fact.SUCCEEDED))

        again = only(decided(spec(), ledger(item("a")), read))
        last = only(decided(spec(), ledger(item("a", attempt=3)), read))

        assert (again.phase, again.attempt, again.reason) == (WAITING, 2, "StillMatches")
        assert (last.phase, last.attempt, last.reason) == (PARKED, 3, "StillMatches")

    def test_a_failure_spends_an_attempt(self) -> None:
        read = facts(rows("a"), traits=TELLING, observations=seen(a=Fact.FAILED))

        decision = decided(spec(), ledger(item("a")), read)

        waiting = only(decision)
        assert (waiting.phase, waiting.attempt, decision.ledger.failed) == (WAITING, 2, 1)
        assert waiting.until is not None
        assert later(9) <= waiting.until <= later(10)

    def test_a_failure_whose_row_left_succeeded(self) -> None:
        read = facts(rows(), traits=TELLING, observations=seen(a=Fact.FAILED))

        decision = decided(spec(), ledger(item("a")), read)

        assert (decision.ledger.succeeded, decision.ledger.failed) == (1, 0)

    def test_a_row_that_left_ends_its_launch_where_the_target_tells_nothing(self) -> None:
        decision = decided(spec(), ledger(item("a")), facts(rows()))

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)

    def test_a_row_that_left_ends_nothing_where_a_result_backend_tells(self) -> None:
        out = ledger(item("a"), endpoints=WITH_BACKEND)

        decision = decided(spec(), out, facts(rows(), traits=TELLING, endpoints=WITH_BACKEND))

        assert phases(decision) == {"a": LAUNCHED}

    def test_started_and_revoked_prove_no_end(self) -> None:
        read = facts(
            rows("a", "b"),
            traits=TELLING,
            observations=seen(a=Fact.STARTED, b=Fact.NOT_STARTED),
        )

        assert phases(decided(spec(), ledger(item("a"), item("b")), read)) == {
            "a": LAUNCHED,
            "b": LAUNCHED,
        }

    def test_backoff_doubles_up_to_its_bound(self) -> None:
        read = facts(rows("a"), traits=TELLING, observations=seen(a=Fact.FAILED))
        retry = {"attempts": 100, "backoff": "10s", "maxBackoff": "1m"}

        def rest(attempt: int) -> float:
            out = ledger(item("a", attempt=attempt))
            until = only(decided(spec(retry=retry), out, read)).until
            assert until is not None
            return (until - NOW).total_seconds()

        assert 9 <= rest(1) <= 10 < 18 <= rest(2) <= 20 < 54 <= rest(5) <= 60
        assert 54 <= rest(99) <= 60


class TestLapses:
    def test_a_launch_of_which_nothing_was_heard_while_others_worked_is_lost(self) -> None:
        out = ledger(item("a", until=ago(1)), last_settled=ago(30))

        decision = decided(bounded(), out, facts(rows("a")))

        assert (only(decision).phase, only(decision).attempt) == (WAITING, 2)
        assert (only(decision).reason, decision.ledger.lost) == ("Lost", 1)

    def test_one_that_may_never_have_been_sent_costs_no_attempt(self) -> None:
        out = ledger(item("a", CLAIMED, until=ago(1)), last_settled=ago(30))

        decision = decided(bounded(suspend=True), out, facts(rows("a")))

        assert (only(decision).attempt, only(decision).reason) == (1, "NeverStarted")

    def test_where_nobody_worked_it_never_started_and_costs_no_attempt(self) -> None:
        out = ledger(item("a", until=ago(1)), last_settled=ago(999))

        decision = decided(bounded(suspend=True), out, facts(rows("a")))

        assert (only(decision).attempt, only(decision).reason) == (1, "NeverStarted")
        assert only(decision).until == NOW

    def test_why_it_is_launched_again_stands_in_its_claim(self) -> None:
        out = ledger(item("a", until=ago(1)))

        decision = decided(bounded(), out, facts(rows("a")))

        assert sent(decision) == [("a", "new-1", 1)]
        assert (only(decision).attempt, only(decision).reason) == (1, "NeverStarted")

    @pytest.mark.parametrize(("fact", "attempt"), [(Fact.STARTED, 2), (Fact.NOT_STARTED, 1)])
    def test_what_the_target_saw_of_it_decides(self, fact: Fact, attempt: int) -> None:
        out = ledger(item("a", until=ago(1)), last_settled=ago(30))
        read = facts(rows("a"), traits=TELLING, observations=seen(a=fact))

        decision = decided(bounded(suspend=True), out, read)

        assert only(decision).attempt == attempt

    @pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
    def test_the_order_of_items_changes_nothing(self, order: tuple[str, str]) -> None:
        items = {"a": item("a", until=ago(1)), "b": item("b", until=later(9))}
        read = facts(rows("a"), traits=TELLING, observations=seen(b=Fact.SUCCEEDED))

        decision = decided(bounded(), ledger(*(items[key] for key in order)), read)

        assert only(decision).reason == "Lost"

    def test_a_life_that_ended_while_we_read_is_not_over_yet(self) -> None:
        out = ledger(item("a", until=ago(1)))

        decision = decided(bounded(), out, facts(rows("a"), read_at=ago(2)))

        assert only(decision).phase is LAUNCHED


class TestForgetting:
    def test_waiting_and_parked_rows_that_left_are_forgotten(self) -> None:
        resting = ledger(item("a", WAITING, until=later(9)), item("b", PARKED))

        assert decided(spec(), resting, facts(rows())).ledger.items == ()

    def test_a_row_that_comes_back_starts_at_its_first_attempt(self) -> None:
        decision = decided(spec(), ledger(), facts(rows("a")))

        assert only(decision).attempt == 1

    def test_parked_rows_that_still_match_stay(self) -> None:
        decision = decided(spec(), ledger(item("a", PARKED)), facts(rows("a")))

        assert (sent(decision), phases(decision)) == ([], {"a": PARKED})

    def test_what_is_held_back_still_matches(self) -> None:
        resting = ledger(item("a", PARKED))

        decision = decided(spec(), resting, facts(rows(held_back=frozenset({"a"}))))

        assert phases(decision) == {"a": PARKED}

    def test_with_a_limit_in_the_query_absence_is_never_known(self) -> None:
        resting = ledger(item("a", WAITING, until=later(9)), item("b"))

        decision = decided(spec(), resting, facts(rows(absence_knowable=False)))

        assert phases(decision) == {"a": WAITING, "b": LAUNCHED}

    def test_with_a_limit_a_cooled_row_is_forgotten_all_the_same(self) -> None:
        cooled = ledger(item("a", COOLING, until=ago(1)))

        decision = decided(spec(), cooled, facts(rows(absence_knowable=False)))

        assert decision.ledger.items == ()


class TestRefusals:
    def test_spend_an_attempt_since_the_row_would_be_refused_again(self) -> None:
        refused = facts(rows("a"), traits=JOBS, reports=report("a", Fact.REFUSED))

        decision = decided(spec(), ledger(item("a", CLAIMED)), refused)
        last = decided(spec(), ledger(item("a", CLAIMED, attempt=3)), refused)

        waiting = only(decision)
        assert (waiting.phase, waiting.attempt, waiting.reason) == (WAITING, 2, "a reason")
        assert (only(last).phase, only(last).attempt) == (PARKED, 3)

    def test_count_as_no_launch_that_failed(self) -> None:
        refused = facts(rows("a"), traits=JOBS, reports=report("a", Fact.REFUSED))

        counted = decided(spec(), ledger(item("a", CLAIMED)), refused).ledger

        assert (counted.launched, counted.failed, counted.lost) == (0, 0, 0)

    def test_of_a_second_send_say_nothing_of_the_first(self) -> None:
        twice = item("a", CLAIMED, sends=2, since=ago(1))
        refused = facts(rows("a"), traits=JOBS, reports=report("a", Fact.REFUSED, sends=2))

        decision = decided(spec(suspend=True), ledger(twice), refused)

        assert (only(decision).phase, only(decision).reason) == (CLAIMED, "a reason")


class TestLaunchesThatAreGone:
    def gone(self, *matching: str, **fields: object) -> Facts:
        looked = {"traits": JOBS, "observations": seen(a=Fact.GONE), **fields}
        return facts(rows(*matching), **looked)

    def test_spend_an_attempt_where_their_row_still_matches(self) -> None:
        decision = decided(spec(), ledger(item("a")), self.gone("a"))

        assert (only(decision).phase, only(decision).attempt) == (WAITING, 2)
        assert (only(decision).reason, decision.ledger.lost) == ("Gone", 1)

    def test_did_their_work_where_their_row_has_left(self) -> None:
        decision = decided(spec(), ledger(item("a")), self.gone())

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)
        assert decision.ledger.last_settled is None

    def test_hold_their_slot_until_their_row_was_looked_for(self) -> None:
        unread = facts(None, traits=JOBS, observations=seen(a=Fact.GONE))

        assert phases(decided(spec(), ledger(item("a")), unread)) == {"a": LAUNCHED}

    @pytest.mark.parametrize("matching", [(), ("a",)])
    def test_may_only_not_be_there_yet_while_a_send_can_be_on_its_way(
        self, matching: tuple[str, ...]
    ) -> None:
        claim = item("a", CLAIMED, since=ago(899))

        decision = decided(spec(suspend=True), ledger(claim), self.gone(*matching))

        assert phases(decision) == {"a": CLAIMED}

    def test_were_never_made_once_none_can_be(self) -> None:
        first = item("a", CLAIMED, since=ago(900))
        second = replace(first, attempt=2, sends=3, claimed=ago(2000))

        released = decided(spec(suspend=True), ledger(first), self.gone("a"))
        waiting = only(decided(spec(suspend=True), ledger(second), self.gone("a")))

        assert released.ledger == replace(ledger(), items=())
        assert (waiting.phase, waiting.attempt, waiting.reason) == (WAITING, 2, "NeverCreated")

    def test_that_we_made_ourselves_are_gone_by_now_and_no_new_ones(self) -> None:
        claim = item("a", CLAIMED, since=ago(900))
        reports = {claim.id: Report(1, Observation(Fact.ACCEPTED))}

        decision = decided(
            spec(suspend=True), ledger(claim), replace(self.gone("a"), reports=reports)
        )

        assert (only(decision).phase, only(decision).attempt) == (WAITING, 2)
        assert (decision.ledger.launched, decision.ledger.lost) == (1, 1)

    def test_were_looked_for_when_reading_began_and_not_now(self) -> None:
        claim = item("a", CLAIMED, since=ago(900))

        decision = decided(spec(suspend=True), ledger(claim), self.gone("a", read_at=ago(1)))

        assert phases(decision) == {"a": CLAIMED}


class TestStrays:
    def stray(self, key: str = "a", attempt: int = 1) -> Stray:
        return Stray(f"stray-{key}", key, attempt, ago(30.5), f"Job pages-{key}")

    def test_get_a_slot_beyond_the_cap(self) -> None:
        read = facts(rows("a", "b"), traits=JOBS, strays=(self.stray(),))

        decision = decided(spec(concurrency=1), ledger(item("b")), read)

        assert phases(decision) == {"b": LAUNCHED, "a": LAUNCHED}
        (taken,) = (item for item in decision.ledger.items if item.id == "stray-a")
        assert (taken.attempt, taken.since) == (1, ago(31))
        assert (decision.ledger.launched, sent(decision)) == (2, [])

    def test_keep_their_row_from_being_launched_in_the_same_cycle(self) -> None:
        read = facts(rows("a", "b"), traits=JOBS, strays=(self.stray(),))

        assert [key for key, _, _ in sent(decided(spec(), ledger(), read))] == ["b"]

    @pytest.mark.parametrize("phase", [WAITING, PARKED, COOLING])
    def test_take_the_place_of_what_rests_and_forget_no_attempt(self, phase: Phase) -> None:
        rests = item("a", phase, attempt=2, until=later(60))
        read = facts(rows("a"), traits=JOBS, strays=(self.stray(attempt=1),))

        taken = only(decided(spec(), ledger(rests), read))

        assert (taken.id, taken.phase, taken.attempt) == ("stray-a", LAUNCHED, 2)

    def test_of_a_row_that_has_another_launch_out_hold_all_launches(self) -> None:
        read = facts(rows("a", "b"), traits=JOBS, strays=(self.stray(),))

        decision = decided(spec(), ledger(item("a")), read)

        assert (sent(decision), reasons(decision.holds)) == ([], ["DuplicateJob"])
        assert only(decision) == item("a")
        assert "Job pages-a" in decision.holds[0].message

    def test_two_of_one_row_are_a_duplicate_too(self) -> None:
        twice = (self.stray(), replace(self.stray(), id="another"))

        decision = decided(spec(), ledger(), facts(rows("a"), traits=JOBS, strays=twice))

        assert (only(decision).id, reasons(decision.holds)) == ("stray-a", ["DuplicateJob"])

    def test_get_their_slots_back_while_the_ledger_is_lost(self) -> None:
        lost = ledger(lost_at=ago(1), lost_until=later(899))
        read = facts(rows("a", "b"), traits=JOBS, strays=(self.stray(),))

        decision = decided(spec(), lost, read)

        assert (phases(decision), sent(decision)) == ({"a": LAUNCHED}, [])


class TestBounds:
    def test_no_more_than_a_thousand_failures_and_the_cap_are_remembered(self) -> None:
        failures = [item(f"{n}", PARKED) for n in range(1001)]
        keys = [each.key for each in failures]

        decision = decided(spec(), ledger(*failures), facts(rows(*keys, "new", "newer")))

        assert [key for key, _, _ in sent(decision)] == ["new"]
        assert reasons(decision.brakes) == ["TooManyFailures"]

    def test_retries_go_on_beyond_the_bound(self) -> None:
        failures = [item(f"{n}", PARKED) for n in range(1500)]
        due = item("due", WAITING, until=ago(1))
        keys = [each.key for each in failures]

        decision = decided(spec(), ledger(*failures, due), facts(rows(*keys, "due", "new")))

        assert [key for key, _, _ in sent(decision)] == ["due"]

    def test_the_status_stays_under_half_a_mebibyte(self) -> None:
        import json

        keys = [f"{n:04}" + "ä" * 90 for n in range(2000)]
        a_spec, read = bounded(concurrency=1000), facts(rows(*keys))

        decision = decided(a_spec, ledger(), read)
        worst = [
            replace(send.item, reason="x" * MAX_REASON, claimed=NOW, query_hash="f" * 64)
            for send in decision.sends
        ]

        assert reasons(decision.brakes) == ["TooManyFailures"]
        assert len(json.dumps(ledger_to_status(Ledger(tuple(worst))))) < 512 * 1024
        assert MAX_LEDGER_BYTES < 512 * 1024

    def test_a_long_reason_is_cut(self) -> None:
        failed = {"id-a": Observation(Fact.FAILED, "x" * 100_000)}

        decision = decided(spec(), ledger(item("a")), facts(rows("a"), observations=failed))

        assert only(decision).reason == "x" * MAX_REASON


class TestWhereEvidenceComesFrom:
    def test_a_row_that_the_present_query_has_shown_may_leave_that_one(self) -> None:
        foreign = ledger(item("a", query_hash="q0"))

        shown = decided(spec(), foreign, facts(rows("a"))).ledger
        left = decided(spec(), shown, facts(rows())).ledger

        assert (shown.items[0].query_hash, left.items, left.succeeded) == (None, (), 1)

    def test_rows_known_by_other_columns_prove_nothing_and_launch_nothing(self) -> None:
        by_id = ledger(item("a"), item("old", WAITING, until=later(60)), key=("id",))

        decision = decided(spec(), by_id, facts(rows("b", key=("title",))))

        assert (sent(decision), reasons(decision.holds)) == ([], ["KeyChanged"])
        assert decision.ledger.items == by_id.items
        assert decision.ledger.key == ("id",)

    def test_another_key_is_taken_over_once_nothing_is_out(self) -> None:
        by_id = ledger(item("a", PARKED), item("c", COOLING), key=("id",))

        decision = decided(spec(), by_id, facts(rows("a", "b", key=("title",))))

        assert [(key, attempt) for key, _, attempt in sent(decision)] == [("a", 1), ("b", 1)]
        assert decision.ledger.key == ("title",)

    @pytest.mark.parametrize("phase", [WAITING, PARKED])
    def test_another_key_waits_until_the_row_of_a_lost_launch_would_have_left(
        self, phase: Phase
    ) -> None:
        just_lost = ledger(item("a", phase, since=NOW), key=("id",))

        decision = decided(spec(cooldown="10s"), just_lost, facts(rows("a", key=("title",))))

        assert (sent(decision), reasons(decision.holds)) == ([], ["KeyChanged"])

    def test_absence_under_another_query_proves_nothing(self) -> None:
        decision = decided(spec(), ledger(item("a")), facts(rows(), query_hash="q2"))

        assert only(decision) == item("a", query_hash="q")
        assert decision.ledger.query_hash == "q2"

    def test_it_counts_again_when_the_query_is_changed_back(self) -> None:
        changed = decided(spec(), ledger(item("a")), facts(rows(), query_hash="q2")).ledger

        decision = decided(spec(), changed, facts(rows(), query_hash="q"))

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)

    def test_an_endpoint_that_changed_launches_nothing_while_launches_are_out(self) -> None:
        moved = {"broker": "b2"}

        decision = decided(spec(), ledger(item("a")), facts(rows("a", "b"), endpoints=moved))

        assert (sent(decision), reasons(decision.holds)) == ([], ["EndpointChanged"])
        assert decision.ledger.endpoints == ENDPOINTS

    def test_another_broker_is_not_asked_about_claims_of_the_old_one(self) -> None:
        orphans = ledger(item("a", CLAIMED, since=ago(60)))
        here, elsewhere = (
            facts(rows(), traits=IDEMPOTENT, endpoints={"broker": broker}) for broker in "bc"
        )

        assert to_supersede(spec(), orphans, here, NOW) == ["id-a"]
        assert to_supersede(spec(), orphans, elsewhere, NOW) == []

    def test_it_is_taken_over_once_nothing_is_out(self) -> None:
        moved = {"broker": "b2"}

        decision = decided(spec(), ledger(item("a", PARKED)), facts(rows("b"), endpoints=moved))

        assert [key for key, _, _ in sent(decision)] == ["b"]
        assert decision.ledger.endpoints == moved

    def test_a_backend_that_was_just_added_tells_nothing_of_what_is_out(self) -> None:
        read = facts(rows(), traits=TELLING, endpoints=WITH_BACKEND)

        decision = decided(spec(), ledger(item("a")), read)

        assert (decision.ledger.items, decision.ledger.succeeded) == ((), 1)


class TestALostLedger:
    lost = Ledger(query_hash="q", endpoints=ENDPOINTS, lost_at=ago(60))

    def test_launches_nothing(self) -> None:
        decision = decided(spec(), self.lost, facts(rows("a")))

        assert (sent(decision), reasons(decision.holds)) == ([], ["LedgerLost"])

    def test_is_over_when_its_launches_must_have_ended(self) -> None:
        before = replace(self.lost, lost_until=later(1))
        after = replace(self.lost, lost_until=NOW)

        assert sent(decided(spec(), before, facts(rows("a")))) == []
        assert len(sent(decided(spec(), after, facts(rows("a"))))) == 1

    def test_is_not_over_for_a_bound_that_came_too_late(self) -> None:
        long_ago = replace(self.lost, lost_at=ago(1_000_000))

        assert sent(decided(bounded(), long_ago, facts(rows("a")))) == []


def test_no_rest_is_cut_short_by_the_part_of_a_second() -> None:
    late = NOW + timedelta(milliseconds=950)
    a_spec = spec(cooldown="2s", retry={"backoff": "0s"})
    read = facts(rows("a"), observations=seen(a=Fact.SUCCEEDED), read_at=late)

    cooling = decide(a_spec, ledger(item("a")), read, late, str).ledger

    assert cooling.items[0].until == later(3)


def test_a_person_who_deletes_rows_costs_the_others_no_attempt() -> None:
    gone, lapsed = (item(key, until=ago(1)) for key in "ab")

    decision = decided(bounded(), ledger(gone, lapsed), facts(rows("b")))

    assert [(each.key, each.attempt) for each in decision.ledger.items] == [("b", 1)]


@pytest.mark.parametrize(
    ("republish", "age", "sends", "again"),
    [(True, 34, 1, 0), (True, 35, 1, 1), (True, 90, 4, 1), (True, 90, 5, 0), (False, 90, 1, 0)],
)
def test_what_no_target_remembers_is_left_to_its_sender_and_then_to_its_author(
    republish: bool, age: int, sends: int, again: int
) -> None:
    traits = replace(SILENT, republish=republish)
    orphan = ledger(item("a", CLAIMED, since=ago(age), sends=sends))

    assert len(sent(decided(spec(), orphan, facts(rows("a"), traits=traits)))) == again


def test_a_launch_lives_for_expires_and_deadline_and_a_tenth_for_clocks() -> None:
    claimed = only(decided(bounded(), ledger(), facts(rows("a"))))
    margin = replace(SILENT, life_margin=timedelta(seconds=60))
    longer = only(decided(bounded(), ledger(), facts(rows("a"), traits=margin)))

    assert (claimed.until, longer.until) == (later(132), later(192))


def test_the_time_limit_is_sent_only_where_there_is_a_deadline() -> None:
    (without,) = decided(spec(), ledger(), facts(rows("a"))).sends
    (with_one,) = decided(
        spec(deadline="1m", job={"template": {}}, celery=None), ledger(), facts(rows("a"))
    ).sends

    assert (without.time_limit, without.expires_at) == (None, None)
    assert with_one.time_limit == timedelta(minutes=1)


def test_every_outcome_is_counted_once() -> None:
    out = ledger(
        item("a"), item("b"), item("c", until=ago(1)), item("d", CLAIMED), item("e", CLAIMED)
    )
    read = facts(
        rows("b", "c", "d"),
        traits=TELLING,
        observations=seen(a=Fact.SUCCEEDED, b=Fact.FAILED, e=Fact.SUCCEEDED),
    )

    after = decided(bounded(), out, read).ledger
    launched = sum(each.phase is LAUNCHED for each in after.items)

    assert (after.succeeded, after.failed, after.lost) == (2, 1, 1)
    assert after.launched == after.succeeded + after.failed + after.lost + launched


def test_the_decision_changes_nothing_where_nothing_is_new() -> None:
    items: tuple[Item, ...] = (
        item("a"),
        item("b", CLAIMED, since=ago(3)),
        item("c", WAITING, until=later(9)),
        item("d", PARKED),
        item("e", COOLING, until=later(9)),
    )
    before = ledger(*items)

    assert decided(spec(), before, facts(rows("a", "b", "c", "d", "e"))).ledger == before
