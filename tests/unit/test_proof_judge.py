"""The judge of runs, given histories that keep each promise, at its edges too, or break it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from math import inf
from typing import Any

import pytest

from tests.proof.history import (
    Death,
    Excuse,
    Execution,
    Fault,
    Gap,
    History,
    Job,
    Message,
    Pod,
    Row,
    Version,
    seconds,
)
from tests.proof.judge import judge
from tests.proof.promised import Promised
from tests.proof.violation import MAX_LINES, Violation

JOBS = Promised(None, slack=1.0, recovery=5.0)
GUARDED = replace(JOBS, broker="redis", guard=True)
REDIS = replace(JOBS, broker="redis")
RABBIT = replace(JOBS, broker="rabbitmq")
SPEC: dict[str, Any] = {
    "concurrency": 2,
    "interval": "1s",
    "retry": {"attempts": 3, "backoff": "1s", "maxBackoff": "2s"},
}


def spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


def version(
    time: float,
    *out: str,
    uid: str = "u",
    deleted: bool = False,
    spec: dict[str, Any] = SPEC,
    items: tuple[dict[str, Any], ...] = (),
    **status: Any,
) -> Version:
    """A version whose ledger has these launches out; `a7` is one of row `[a]`."""
    held = [{"id": each, "key": f"[{each[0]}]", "phase": "Launched"} for each in out]
    ledger = {"items": [*held, *items], "active": len(held), **status}
    return Version(time, uid, f"r{time}", spec, ledger, deleted)


def item(launch: str, phase: str, **more: Any) -> dict[str, Any]:
    return {"id": launch, "key": f"[{launch[0]}]", "phase": phase, **more}


def job(
    launch: str,
    created: float,
    finished: float | None = None,
    outcome: str = "Complete",
    owner: str | None = "u",
    uid: str | None = None,
    deleted: float | None = None,
) -> Job:
    told: Any = outcome if finished is not None else None
    named = uid or f"uid-{launch}"
    row = f"[{launch[0]}]"
    return Job(f"job-{launch}", named, owner, launch, row, created, finished, told, deleted)


def message(launch: str, time: float, expires: float = inf, time_limit: float = inf) -> Message:
    return Message(time, launch, f"[{launch[0]}]", expires, time_limit)


def run(
    launch: str,
    started: float,
    ended: float | None = None,
    outcome: Any = "succeeded",
    worker: str = "w",
) -> Execution:
    told = outcome if ended is not None else None
    return Execution(launch, f"[{launch[0]}]", worker, started, ended, told)


def row(name: str, since: float = 0.0, until: float = inf) -> Row:
    return Row(f"[{name}]", since, until)


def of_jobs(*jobs: Job, end: float = 20.0, **more: Any) -> History:
    """A history whose ledger shows each of these Jobs, and whose rows nobody watched."""
    claims = [version(each.created - 0.1, each.launch, uid=each.owner or "u") for each in jobs]
    given: dict[str, Any] = {
        "versions": sorted([version(0.0), *claims], key=lambda each: each.time),
        **more,
    }
    return History(end, jobs=jobs, **given)


def of_messages(*messages: Message, end: float = 20.0, **more: Any) -> History:
    """A history of messages; its rows match all along, unless others are given."""
    claims = [version(each.time - 0.1, each.launch) for each in messages]
    rows = [row(name) for name in sorted({each.row[1:-1] for each in messages})]
    versions = sorted([version(0.0), *claims], key=lambda each: each.time)
    return History(end, messages=messages, **{"versions": versions, "rows": rows, **more})


def broken(promise: str, history: History, promised: Promised) -> list[Violation]:
    return [each for each in judge(history, promised) if each.promise == promise]


def must_accuse(promise: str, history: History, promised: Promised) -> Violation:
    (found,) = broken(promise, history, promised)
    assert len(found.excerpt) <= MAX_LINES
    assert list(found.excerpt) == sorted(found.excerpt)
    return found


def texts(found: Violation) -> list[str]:
    return [moment.text for moment in found.excerpt]


def at(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def kept_by_jobs() -> History:
    """Two rows done by Jobs, the first at its second attempt; the status tells of it and is quiet.

    The final version is at 12, nothing happens afterwards.
    """
    done: dict[str, Any] = {"launched": 3, "succeeded": 2, "failed": 1, "lost": 0}
    return History(
        end=60.0,
        versions=[
            version(0.0),
            version(1.0, "a1", "b1", launched=2),
            version(4.0, "b1", items=(item("a1", "Waiting", until=at(5)),), launched=2, failed=1),
            version(5.5, "b1", "a2", launched=3, failed=1),
            version(9.1, **done),
        ],
        jobs=[job("a1", 1.1, 3.5, "Failed"), job("b1", 1.2, 9.0), job("a2", 5.6, 8.0)],
        pods=[Pod("p1", "a1", 1.3, 3.0), Pod("p2", "b1", 1.4, 8.9), Pod("p3", "a2", 5.7, 7.9)],
        executions=[
            run("a1", 1.5, 2.9, "failed", "p1"),
            run("b1", 1.6, 8.8, worker="p2"),
            run("a2", 6.0, 7.8, worker="p3"),
        ],
        rows=[row("a", until=7.7), row("b", until=8.7)],
    )


def kept_by_guard() -> History:
    """One row done at once, and one whose first worker dies."""
    done: dict[str, Any] = {"launched": 3, "succeeded": 2, "failed": 0, "lost": 1}
    return History(
        end=120.0,
        versions=[
            version(0.0),
            version(1.0, "a1", "b1"),
            version(3.1, "b1", launched=2, succeeded=1),
            version(
                20.0,
                items=(item("b1", "Waiting", until=at(21)),),
                launched=2,
                succeeded=1,
                lost=1,
            ),
            version(22.0, "b2", launched=3, succeeded=1, lost=1),
            version(26.0, **done),
        ],
        messages=[message("a1", 1.1), message("b1", 1.2), message("b2", 22.1)],
        executions=[run("a1", 2.0, 3.0), run("b1", 2.1, worker="x"), run("b2", 23.0, 25.0)],
        deaths=[Death("x", 5.0)],
        rows=[row("a", until=2.9), row("b", until=24.9)],
    )


def with_final(history: History, **counters: int) -> History:
    final = history.versions[-1]
    changed = replace(final, status={**final.status, **counters})
    return replace(history, versions=[*history.versions[:-1], changed])


def test_histories_without_fault() -> None:
    assert judge(kept_by_jobs(), JOBS) == []
    assert judge(kept_by_guard(), GUARDED) == []


def test_an_excerpt_is_printed_in_order_and_in_few_lines() -> None:
    many = of_jobs(*(job(f"{name}1", 1.0 + place) for place, name in enumerate("abcdefghijklmno")))
    *_, last = broken("cap", many, JOBS)
    lines = str(last).splitlines()
    assert lines[0] == "cap: o1 is launched while 14 are out, the cap is 2"
    assert len(lines) == MAX_LINES + 1
    assert lines[-1] == "      15.000  Job job-o1 (o1, row [o]) is created"


def test_durations() -> None:
    assert [seconds(each) for each in ("500ms", "30s", "1h30m", "1m500ms")] == [0.5, 30, 5400, 60.5]


class TestCap:
    PROMISE = "cap"

    def test_a_slot_that_is_refilled_at_the_instant_it_is_freed(self) -> None:
        assert not broken(self.PROMISE, of_jobs(job("a1", 1), job("b1", 2, 3), job("c1", 3)), JOBS)

    def test_one_too_many(self) -> None:
        found = must_accuse(
            self.PROMISE, of_jobs(job("a1", 1), job("b1", 2, 3.5), job("c1", 3)), JOBS
        )
        assert found.sentence == "c1 is launched while 2 are out, the cap is 2"
        assert texts(found)[0] == "Job job-a1 (a1, row [a]) is created"
        assert texts(found)[-1] == "Job job-c1 (c1, row [c]) is created"

    def test_two_begun_at_one_instant(self) -> None:
        must_accuse(self.PROMISE, of_jobs(job("a1", 1), job("b1", 1), job("c1", 1)), JOBS)

    def test_a_lowered_cap_kills_nothing_and_lets_what_was_claimed_before_be_sent(self) -> None:
        lower = spec(concurrency=1)
        claimed = version(1.0, "a1", "b1")
        lowered = version(2.0, "a1", "b1", spec=lower)
        history = History(20.0, [version(0.0), claimed, lowered], [job("a1", 1.1), job("b1", 9.0)])
        assert not broken(self.PROMISE, history, JOBS)
        again = version(10.0, "a1", "b1", "c1", spec=lower)
        more = replace(
            history, versions=[*history.versions, again], jobs=[*history.jobs, job("c1", 10.1)]
        )
        assert must_accuse(self.PROMISE, more, JOBS).sentence.endswith(
            "while 2 are out, the cap is 1"
        )

    def test_a_cap_that_was_raised_between_claim_and_launch(self) -> None:
        versions = [version(0.0, spec=spec(concurrency=1)), version(1.0, "a1", "b1")]
        history = History(20.0, versions, [job("a1", 1.1), job("b1", 1.2)])
        assert not broken(self.PROMISE, history, JOBS)

    def test_what_is_suspended_launches_nothing(self) -> None:
        suspended = version(1.0, spec=spec(suspend=True))
        claimed = version(5.0, "a1", spec=spec(suspend=True))
        history = History(60.0, [version(0.0), suspended, claimed], [job("a1", 5.1)])
        must_accuse(self.PROMISE, history, JOBS)

    def test_a_message_is_out_until_its_work_ends(self) -> None:
        out = [message("a1", 1), message("b1", 1)]
        runs = [run("a1", 2, 3)]
        refilled = of_messages(*out, message("c1", 3), executions=runs)
        assert not broken(self.PROMISE, refilled, GUARDED)
        too_soon = of_messages(*out, message("c1", 2.9), executions=runs)
        must_accuse(self.PROMISE, too_soon, GUARDED)

    def test_an_expired_message_is_not_out(self) -> None:
        out = [message("a1", 1, expires=4), message("b1", 1)]
        assert not broken(self.PROMISE, of_messages(*out, message("c1", 4)), RABBIT)
        must_accuse(self.PROMISE, of_messages(*out, message("c1", 3)), RABBIT)

    def test_a_redelivered_message_that_does_not_execute_takes_no_slot(self) -> None:
        out = [message("a1", 1), message("b1", 1), message("a1", 4), message("c1", 5)]
        assert not broken(self.PROMISE, of_messages(*out, executions=[run("a1", 2, 3)]), GUARDED)

    def test_a_row_that_left_frees_a_slot_where_nothing_else_tells(self) -> None:
        messages = [message("a1", 1), message("b1", 1), message("c1", 3)]
        rows = [row("a", until=2.5), row("b"), row("c")]
        history = of_messages(*messages, rows=rows, executions=[run("a1", 2)])
        assert not broken(self.PROMISE, history, RABBIT)
        must_accuse(self.PROMISE, history, GUARDED)

    def test_a_worker_that_died_may_have_begun_what_nobody_saw_begin(self) -> None:
        messages = [message("a1", 1), message("b1", 1), message("c1", 5)]
        must_accuse(self.PROMISE, of_messages(*messages), GUARDED)
        died = of_messages(*messages, deaths=[Death("x", 2)])
        assert not broken(self.PROMISE, died, GUARDED)

    def test_a_deleted_job_is_out_while_its_pod_runs(self) -> None:
        jobs = [job("a1", 1, deleted=2), job("b1", 1), job("c1", 6)]
        must_accuse(self.PROMISE, of_jobs(*jobs, pods=[Pod("p", "a1", 1.5, 9)]), JOBS)
        assert not broken(self.PROMISE, of_jobs(*jobs, pods=[Pod("p", "a1", 1.5, 6.5)]), JOBS)

    def test_nothing_is_said_of_a_cap_nobody_saw(self) -> None:
        jobs = of_jobs(job("a1", 1), job("b1", 1), job("c1", 2), gaps=[Gap("scannerjobs", 1, 3)])
        assert not broken(self.PROMISE, jobs, JOBS)


class TestOnce:
    PROMISE = "once while outstanding"

    def test_the_next_attempt(self) -> None:
        assert not broken(self.PROMISE, of_jobs(job("a1", 1, 2, "Failed"), job("a2", 2)), JOBS)

    def test_beside_one_that_is_out(self) -> None:
        found = must_accuse(self.PROMISE, of_jobs(job("a1", 1, 2.1), job("a2", 2)), JOBS)
        assert found.sentence == "row [a] is launched as a2 while a1 is out"
        assert [moment.time for moment in found.excerpt] == [1, 2, 2.1]

    def test_two_scannerjobs_are_two_scanners(self) -> None:
        assert not broken(self.PROMISE, of_jobs(job("a1", 1), job("a2", 2, owner="v")), JOBS)

    def test_a_message_beside_another(self) -> None:
        two = of_messages(message("a1", 1), message("a2", 5))
        must_accuse(self.PROMISE, two, GUARDED)
        died = replace(two, executions=[run("a1", 2)], deaths=[Death("w", 3)])
        assert not broken(self.PROMISE, died, GUARDED)

    def test_a_send_that_came_after_it_was_given_up(self) -> None:
        late = History(
            end=60.0,
            versions=[version(0.0), version(1.0, "a1"), version(3.0), version(4.0, "a2")],
            messages=[message("a2", 4.1), message("a1", 9.0)],
            rows=[row("a")],
        )
        assert not broken(self.PROMISE, late, GUARDED)
        must_accuse(self.PROMISE, late, REDIS)

    def test_an_excuse_that_says_why_nothing_is_known_of_the_first(self) -> None:
        two = of_messages(message("a1", 1), message("a2", 5), executions=[run("a1", 2)])
        frozen = replace(two, excuses=[Excuse("frozen", 3, worker="w")])
        later = replace(two, excuses=[Excuse("frozen", 6, worker="w")])
        assert not broken(self.PROMISE, frozen, GUARDED)
        must_accuse(self.PROMISE, later, GUARDED)


class TestOneJob:
    PROMISE = "one Job per launch"

    def test_two_objects_of_one_launch(self) -> None:
        found = must_accuse(self.PROMISE, of_jobs(job("a1", 1, 2), job("a1", 4, uid="other")), JOBS)
        assert found.sentence == "a1 has 2 Job objects"
        assert [moment.time for moment in found.excerpt] == [1, 2, 4]

    def test_a_copy_that_nobody_owns(self) -> None:
        copied = of_jobs(job("a1", 1, 2), job("a1", 4, uid="other", owner=None))
        assert not broken(self.PROMISE, copied, JOBS)

    @pytest.mark.parametrize(("ended", "kept"), [(5.0, True), (5.9, True), (6.1, False)])
    def test_beside_a_pod_of_a_former_one(self, ended: float, kept: bool) -> None:
        jobs = [job("a1", 1, deleted=3), job("a2", 5)]
        history = of_jobs(*jobs, pods=[Pod("p", "a1", 2, ended)])
        found = broken(self.PROMISE, history, JOBS)
        assert (not found) == kept
        if found:
            assert found[0].sentence == "a2 is created while a pod of a1 may run"
            assert "pod p (a1) is created" in texts(found[0])

    def test_a_pod_whose_end_nobody_could_see(self) -> None:
        jobs = [job("a1", 1, deleted=3), job("a2", 5)]
        history = of_jobs(*jobs, pods=[Pod("p", "a1", 2)])
        must_accuse(self.PROMISE, history, JOBS)
        unseen = replace(history, gaps=[Gap("pods", 3.5, 4)])
        assert not broken(self.PROMISE, unseen, JOBS)


class TestOneExecution:
    PROMISE = "one execution per launch"

    def test_a_second_message_does_nothing_under_the_guard(self) -> None:
        twice = of_messages(message("a1", 1), message("a1", 4), executions=[run("a1", 2, 3)])
        assert not broken(self.PROMISE, twice, GUARDED)
        found = must_accuse(self.PROMISE, twice, REDIS)
        assert found.sentence == "a1 is published 2 times"
        assert [moment.time for moment in found.excerpt] == [1, 4]

    def test_republish_puts_up_with_it_where_the_broker_cannot_drop_it(self) -> None:
        twice = of_messages(message("a1", 1), message("a1", 4))
        must_accuse(self.PROMISE, twice, RABBIT)
        assert not broken(self.PROMISE, twice, replace(RABBIT, republish=True))

    def test_a_second_execution(self) -> None:
        runs = [run("a1", 2, 3), run("a1", 5, 6)]
        twice = of_messages(message("a1", 1), executions=runs)
        found = must_accuse(self.PROMISE, twice, GUARDED)
        assert [moment.time for moment in found.excerpt] == [1, 2, 3, 5, 6]
        must_accuse(self.PROMISE, twice, REDIS)
        assert not broken(self.PROMISE, twice, RABBIT)

    def test_an_execution_that_gave_itself_back(self) -> None:
        runs = [run("a1", 2, 3, "retried"), run("a1", 5, 6)]
        retried = of_messages(message("a1", 1), executions=runs)
        assert not broken(self.PROMISE, retried, GUARDED)

    def test_a_broker_that_delivers_again_is_named_as_an_excuse(self) -> None:
        runs = [run("a1", 2, 3), run("a1", 5, 6)]
        excuse = Excuse("delivered again", 4, launch="a1")
        history = of_messages(message("a1", 1), executions=runs, excuses=[excuse])
        assert not broken(self.PROMISE, history, REDIS)
        other = replace(history, excuses=[replace(excuse, launch="b1")])
        must_accuse(self.PROMISE, other, REDIS)


class TestOneAtATime:
    PROMISE = "one at a time"

    def test_adjacent_executions(self) -> None:
        runs = [run("a1", 2, 4, "failed"), run("a2", 4, 5)]
        messages = [message("a1", 1), message("a2", 3.9)]
        assert not broken(self.PROMISE, of_messages(*messages, executions=runs), GUARDED)

    def test_two_at_once(self) -> None:
        runs = [run("a1", 2, 4), run("a2", 3.9, 5)]
        messages = [message("a1", 1), message("a2", 3)]
        found = must_accuse(self.PROMISE, of_messages(*messages, executions=runs), GUARDED)
        assert found.sentence == "row [a] is executed twice at once"
        assert [moment.time for moment in found.excerpt] == [2, 3.9, 4, 5]

    def test_a_worker_that_died_executes_no_more(self) -> None:
        messages = [message("a1", 1), message("a2", 3)]
        runs = [run("a1", 2), run("a2", 6, 7, worker="x")]
        history = of_messages(*messages, executions=runs, deaths=[Death("w", 5)])
        assert not broken(self.PROMISE, history, GUARDED)
        must_accuse(self.PROMISE, replace(history, deaths=[Death("w", 6.5)]), GUARDED)

    def test_a_time_limit_ends_what_recorded_no_end(self) -> None:
        # It runs from the real begin, and that is noted up to a second later.
        runs = [run("a1", 2), run("a2", 6, 7)]
        limited = [message("a1", 1, time_limit=5), message("a2", 5)]
        assert not broken(self.PROMISE, of_messages(*limited, executions=runs), GUARDED)
        longer = [message("a1", 1, time_limit=5.5), message("a2", 5)]
        must_accuse(self.PROMISE, of_messages(*longer, executions=runs), GUARDED)

    def test_an_end_that_may_have_been_missed(self) -> None:
        runs = [run("a1", 2), run("a2", 6, 7)]
        messages = [message("a1", 1), message("a2", 5)]
        history = of_messages(*messages, executions=runs, gaps=[Gap("executions", 3, 4)])
        assert not broken(self.PROMISE, history, GUARDED)

    def test_a_row_that_leaves_before_its_work_is_done(self) -> None:
        messages = [message("a1", 1), message("a2", 5)]
        runs = [run("a1", 2, 9), run("a2", 6, 7)]
        rows = [row("a", until=3), row("a", since=4)]
        history = of_messages(*messages, executions=runs, rows=rows)
        assert not broken(self.PROMISE, history, RABBIT)
        must_accuse(self.PROMISE, history, GUARDED)

    def test_the_pods_of_one_job_are_kubernetes(self) -> None:
        history = of_jobs(job("a1", 1), executions=[run("a1", 2), run("a1", 3)])
        assert not broken(self.PROMISE, history, JOBS)
        two = of_jobs(job("a1", 1), job("a2", 2), executions=[run("a1", 2), run("a2", 3)])
        must_accuse(self.PROMISE, two, JOBS)


class TestRelaunch:
    PROMISE = "no relaunch of finished rows"

    def history(self, again: float, *rows: Row, outcome: str = "succeeded") -> History:
        return of_messages(
            message("a1", 1),
            message("a2", again),
            executions=[run("a1", 2, 4, outcome)],
            rows=rows or [row("a", until=3.9)],
        )

    def test_a_finished_row(self) -> None:
        for promised in (GUARDED, RABBIT):
            found = must_accuse(self.PROMISE, self.history(5), promised)
            assert found.sentence == "row [a] is launched as a2 though a1 had finished it"
            assert [moment.time for moment in found.excerpt] == [0, 1, 2, 3.9, 4, 5]

    def test_a_row_that_returned(self) -> None:
        rows = [row("a", until=3.9), row("a", since=4.5)]
        assert not broken(self.PROMISE, self.history(5, *rows), GUARDED)
        must_accuse(self.PROMISE, self.history(4.4, *rows), GUARDED)

    def test_a_row_that_still_matched_and_left_for_another_reason(self) -> None:
        assert not broken(self.PROMISE, self.history(5, row("a", until=4.5)), GUARDED)
        assert not broken(self.PROMISE, self.history(5, row("a")), GUARDED)

    def test_a_failure_whose_row_left(self) -> None:
        assert not broken(self.PROMISE, self.history(5, outcome="failed"), GUARDED)

    def test_a_message_claimed_before_that_came_late(self) -> None:
        history = self.history(9)
        versions = [version(0.0), version(0.5, "a2"), version(0.7), version(0.9, "a1")]
        assert not broken(self.PROMISE, replace(history, versions=versions), GUARDED)

    def test_a_finished_row_with_jobs(self) -> None:
        again = of_jobs(
            job("a1", 1, 5),
            job("a2", 6),
            executions=[run("a1", 2, 4)],
            rows=[row("a", until=3.9)],
        )
        must_accuse(self.PROMISE, again, JOBS)


class TestCounters:
    PROMISE = "each outcome is counted once"

    @pytest.mark.parametrize(
        ("counter", "count"),
        [("succeeded", 3), ("succeeded", 1), ("failed", 0), ("failed", 2), ("lost", 1)],
    )
    def test_an_outcome_that_is_counted_twice_or_never(self, counter: str, count: int) -> None:
        found = broken(self.PROMISE, with_final(kept_by_jobs(), **{counter: count}), JOBS)
        assert found
        assert "ScannerJob u at r9.1" in " ".join(texts(found[-1]))

    def test_a_wrong_kind(self) -> None:
        wrong = with_final(kept_by_jobs(), succeeded=1, failed=2)
        found = broken(self.PROMISE, wrong, JOBS)
        assert found[-1].sentence == "1 succeeded by the counters of u; 2 seen"
        assert texts(found[-1])[-1].endswith("launched 3, succeeded 1, failed 2, lost 0")

    @pytest.mark.parametrize("launched", [2, 4])
    def test_launches(self, launched: int) -> None:
        found = broken(self.PROMISE, with_final(kept_by_jobs(), launched=launched), JOBS)
        assert found[-1].sentence == f"u has launched {launched} by its counter; 3 were seen"

    def test_a_failure_whose_row_left_is_counted_as_either_but_once(self) -> None:
        either = History(
            end=60.0,
            versions=[version(0.0), version(1.0, "a1"), version(5.0, launched=1, succeeded=1)],
            jobs=[job("a1", 1.1, 4.0, "Failed")],
            rows=[row("a", until=3.0)],
        )
        assert not broken(self.PROMISE, either, JOBS)
        assert not broken(self.PROMISE, with_final(either, succeeded=0, failed=1), JOBS)
        assert broken(self.PROMISE, with_final(either, failed=1), JOBS)
        assert broken(self.PROMISE, with_final(either, succeeded=0), JOBS)
        assert broken(self.PROMISE, with_final(either, succeeded=0, lost=1), JOBS)

    def test_a_job_deleted_before_its_end_was_counted(self) -> None:
        deleted = replace(
            kept_by_jobs(), jobs=[replace(each, deleted=9.05) for each in kept_by_jobs().jobs]
        )
        assert not broken(self.PROMISE, deleted, JOBS)
        lost = with_final(deleted, succeeded=1, lost=1)
        assert not broken(self.PROMISE, lost, JOBS)

    def test_a_counter_that_goes_down(self) -> None:
        history = kept_by_jobs()
        reset = [*history.versions, version(58.0)]
        assert broken(self.PROMISE, replace(history, versions=reset), JOBS)
        excused = replace(history, versions=reset, excuses=[Excuse("ledger lost", 57, uid="u")])
        assert not broken(self.PROMISE, excused, JOBS)

    def test_nothing_is_said_before_things_have_settled(self) -> None:
        wrong = with_final(kept_by_jobs(), succeeded=7)
        assert not broken(self.PROMISE, replace(wrong, end=10.0), JOBS)

    def test_a_claim_that_was_perhaps_never_sent_is_counted_when_its_life_is_over(self) -> None:
        claimed = version(1.0, items=(item("a1", "Claimed", until=at(9)),), active=1)
        over = version(10.0, launched=1, lost=1)
        history = History(60.0, [version(0.0), claimed, over])
        assert not broken(self.PROMISE, history, RABBIT)
        assert broken(self.PROMISE, history, JOBS)
        assert broken(self.PROMISE, with_final(history, lost=2), RABBIT)

    def test_a_message_that_did_nothing_may_have_been_given_back(self) -> None:
        base = kept_by_guard()
        late = replace(base, messages=[*base.messages, message("c1", 27)])
        counted: dict[str, Any] = base.versions[-1].counters
        claims = [*base.versions[:-1], version(26.0, "c1", **counted)]
        final = version(28.0, **counted)
        history = replace(late, versions=[*claims, final])
        assert not broken(self.PROMISE, history, GUARDED)
        assert not broken(self.PROMISE, with_final(history, launched=4, lost=2), GUARDED)
        assert broken(self.PROMISE, with_final(history, lost=3), GUARDED)


class TestLiveness:
    PROMISE = "liveness"

    def idle(self, end: float = 30.0, **more: Any) -> History:
        return History(end, **{"versions": [version(0.0)], "rows": [row("a", since=10.0)], **more})

    def test_a_row_that_is_not_launched(self) -> None:
        found = must_accuse(self.PROMISE, self.idle(), JOBS)
        assert found.sentence == (
            "row [a] is not launched for 20.0 s from 10.000 on, and a slot is free"
        )
        assert texts(found)[-1] == "row [a] matches"

    @pytest.mark.parametrize(("launched", "kept"), [(14.0, True), (14.1, False)])
    def test_within_three_intervals(self, launched: float, kept: bool) -> None:
        history = self.idle(jobs=[job("a1", launched)])
        assert (not broken(self.PROMISE, history, JOBS)) == kept

    def test_a_row_that_left_in_time(self) -> None:
        assert not broken(self.PROMISE, self.idle(rows=[row("a", 10, 13)]), JOBS)

    def test_faults_give_more_time(self) -> None:
        faulty = self.idle(faults=[Fault("database", 11, 22)])
        assert not broken(self.PROMISE, faulty, JOBS)
        must_accuse(self.PROMISE, replace(faulty, end=40.0), JOBS)

    def test_no_slot_is_free(self) -> None:
        full = of_jobs(job("b1", 1), job("c1", 1), rows=[row("a", 10)], end=60.0)
        assert not broken(self.PROMISE, full, JOBS)
        freed = of_jobs(job("b1", 1, 20), job("c1", 1), rows=[row("a", 10)], end=60.0)
        assert "from 20.000 on" in must_accuse(self.PROMISE, freed, JOBS).sentence

    def test_slots_that_are_taken_again_one_after_the_other(self) -> None:
        """One of two is free at any moment, each for a second."""
        jobs = [job(f"b{n}", n, n + 0.8) for n in range(1, 30)]
        busy = of_jobs(*jobs, rows=[row("a", 10, 30)], end=40.0)
        assert not broken(self.PROMISE, busy, JOBS)
        idle = of_jobs(*jobs[:15], rows=[row("a", 10, 30)], end=40.0)
        assert "from 14.800 on" in must_accuse(self.PROMISE, idle, JOBS).sentence

    @pytest.mark.parametrize("given", [{"suspend": True}, {"concurrency": 0}])
    def test_nothing_may_be_launched(self, given: dict[str, Any]) -> None:
        stopped = self.idle(versions=[version(0.0, spec=spec(**given))])
        assert not broken(self.PROMISE, stopped, JOBS)

    def test_deleted(self) -> None:
        gone = self.idle(versions=[version(0.0), version(12.0, deleted=True)])
        assert not broken(self.PROMISE, gone, JOBS)

    def test_a_row_that_is_never_done(self) -> None:
        failed = of_jobs(job("a1", 1, 5, "Failed"), rows=[row("a")], end=30.0)
        found = must_accuse(self.PROMISE, failed, JOBS)
        assert "Job job-a1 is Failed" in texts(found)
        assert not broken(self.PROMISE, replace(failed, end=12.0), JOBS)

    def test_a_row_whose_attempts_are_used_up(self) -> None:
        jobs = [job(f"a{n}", 1 + 6 * n, 2 + 6 * n, "Failed") for n in range(3)]
        assert not broken(self.PROMISE, of_jobs(*jobs, rows=[row("a")], end=90.0), JOBS)
        must_accuse(self.PROMISE, of_jobs(*jobs[:2], rows=[row("a")], end=90.0), JOBS)

    def test_work_that_died_comes_back_where_that_can_be_known(self) -> None:
        died = of_messages(
            message("a1", 1), executions=[run("a1", 2)], deaths=[Death("w", 3)], end=100.0
        )
        must_accuse(self.PROMISE, died, GUARDED)
        assert not broken(self.PROMISE, replace(died, end=50.0), GUARDED)
        assert not broken(self.PROMISE, died, REDIS)
        mortal = replace(died, messages=[message("a1", 1, expires=5, time_limit=5)])
        must_accuse(self.PROMISE, mortal, REDIS)

    def test_a_claim_in_doubt_is_held_where_it_cannot_be_sent_again(self) -> None:
        claimed = [version(0.0), version(10.1, items=(item("a1", "Claimed"),))]
        assert not broken(self.PROMISE, self.idle(versions=claimed), RABBIT)
        must_accuse(self.PROMISE, self.idle(versions=claimed), REDIS)

    def test_a_row_that_came_back_may_never_have_been_missed(self) -> None:
        rows = [row("a", until=5.0), row("a", since=5.1)]
        history = of_messages(message("a1", 1), executions=[run("a1", 2)], rows=rows, end=60.0)
        assert not broken(self.PROMISE, history, RABBIT)

    def test_an_excuse_for_one_worker_or_row_leaves_the_others(self) -> None:
        frozen = self.idle(excuses=[Excuse("frozen", 1, worker="w")])
        must_accuse(self.PROMISE, frozen, JOBS)
        by_hand = self.idle(excuses=[Excuse("by hand", 1, row="[a]")])
        assert not broken(self.PROMISE, by_hand, JOBS)

    def test_a_deleted_job_that_was_sent_twice_is_held_for_a_while(self) -> None:
        claimed = version(1.0, items=(item("a1", "Claimed", sends=2),), active=1)
        jobs = [job("a1", 1.1, deleted=5)]
        history = History(90.0, [version(0.0), claimed], jobs, rows=[row("a")])
        assert judge(history, JOBS) == []
        once = replace(history, versions=[version(0.0), version(1.0, "a1")])
        must_accuse(self.PROMISE, once, JOBS)

    def test_a_predecessor_whose_jobs_go_on(self) -> None:
        versions = [
            version(0.0, uid="old"),
            version(0.9, "b1", uid="old"),
            version(2.0, uid="old", deleted=True),
            version(3.0),
        ]
        history = self.idle(versions=versions, jobs=[job("b1", 1, owner="old")])
        assert not broken(self.PROMISE, history, JOBS)

    def test_a_launch_that_nobody_saw(self) -> None:
        assert not broken(self.PROMISE, self.idle(gaps=[Gap("jobs", 12, 13)]), JOBS)


class TestStatus:
    PROMISE = "status equals reality"

    def test_a_slot_that_is_never_given_back(self) -> None:
        history = of_jobs(job("a1", 1, 5), end=30.0)
        found = must_accuse(self.PROMISE, history, JOBS)
        assert found.sentence == "u says that 1 are out; there are 0"

    def test_a_launch_it_does_not_know_of(self) -> None:
        forgotten = [version(0.0), version(1.0, "a1"), version(2.0)]
        found = must_accuse(
            self.PROMISE, of_jobs(job("a1", 1.1), versions=forgotten, end=30.0), JOBS
        )
        assert found.sentence == "u says that 0 are out; there are 1"

    def test_within_two_intervals(self) -> None:
        versions = [version(0.0), version(1.0, "a1"), version(8.0)]
        late = of_jobs(job("a1", 1.1, 5), versions=versions)
        kept = replace(late, versions=[*versions[:2], version(7.9)])
        assert not broken(self.PROMISE, kept, replace(JOBS, recovery=0.0))
        assert broken(self.PROMISE, kept, replace(JOBS, recovery=0.0, slack=0.0))

    def test_a_claim_in_doubt_holds_its_slot(self) -> None:
        claimed = version(1.0, items=(item("a1", "Claimed"),), active=1)
        history = History(30.0, [version(0.0), claimed])
        assert not broken(self.PROMISE, history, RABBIT)
        must_accuse(self.PROMISE, history, JOBS)

    @pytest.mark.parametrize(("until", "ended", "kept"), [(2.0, 9, True), (inf, 9, False)])
    def test_a_guard_s_record_of_a_claim_that_left_may_be_missing_for_a_while(
        self, until: float, ended: float, kept: bool
    ) -> None:
        claimed = version(1.0, items=(item("a1", "Claimed"),), active=1)
        history = History(
            90.0,
            [version(0.0), claimed],
            rows=[row("a", until=until)],
            faults=[Fault("operator", 0, ended)],
        )
        assert bool(broken(self.PROMISE, history, GUARDED)) != kept
        long_ago = replace(history, rows=[row("a", until=2.0), row("b", until=80.0)])
        must_accuse(self.PROMISE, long_ago, GUARDED)

    def test_numbers_that_are_not_those_of_its_items(self) -> None:
        waits = (item("a1", "Waiting", until=at(600)),)
        for number, kept in ((1, True), (7, False)):
            told = version(1.0, items=waits, waiting=number)
            found = broken(self.PROMISE, History(30.0, [version(0.0), told]), JOBS)
            assert (not found) == kept

    def test_one_that_is_not_ready_when_all_is_calm(self) -> None:
        for status, kept in (("True", True), ("False", False)):
            said = [{"type": "Ready", "status": status, "reason": "DatabaseUnreachable"}]
            history = History(30.0, [version(0.0), version(1.0, conditions=said)])
            assert (not broken(self.PROMISE, history, JOBS)) == kept

    def quiet(self, *later: Version) -> History:
        first = version(1.0, lastScanTime=at(1))
        return History(1000.0, [version(0.0), first, *later])

    def test_last_scan_time_now_and_then(self) -> None:
        scans = [version(time, lastScanTime=at(time)) for time in (302.0, 603.0)]
        assert not broken(self.PROMISE, self.quiet(*scans), JOBS)

    def test_last_scan_time_with_every_look(self) -> None:
        scans = [version(time, lastScanTime=at(time)) for time in (302.0, 303.0)]
        found = must_accuse(self.PROMISE, self.quiet(*scans), JOBS)
        assert found.sentence == "u is written although nothing has happened"
        assert [moment.time for moment in found.excerpt] == [302, 303]

    def test_a_write_of_the_same(self) -> None:
        must_accuse(self.PROMISE, self.quiet(version(900.0, lastScanTime=at(1))), JOBS)

    def test_conditions_change_by_the_clock_but_not_for_ever(self) -> None:
        def told(number: int) -> Version:
            said = [{"type": "Stalled", "message": f"for {number} s"}]
            return version(100.0 + number, lastScanTime=at(1), conditions=said)

        assert not broken(self.PROMISE, self.quiet(*map(told, range(6))), JOBS)
        must_accuse(self.PROMISE, self.quiet(*map(told, range(9))), JOBS)

    def test_a_rest_that_is_over(self) -> None:
        resting = version(2.0, items=(item("a1", "Waiting", until=at(600)),))
        assert not broken(self.PROMISE, self.quiet(resting, version(601.0)), JOBS)
        must_accuse(self.PROMISE, self.quiet(resting, version(599.0)), JOBS)

    def test_a_person_may_write(self) -> None:
        history = self.quiet(version(900.0, lastScanTime=at(1)))
        assert not broken(self.PROMISE, replace(history, faults=[Fault("hand", 900, 900)]), JOBS)


class TestUnknown:
    PROMISE = "unknown never launches"

    @pytest.mark.parametrize(("time", "kept"), [(16.0, True), (16.1, False), (60.0, True)])
    def test_a_launch_while_a_source_is_away(self, time: float, kept: bool) -> None:
        fault = Fault("guard", 10, 60)
        history = of_messages(message("a1", time), faults=[fault], end=99.0)
        found = broken(self.PROMISE, history, GUARDED)
        assert (not found) == kept
        if found:
            assert texts(found[0]) == [
                "fault begins: guard",
                "message a1 for row [a] is published",
                "fault ends: guard",
            ]

    @pytest.mark.parametrize(("time", "kept"), [(41.0, True), (41.1, False)])
    def test_where_more_goes_wrong_a_launch_may_hang_until_its_deadline(
        self, time: float, kept: bool
    ) -> None:
        for other in (Fault("flaky", 0, 5), Fault("api", 50, 55)):
            history = of_messages(message("a1", time), faults=[Fault("guard", 10, 60), other])
            assert bool(broken(self.PROMISE, history, GUARDED)) != kept

    @pytest.mark.parametrize(("time", "kept"), [(16.0, True), (16.1, False), (60.0, True)])
    def test_a_claim_while_the_rows_cannot_be_read(self, time: float, kept: bool) -> None:
        claimed = version(time, items=(item("a1", "Claimed"),), active=1)
        for kind in ("database", "guard"):
            history = History(99.0, [version(0.0), claimed], faults=[Fault(kind, 10, 60)])
            found = broken(self.PROMISE, history, GUARDED)
            assert (not found) == (kept or kind == "guard")

    def test_a_second_send_is_one_too(self) -> None:
        history = of_messages(
            message("a1", 1), message("a1", 50), faults=[Fault("guard", 10, 60)], end=99.0
        )
        must_accuse(self.PROMISE, history, GUARDED)

    def test_faults_of_other_kinds_and_of_others(self) -> None:
        for fault in (Fault("operator", 10, 60), Fault("database", 10, 60, uid="v")):
            history = of_jobs(job("a1", 50), faults=[fault], end=99.0)
            assert not broken(self.PROMISE, history, JOBS)


class TestDeletion:
    PROMISE = "deletion stops launching"

    @pytest.mark.parametrize(("time", "kept"), [(35.0, True), (36.1, False)])
    def test_only_what_was_claimed_before(self, time: float, kept: bool) -> None:
        versions = [version(0.0), version(4.0, "a1"), version(5.0, "a1", deleted=True)]
        history = of_jobs(job("a1", time), versions=versions, end=99.0)
        found = broken(self.PROMISE, history, JOBS)
        assert (not found) == kept
        if found:
            assert texts(found[0]) == [
                "ScannerJob u is deleted",
                "Job job-a1 (a1, row [a]) is created",
            ]

    def test_its_successor_launches(self) -> None:
        history = of_jobs(job("a1", 50, owner="v"), end=99.0)
        gone = [version(0.0), version(5.0, deleted=True), *history.versions[1:]]
        assert not broken(self.PROMISE, replace(history, versions=gone), JOBS)


class TestOwnership:
    PROMISE = "a ledger is its own"

    def test_an_item_of_another_ledger(self) -> None:
        versions = [version(1.0, "a1"), version(5.0, "a1", uid="v"), version(6.0, "a1", uid="v")]
        found = must_accuse(self.PROMISE, History(20.0, versions), JOBS)
        assert found.sentence == "the ledger of v has a1, which is u's"
        assert [moment.time for moment in found.excerpt] == [1, 5]
        restored = History(20.0, versions, excuses=[Excuse("restored", 4, uid="v")])
        assert not broken(self.PROMISE, restored, JOBS)

    def test_a_job_of_another(self) -> None:
        history = of_jobs(job("a1", 2, owner="v"), versions=[version(3.0, "a1")])
        assert must_accuse(self.PROMISE, history, JOBS).sentence.endswith("has a1, which is v's")

    def test_a_copy_made_afterwards(self) -> None:
        copied = of_jobs(job("a1", 2), job("a1", 5, owner="v", uid="copy"))
        versions = [version(0.0), version(1.9, "a1"), version(6.0, "a1")]
        assert not broken(self.PROMISE, replace(copied, versions=versions), JOBS)


class TestRecorded:
    PROMISE = "recorded before it is launched"

    def test_a_launch_that_no_ledger_had_claimed(self) -> None:
        history = of_messages(message("a1", 5), versions=[version(0.0), version(7.0, "a1")])
        found = must_accuse(self.PROMISE, history, GUARDED)
        assert texts(found) == ["message a1 for row [a] is published"]

    def test_a_watch_that_is_late(self) -> None:
        history = of_messages(message("a1", 5), versions=[version(0.0), version(6.0, "a1")])
        assert not broken(self.PROMISE, history, GUARDED)

    def test_a_watch_that_was_away(self) -> None:
        history = of_messages(message("a1", 5), versions=[version(0.0)])
        must_accuse(self.PROMISE, history, GUARDED)
        away = replace(history, gaps=[Gap("scannerjobs", 4, 5)])
        assert not broken(self.PROMISE, away, GUARDED)
        assert not broken(self.PROMISE, replace(history, versions=[]), GUARDED)
