"""The worker guard, on real workers: what is executed how often, and what is recorded of it."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from scannerjob.worker.records import State
from tests.support.guard_stage import LONG, GuardStage
from tests.support.servers import RedisServer
from tests.support.waiting import eventually


@pytest.fixture
def stage(tmp_path: Path, redis_server: RedisServer) -> Iterator[GuardStage]:
    """Redis for all: broker, results, and the guard's store in a database of its own."""
    redis_server.flush()
    results, guard = redis_server.database_url(1), redis_server.database_url(2)
    with GuardStage(tmp_path, redis_server.url, results, guard) as stage:
        yield stage


def _barrier(stage: GuardStage) -> None:
    """Until whatever was sent before has been looked at: the worker has one process."""
    stage.wait_for("postrun", stage.send_plain("follow"))


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_message_that_is_delivered_twice_is_executed_once(stage: GuardStage, pool: str) -> None:
    stage.worker(pool=pool, leases=LONG)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    stage.send("work", launch=launch)
    if pool != "solo":
        stage.wait_for("postrun", launch)  # of the second
        assert stage.certain(launch).state is State.RUNNING
    stage.release()
    stage.wait_until(launch, State.DONE)
    stage.send("work", launch=launch)
    stage.wait_for("postrun", launch, 3)
    assert stage.count(launch)["begin"] == 1
    assert stage.celery().AsyncResult(launch).get() == "worked"


def test_the_first_ones_result_and_handlers_are_left_alone(stage: GuardStage) -> None:
    stage.worker(concurrency=1, leases=LONG, task_track_started=True)
    success, failure = stage.send("told"), stage.send("told", kwargs={"fails": True})
    assert stage.wait_until(failure, State.FAILED).reason == "ValueError: no such page"
    stage.wait_until(success, State.DONE)
    for launch in (success, failure):
        before = stage.count(launch)
        result = stage.celery().AsyncResult(launch).state
        stage.send("told", launch=launch)
        stage.wait_for("postrun", launch, 2)
        _barrier(stage)
        assert stage.count(launch) - before == {"prerun": 1, "postrun": 1}
        assert stage.celery().AsyncResult(launch).state == result
    assert stage.count(success) - stage.count(failure) == {"on_success": 1}
    assert stage.count(failure)["before_start"] == 1


def test_a_tracked_task_is_seen_to_have_started(stage: GuardStage) -> None:
    stage.worker(task_track_started=True)
    for task in (stage.send("work"), stage.send_plain("work")):
        stage.wait_for("begin", task)
        assert stage.celery().AsyncResult(task).state == "STARTED"
    stage.release()


