"""The worker guard, on real workers: whose lease is renewed, and whose lapses."""

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from scannerjob.worker.records import State
from tests.support.celery_worker import CeleryWorker
from tests.support.guard_stage import LONG, QUICK, GuardStage
from tests.support.servers import RedisServer
from tests.support.waiting import eventually


@pytest.fixture
def store() -> Iterator[RedisServer]:
    """A Redis for the guard alone, which a test may stop."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def stage(tmp_path: Path, redis_server: RedisServer, store: RedisServer) -> Iterator[GuardStage]:
    """Tasks and results in one Redis, the guard's records in another."""
    redis_server.flush()
    results = redis_server.database_url(1)
    with GuardStage(tmp_path, redis_server.url, results, store.url) as stage:
        yield stage


def _heartbeat(worker: CeleryWorker) -> psutil.Process:
    """The heartbeat process beside a worker."""
    children = psutil.Process(worker.pid).children()
    (process,) = [each for each in children if "scannerjob.worker.heartbeat" in each.cmdline()]
    return process


def _logs(worker: CeleryWorker, what: str) -> bool:
    return what in worker.log()


def _outlive_its_lease(stage: GuardStage, launch: str) -> None:
    """Until the lease that a launch has now would have lapsed; it must not meanwhile."""
    until = stage.certain(launch).until
    assert until

    def has_passed() -> bool:
        now, record = stage.look(launch)
        assert record.until
        if record.until <= now:
            pytest.fail(f"the lease of {launch} has lapsed")
        return now > until

    eventually(has_passed, timeout=60, message="a lease has passed")


def _end_unsaid(stage: GuardStage, store: RedisServer, worker: CeleryWorker) -> str:
    """A launch that has ended while the store was away, as it still is."""
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    store.kill()
    stage.release()
    stage.wait_for("postrun", launch)
    eventually(lambda: f"the end of launch {launch} is written later" in worker.log())
    return launch


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_lease_is_renewed_while_its_task_runs(stage: GuardStage, pool: str) -> None:
    stage.worker(pool=pool)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    _outlive_its_lease(stage, launch)
    stage.release()
    stage.wait_until(launch, State.DONE)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_a_task_that_keeps_python_from_running_keeps_its_lease(
    stage: GuardStage, pool: str
) -> None:
    stage.worker(pool=pool)
    launch = stage.send("sleep_in_c", args=[int(4 * QUICK[0])])
    stage.wait_for("begin", launch)
    for _ in range(2):
        _outlive_its_lease(stage, launch)
    assert stage.count(launch)["end"] == 0
    stage.wait_until(launch, State.DONE)


def test_a_lease_lapses_once_all_of_its_worker_is_dead(stage: GuardStage) -> None:
    worker = stage.worker()
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    worker.kill()
    eventually(lambda: stage.remaining(launch) < 0, message="the lease lapses")
    stage.wait_until(launch, State.RUNNING)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_worker_that_dies_alone_is_recorded_at_once(stage: GuardStage, pool: str) -> None:
    worker = stage.worker(pool=pool, leases=LONG)
    heartbeat = _heartbeat(worker)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    os.killpg(worker.pid, signal.SIGKILL)
    assert stage.wait_until(launch, State.FAILED).reason == "its worker process died"
    heartbeat.wait(30)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "gevent"])
def test_what_a_dead_worker_held_is_recorded_by_the_next_on_its_machine(
    stage: GuardStage, pool: str
) -> None:
    worker = stage.worker(pool=pool, leases=LONG)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    worker.kill()
    assert stage.certain(launch).state is State.RUNNING
    worker.start()
    assert stage.wait_until(launch, State.FAILED).reason == "its worker process died"


def test_what_a_dead_worker_held_is_recorded_by_another_on_its_machine(
    stage: GuardStage, tmp_path: Path
) -> None:
    machine = {"TMPDIR": str(tmp_path)}
    worker = stage.worker(concurrency=1, leases=LONG, env=machine)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    other = stage.worker(concurrency=1, leases=LONG, env=machine)
    worker.kill()
    stage.wait_until(launch, State.FAILED)
    eventually(lambda: f"a worker has died that had launch {launch}" in other.log())
    stage.release()
    stage.wait_until(stage.send("work"), State.DONE)


