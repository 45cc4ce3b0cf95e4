"""The judge of the demo, given histories with something wrong in them: it must say so."""

from dataclasses import replace

from scannerjob.demo.judge import Execution, History, Kill, Launch, judge

# Worker `a` dies at 10 while it works on row 2 and holds row 3 in its memory; both come back.
KEPT = History(
    cap=2,
    rows=frozenset({1, 2, 3}),
    done=frozenset({1, 2, 3}),
    launches=[
        Launch("t1", 1, published=1.0, expires=5.0, time_limit=3.0),
        Launch("t2", 2, published=8.0, expires=12.0, time_limit=3.0),
        Launch("t3", 3, published=8.0, expires=12.0, time_limit=3.0),
        Launch("t4", 2, published=20.0, expires=24.0, time_limit=3.0),
        Launch("t5", 3, published=20.0, expires=24.0, time_limit=3.0),
    ],
    executions=[
        Execution("t1", 1, "a", started=1.1, ended=2.0),
        Execution("t2", 2, "a", started=9.5),
        Execution("t4", 2, "b", started=20.5, ended=21.5),
        Execution("t5", 3, "b", started=21.0, ended=22.0),
    ],
    kills=[Kill("a", 10.0)],
    seconds=25.0,
)


def _with(*executions: Execution, **changes: object) -> History:
    runs = [*KEPT.executions, *executions]
    return replace(KEPT, executions=runs, **changes)  # type: ignore[arg-type]


def _without(task_id: str) -> History:
    runs = [run for run in KEPT.executions if run.task_id != task_id]
    return replace(KEPT, executions=runs)


def test_a_history_without_fault() -> None:
    verdict = judge(KEPT)
    assert verdict.broken == ()
    assert verdict.summary.to_json() == {
        "rows": 3,
        "done": 3,
        "executions": 4,
        "duplicates": 0,
        "peak_outstanding": 2,
        "cap": 2,
        "killed_workers": 1,
        "recovered": 2,
        "recovery_seconds": (10.5, 11.0),
        "seconds": 25.0,
    }


def test_an_execution_that_overlaps_a_live_one_is_a_duplicate() -> None:
    verdict = judge(_with(Execution("t1", 1, "b", started=1.5, ended=2.5)))
    assert verdict.summary.duplicates == 1
    assert verdict.broken == ("rows that were executed more than once: 1",)


def test_an_execution_after_its_row_was_done_is_a_duplicate() -> None:
    verdict = judge(_with(Execution("t1", 1, "b", started=15.0, ended=16.0)))
    assert verdict.summary.duplicates == 1


def test_an_execution_that_overlaps_one_on_a_live_worker_without_end_is_a_duplicate() -> None:
    verdict = judge(
        _with(
            Execution("t1", 1, "b", started=0.5),
            launches=[*KEPT.launches[1:], Launch("t1", 1, published=0.1)],
        )
    )
    assert verdict.summary.duplicates == 1


def test_a_killed_execution_ends_at_the_kill() -> None:
    too_soon = Execution("t4", 2, "b", started=9.9, ended=11.0)
    just_after = Execution("t4", 2, "b", started=10.1, ended=11.0)
    rest = [run for run in KEPT.executions if run.task_id != "t4"]
    assert judge(replace(KEPT, executions=[*rest, too_soon])).summary.duplicates == 1
    assert judge(replace(KEPT, executions=[*rest, just_after])).summary.duplicates == 0


def test_a_time_limit_ends_an_execution_that_never_recorded_its_end() -> None:
    stopped = Execution("t9", 1, "b", started=0.2)
    launches = [Launch("t9", 1, published=0.1, time_limit=0.5), *KEPT.launches]
    assert judge(_with(stopped, launches=launches)).summary.duplicates == 0


def test_more_rows_outstanding_than_the_cap() -> None:
    extra = [Launch("t6", 4, published=21.0)]
    history = _with(
        Execution("t6", 4, "b", started=23.0, ended=24.0),
        launches=[*KEPT.launches, *extra],
        rows=KEPT.rows | {4},
        done=KEPT.done | {4},
    )
    verdict = judge(history)
    assert verdict.summary.peak_outstanding == 3
    assert verdict.broken == ("3 rows were outstanding at once, the cap is 2",)


def test_a_slot_that_is_refilled_when_its_row_ends_is_no_breach() -> None:
    launches = [*KEPT.launches, Launch("t6", 1, published=21.5)]
    assert judge(replace(KEPT, launches=launches, cap=2)).summary.peak_outstanding == 2


def test_a_message_that_never_ran_is_outstanding_until_it_expires() -> None:
    never_ran = Launch("t3", 3, published=8.0, expires=20.7)
    launches = [never_ran if each.task_id == "t3" else each for each in KEPT.launches]
    other = Launch("t6", 1, published=20.6, expires=20.8)
    assert judge(replace(KEPT, launches=launches)).summary.peak_outstanding == 2
    assert judge(replace(KEPT, launches=[*launches, other])).summary.peak_outstanding == 3


def test_a_row_that_was_not_done() -> None:
    verdict = judge(replace(KEPT, rows=KEPT.rows | {7}))
    assert verdict.summary.done == 3
    assert verdict.broken == ("rows that were not done: 7",)


def test_a_lost_row_that_never_ran_again() -> None:
    verdict = judge(replace(_without("t4"), done=frozenset({1, 3})))
    assert verdict.summary.recovered == 1
    assert "rows that were lost with a worker and never ran again: 2" in verdict.broken


def test_a_row_in_the_memory_of_a_killed_worker_is_lost_too() -> None:
    verdict = judge(replace(_without("t5"), done=frozenset({1, 2})))
    assert "rows that were lost with a worker and never ran again: 3" in verdict.broken


def test_a_kill_that_hit_nothing_shows_nothing() -> None:
    for kills in ([], [Kill("a", 30.0)]):
        verdict = judge(
            replace(
                _without("t2"),
                kills=kills,
                launches=[each for each in KEPT.launches if each.task_id not in ("t2", "t3")],
            )
        )
        assert verdict.broken == ("no worker was killed at work, so that no recovery was shown",)


def test_a_witness_that_saw_too_little_does_not_acquit() -> None:
    unseen = judge(_without("t1"))
    assert unseen.broken == ("rows that are done although no execution of them ended: 1",)
    unpublished = judge(replace(KEPT, launches=KEPT.launches[1:]))
    assert unpublished.broken == ("rows executed without a message on record: 1",)


def test_much_more_than_a_minute() -> None:
    assert judge(replace(KEPT, seconds=76.2)).broken == ("it took 76 s, more than 75 s",)


def test_a_lost_row_that_ran_again_too_late() -> None:
    late = Execution("t4", 2, "b", started=55.1, ended=56.0)
    verdict = judge(replace(_without("t4"), executions=[*_without("t4").executions, late]))
    assert verdict.broken == ("rows that ran again later than 45 s after the kill: 2",)