def test_tasks_of_others_are_left_alone(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    task = stage.send_plain("told")
    stage.wait_for("postrun", task)
    assert stage.record(task) is None
    assert stage.count(task)["before_start"] == 1


def test_a_handler_that_fails_before_the_task_starts_fails_the_launch(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("never_begun")
    assert stage.wait_until(launch, State.FAILED).reason == "KeyError: 'no such book'"
    assert stage.count(launch)["begin"] == 0


def test_a_task_that_retries_goes_on_with_its_launch(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("retry")
    record = stage.wait_until(launch, State.DONE)
    assert record.retries == 2
    assert stage.count(launch)["begin"] == 3


def test_a_launch_that_waits_for_its_retry_is_not_begun_by_a_duplicate(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("retry", kwargs={"countdown": 300})
    record = stage.wait_until(launch, State.RETRYING)
    assert record.until
    assert 200 < stage.remaining(launch) <= 300
    stage.send("retry", launch=launch)
    stage.wait_for("postrun", launch, 2)
    assert stage.count(launch)["begin"] == 1


@pytest.mark.parametrize("chained", [False, True])
def test_a_task_that_replaces_another_goes_on_with_its_launch(
    stage: GuardStage, chained: bool
) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("replace", kwargs={"chained": chained})
    stage.wait_until(launch, State.DONE)
    told = [(each["task"]) for each in stage.journal(launch) if each["what"] == "begin"]
    assert told == ["tasks.replace", "tasks.follow"]


def test_a_task_that_has_itself_ignored_is_done(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("ignore")
    stage.wait_until(launch, State.DONE)


def test_a_task_that_is_put_back_into_its_queue_runs_again(stage: GuardStage) -> None:
    stage.worker(leases=LONG, task_acks_late=True)
    launch = stage.send("reject_once")
    stage.wait_until(launch, State.DONE)
    assert stage.count(launch)["begin"] == 2


def test_a_reason_that_is_not_all_characters_is_told_as_far_as_it_is(stage: GuardStage) -> None:
    launch = stage.send("not_found")
    stage.worker()
    assert stage.wait_until(launch, State.FAILED).reason == "ValueError: no file ?"


def test_a_task_that_is_rejected_for_good_has_failed(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("reject_once")
    assert stage.wait_until(launch, State.FAILED).reason == "the task was rejected: not now"


def test_a_task_that_runs_out_of_memory_has_failed(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("run_out_of_memory")
    stage.wait_until(launch, State.FAILED)


def test_tasks_that_exceed_their_time_have_failed(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    soft, hard = stage.send("work", soft_time_limit=1), stage.send("work", time_limit=1)
    assert stage.wait_until(soft, State.FAILED).reason.startswith("SoftTimeLimitExceeded")
    assert stage.wait_until(hard, State.FAILED).reason == "its worker process was terminated"


def test_a_killed_process_is_recorded_at_once(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    psutil.Process(stage.pid(launch)).kill()
    assert stage.wait_until(launch, State.FAILED).reason == "its worker process died"


def test_a_process_that_a_task_has_forked_does_not_hide_its_death(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("fork")
    executing, forked = stage.forked(launch)
    executing.kill()
    stage.wait_until(launch, State.FAILED)
    assert forked.is_running()


def test_a_task_that_is_revoked_before_it_starts_has_failed(stage: GuardStage) -> None:
    stage.worker(concurrency=1, leases=LONG)
    first, revoked = stage.send("work"), stage.send("work")
    stage.wait_for("begin", first)
    app = stage.celery()
    # Not one of the process's pool: what an earlier test opened may have been closed since.
    with app.connection_for_write() as connection:
        app.control.revoke(revoked, reply=True, connection=connection)
    stage.release()
    assert stage.wait_until(revoked, State.FAILED).reason == "it was revoked"
    assert stage.count(revoked)["begin"] == 0


def test_a_revoked_and_terminated_task_has_failed(stage: GuardStage) -> None:
    stage.worker(leases=LONG)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    stage.celery().control.revoke(launch, terminate=True, signal="SIGTERM")
    stage.wait_until(launch, State.FAILED)


@pytest.mark.parametrize("store", ["sqlite_url", "postgres_url", "mariadb_url"])
def test_records_may_be_in_a_database(
    tmp_path: Path, redis_url: str, store: str, request: pytest.FixtureRequest
) -> None:
    with GuardStage(tmp_path, redis_url, redis_url, request.getfixturevalue(store)) as stage:
        stage.worker(leases=LONG, task_acks_late=True)
        for task in ("retry", "reject_once", "told"):
            stage.wait_until(stage.send(task), State.DONE)
        victim = stage.send("work")
        stage.wait_for("begin", victim)
        stage.send("work", launch=victim)
        stage.wait_for("postrun", victim)
        psutil.Process(stage.pid(victim)).kill()
        assert stage.wait_until(victim, State.FAILED).reason == "its worker process died"
        assert stage.count(victim)["begin"] == 1


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_worker_announces_the_tasks_it_guards_before_it_has_any(
    stage: GuardStage, pool: str
) -> None:
    assert not stage.is_guarded("work")
    stage.worker(pool=pool)
    # One that came before `install`, and one that came after the app was finalized.
    for task in ("work", "told"):
        eventually(partial(stage.is_guarded, task), timeout=60, message=f"{task} is announced")
    assert not stage.is_guarded("unheard_of")


def test_a_worker_whose_processes_would_be_unguarded_does_not_start(stage: GuardStage) -> None:
    with pytest.raises(RuntimeError, match="worker_pool_start_method = 'fork'"):
        stage.worker(worker_pool_start_method="spawn")


def test_processes_that_come_later_are_watched_too(stage: GuardStage) -> None:
    stage.worker(concurrency=1, leases=LONG, worker_max_tasks_per_child=1)
    for _ in range(2):
        stage.wait_until(stage.send("told"), State.DONE)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    psutil.Process(stage.pid(launch)).kill()
    stage.wait_until(launch, State.FAILED)


def test_many_launches_that_two_workers_get_twice_are_executed_once(stage: GuardStage) -> None:
    stage.worker(pool="threads", concurrency=4)
    stage.worker(concurrency=2)
    launches = [stage.send("follow") for _ in range(100)]
    for launch in launches:
        stage.send("follow", launch=launch)
    for launch in launches:
        stage.wait_for("postrun", launch, 2)
        assert stage.count(launch)["begin"] == 1
        assert stage.certain(launch).state is State.DONE