def test_a_worker_is_dead_only_once_all_that_it_has_forked_is(
    stage: GuardStage, tmp_path: Path
) -> None:
    machine = {"TMPDIR": str(tmp_path)}
    worker = stage.worker(concurrency=1, leases=LONG, env=machine)
    launch = stage.send("fork")
    executing, forked = stage.forked(launch)
    for process in (_heartbeat(worker), psutil.Process(worker.pid), executing):
        process.kill()
    other = stage.worker(concurrency=1, leases=LONG, env=machine)
    later = stage.send("work")
    stage.wait_for("begin", later)
    other.kill()
    stage.worker(concurrency=1, leases=LONG, env=machine)
    stage.wait_until(later, State.FAILED)
    assert stage.certain(launch).state is State.RUNNING
    forked.kill()
    stage.wait_until(launch, State.FAILED)


def test_a_disk_that_is_full_lets_no_lease_lapse(stage: GuardStage) -> None:
    worker = stage.worker(leases=(10.0, 0.5, 10.0))
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    # Nothing can be written to any file from now on, as where all disks are full.
    psutil.Process(worker.pid).rlimit(psutil.RLIMIT_FSIZE, (0, 0))
    heartbeat = _heartbeat(worker)
    heartbeat.kill()
    heartbeat.wait(30)
    _outlive_its_lease(stage, launch)


def test_an_end_that_the_store_missed_is_written_by_the_next_worker(
    stage: GuardStage, store: RedisServer
) -> None:
    worker = stage.worker(leases=LONG)
    launch = _end_unsaid(stage, store, worker)
    worker.kill()
    store.start()
    worker.start()
    stage.wait_until(launch, State.DONE)


def test_a_worker_that_ends_takes_its_heartbeat_process_along(stage: GuardStage) -> None:
    worker = stage.worker()
    heartbeat = _heartbeat(worker)
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    # As a terminal and systemd do.
    heartbeat.send_signal(signal.SIGINT)
    heartbeat.send_signal(signal.SIGTERM)
    worker.process.send(signal.SIGTERM)
    _outlive_its_lease(stage, launch)
    stage.release()
    stage.wait_until(launch, State.DONE)
    worker.process.wait()
    heartbeat.wait(30)


def test_a_heartbeat_process_that_dies_costs_no_lease(stage: GuardStage) -> None:
    worker = stage.worker(leases=(10.0, 1.0, 10.0))
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    first = _heartbeat(worker)
    first.kill()
    _outlive_its_lease(stage, launch)
    assert _heartbeat(worker) != first
    psutil.Process(stage.pid(launch)).kill()
    stage.wait_until(launch, State.FAILED)


def test_where_no_process_can_be_started_a_thread_renews(stage: GuardStage) -> None:
    (stage.folder / "sitecustomize.py").write_text(
        "import sys\nif 'scannerjob.worker.heartbeat' in sys.orig_argv: sys.exit(1)\n"
    )
    path = os.pathsep.join([str(stage.folder), os.environ.get("PYTHONPATH", "")])
    worker = stage.worker(leases=(600.0, 0.5, 4.0), env={"PYTHONPATH": path})
    assert "threads renew leases instead" in worker.log()
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    assert stage.remaining(launch) <= 4
    assert stage.is_guarded("work")
    _outlive_its_lease(stage, launch)
    stage.release()
    stage.wait_until(launch, State.DONE)


def test_a_frozen_worker_loses_its_launch_and_is_told_so(stage: GuardStage) -> None:
    worker = stage.worker()
    launch = stage.send("commit")
    stage.wait_for("begin", launch)
    os.killpg(worker.pid, signal.SIGSTOP)
    assert stage.supersede(launch).state is State.SUPERSEDED
    stage.release()
    os.killpg(worker.pid, signal.SIGCONT)
    stage.wait_for("postrun", launch)
    assert stage.count(launch)["lost"] == 1
    assert stage.count(launch)["commit"] == 0
    assert stage.certain(launch).state is State.SUPERSEDED


def test_a_worker_that_was_frozen_keeps_a_launch_that_nobody_took(stage: GuardStage) -> None:
    worker = stage.worker()
    launch = stage.send("commit")
    stage.wait_for("begin", launch)
    os.killpg(worker.pid, signal.SIGSTOP)
    eventually(lambda: stage.remaining(launch) < 0, message="the lease lapses")
    os.killpg(worker.pid, signal.SIGCONT)
    stage.release()
    stage.wait_until(launch, State.DONE)
    assert stage.count(launch)["commit"] == 1


def test_a_task_of_others_may_ask_whether_it_is_fenced(stage: GuardStage) -> None:
    stage.worker()
    stage.release()
    stage.wait_for("commit", stage.send_plain("commit"))


def test_a_launch_waits_for_a_store_that_cannot_be_asked(
    stage: GuardStage, store: RedisServer
) -> None:
    worker = stage.worker()
    store.kill()
    launch = stage.send("work")
    eventually(lambda: f"launch {launch} waits until it can be" in worker.log(), timeout=60)
    assert stage.count(launch)["begin"] == 0
    stage.release()
    store.start()
    stage.wait_until(launch, State.DONE)
    assert worker.log().count("waits until it can be") == 1


def test_a_launch_that_waits_for_the_store_has_failed_once_its_time_is_up(
    stage: GuardStage, store: RedisServer
) -> None:
    worker = stage.worker()
    store.kill()
    soft, hard = stage.send("work", soft_time_limit=3), stage.send("work", time_limit=3)
    for limit in ("Soft", "Hard"):
        eventually(partial(_logs, worker, f"{limit} time limit"), timeout=60)
    store.start()
    for launch in (soft, hard):
        stage.wait_until(launch, State.FAILED)
        assert stage.count(launch)["begin"] == 0


def test_a_launch_runs_without_the_store_if_it_is_told_to(
    stage: GuardStage, store: RedisServer
) -> None:
    worker = stage.worker(on_error="run")
    store.kill()
    launch = stage.send("commit")
    stage.wait_for("begin", launch)
    assert f"launch {launch} runs unguarded" in worker.log()
    stage.release()
    stage.wait_for("commit", launch)
    store.start()
    stage.wait_until(launch, State.DONE)


def test_nothing_is_committed_while_the_store_cannot_be_asked(
    stage: GuardStage, store: RedisServer
) -> None:
    stage.worker()
    launch = stage.send("commit")
    stage.wait_for("begin", launch)
    store.kill()
    stage.release()
    stage.wait_for("lost", launch)
    assert stage.count(launch)["commit"] == 0


def test_an_end_that_the_store_missed_is_written_later(
    stage: GuardStage, store: RedisServer
) -> None:
    launch = _end_unsaid(stage, store, stage.worker(leases=LONG))
    assert stage.celery().AsyncResult(launch).get() == "worked"
    store.start()
    stage.wait_until(launch, State.DONE)


def test_a_store_that_forgot_is_told_again(stage: GuardStage, store: RedisServer) -> None:
    stage.worker()
    launch = stage.send("work")
    stage.wait_for("begin", launch)
    store.flush()
    stage.wait_until(launch, State.RUNNING)
    stage.send("work", launch=launch)
    stage.wait_for("postrun", launch)
    assert stage.count(launch)["begin"] == 1
    stage.release()
    stage.wait_until(launch, State.DONE)


def test_what_rabbitmq_delivers_again_is_not_executed_while_its_lease_runs(
    tmp_path: Path, amqp_url: str, redis_server: RedisServer, store: RedisServer
) -> None:
    with GuardStage(tmp_path, amqp_url, redis_server.database_url(1), store.url) as stage:
        first = stage.worker(leases=LONG, task_acks_late=True)
        launch = stage.send("work")
        stage.wait_for("begin", launch)
        first.kill()
        second = stage.worker(leases=LONG, task_acks_late=True)
        stage.wait_for("postrun", launch)
        assert f"launch {launch} was begun elsewhere" in second.log()
        assert stage.count(launch)["begin"] == 1
        assert stage.certain(launch).state is State.RUNNING
