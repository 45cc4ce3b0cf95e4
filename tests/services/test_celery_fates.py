"""What becomes of rows whose Celery tasks meet with something: docs/celery.md, on real parts."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from tests.support.fate_stage import Stage
from tests.support.fates import PERSISTENT, RABBITMQ, REDIS, SCENARIOS, plays
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import RedisServer, Server
from tests.support.waiting import eventually

_SERVERS = {REDIS: "redis_server", PERSISTENT: "persistent_redis", RABBITMQ: "rabbit_server"}


@pytest.fixture
def stage(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    postgres_url: str,
    redis_server: RedisServer,
) -> Iterator[Stage]:
    """Rows in PostgreSQL, results in Redis, tasks through the broker that is asked for."""
    name, broker = request.param
    server: Server = request.getfixturevalue(_SERVERS[broker])
    url = server.create_vhost() if isinstance(server, RabbitServer) else server.url
    redis_server.flush()
    results = redis_server.database_url(1)
    with Stage(tmp_path, postgres_url, server, url, results, SCENARIOS[name]) as stage:
        yield stage


@pytest.fixture
def persistent_redis() -> Iterator[RedisServer]:
    """A Redis that writes down what it is given before it answers."""
    with RedisServer(appendonly=True) as server:
        yield server


@plays("child killed")
def test_a_child_of_the_pool_is_killed(stage: Stage) -> None:
    worker = stage.worker()
    stage.scan()
    stage.begin()
    for child in psutil.Process(worker.pid).children():
        child.kill()
    stage.judge()


@plays("child killed, requeued")
def test_a_child_of_the_pool_is_killed_and_its_task_requeued(stage: Stage) -> None:
    worker = stage.worker(task_acks_late=True, task_reject_on_worker_lost=True)
    stage.scan()
    stage.begin()
    for child in psutil.Process(worker.pid).children():
        child.kill()
    stage.judge()
    assert set(stage.task_ids()) == set(stage.ids())


@plays("worker killed")
def test_a_whole_worker_is_killed(stage: Stage) -> None:
    worker = stage.worker()
    stage.spare_worker()
    stage.scan()
    stage.begin()
    worker.kill()
    stage.assert_held()
    stage.add_worker()
    stage.judge()


@plays("worker killed, late acks")
def test_a_whole_worker_is_killed_that_had_not_acknowledged(stage: Stage) -> None:
    worker = stage.worker(task_acks_late=True, broker_transport_options={"visibility_timeout": 1})
    stage.scan()
    stage.begin()
    worker.kill()
    stage.assert_held()
    worker.start()
    stage.judge()
    assert set(stage.task_ids()) == set(stage.ids())


@plays("worker killed, delivered late")
def test_what_a_dead_worker_had_is_delivered_again_after_its_row_was_launched_anew(
    stage: Stage,
) -> None:
    often = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    late: dict[str, Any] = {
        "task_acks_late": True,
        "broker_transport_options": {"visibility_timeout": 25, **often},
    }
    worker, spare = stage.worker(**late), stage.worker(queues=("idle",), **late)
    stage.scan()
    stage.begin()
    worker.kill()
    stage.assert_held()
    stage.add_worker()
    stage.judge()
    dropped = "Discarding revoked task"
    eventually(lambda: spare.log().count(dropped) == 2, message="the copies are dropped")
    assert len(stage.task_ids()) == 8


@plays("warm shutdown")
def test_a_worker_is_stopped_and_ends_its_tasks(stage: Stage) -> None:
    worker = stage.worker()
    stage.scan()
    stage.begin()
    worker.process.send(signal.SIGTERM)
    eventually(lambda: "Warm shutdown" in worker.log(), message="it shuts down")
    stage.assert_held()
    stage.release()
    worker.process.wait()
    worker.start()
    stage.judge()


@plays("cold shutdown")
def test_a_worker_is_stopped_and_drops_its_tasks(stage: Stage) -> None:
    worker = stage.worker()
    stage.spare_worker()
    stage.scan()
    stage.begin()
    worker.process.send(signal.SIGQUIT)
    worker.process.wait()
    stage.assert_held()
    stage.add_worker()
    stage.judge()


@plays("retry too late")
def test_a_task_retries_itself_too_late(stage: Stage) -> None:
    stage.worker("retry_late")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("soft time limit")
def test_a_task_exceeds_its_soft_time_limit(stage: Stage) -> None:
    stage.worker(task_soft_time_limit=2)
    stage.scan()
    stage.launch()
    stage.judge()


@plays("hard time limit")
def test_a_task_exceeds_its_hard_time_limit(stage: Stage) -> None:
    stage.worker(task_time_limit=3)
    stage.scan()
    stage.launch()
    stage.judge()


@plays("failure")
def test_a_task_raises(stage: Stage) -> None:
    stage.worker("fail")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("failure after commit")
def test_a_task_raises_after_it_has_committed(stage: Stage) -> None:
    stage.worker("finish_and_fail")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("undone")
def test_a_task_ends_well_and_its_row_still_matches(stage: Stage) -> None:
    stage.worker("leave_undone")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("retry")
def test_a_task_retries_itself(stage: Stage) -> None:
    stage.worker("retry")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()
    assert set(stage.task_ids()) == set(stage.ids())


@plays("ignore")
def test_a_task_raises_ignore(stage: Stage) -> None:
    stage.worker("ignore")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("ignore after commit")
def test_a_task_raises_ignore_after_it_has_committed(stage: Stage) -> None:
    stage.worker("finish_and_ignore")
    stage.scan()
    stage.begin()
    stage.release()
    stage.judge()


@plays("ignore_result")
def test_a_task_ignores_its_result(stage: Stage) -> None:
    worker = stage.worker(task_ignore_result=True)
    stage.scan()
    stage.begin()
    stage.release()
    stage.wait_until_done()
    worker.terminate()
    stage.worker()
    stage.judge()


@plays("memory error")
def test_a_task_raises_a_memory_error(stage: Stage) -> None:
    worker = stage.worker("run_out_of_memory")
    stage.spare_worker()
    stage.scan()
    stage.begin()
    stage.release()
    worker.process.wait()
    stage.assert_held("plain", "bounded")
    stage.add_worker()
    stage.judge()


@plays("revoked")
def test_a_task_is_revoked_before_it_starts(stage: Stage) -> None:
    worker = stage.spare_worker()
    stage.scan()
    stage.launch()
    stage.celery().control.revoke(stage.ids())
    eventually(lambda: "flagged as revoked" in worker.log(), message="the worker heard of it")
    stage.add_worker()
    eventually(lambda: stage.states() == {"REVOKED"}, message="it is discarded")
    stage.assert_held()
    stage.release()
    stage.judge()


@plays("terminated")
def test_a_task_is_revoked_and_terminated_while_it_runs(stage: Stage) -> None:
    stage.worker()
    stage.scan()
    stage.begin()
    stage.celery().control.revoke(stage.ids(), terminate=True)
    eventually(lambda: stage.states() == {"REVOKED"}, message="it is terminated")
    stage.assert_held()
    stage.judge()


@plays("revoked without workers")
def test_a_task_is_revoked_while_there_is_no_worker(stage: Stage) -> None:
    stage.scan()
    stage.launch()
    stage.celery().control.revoke(stage.ids())
    stage.worker()
    stage.release()
    stage.judge()


@plays("no worker")
def test_no_worker_comes_in_time(stage: Stage) -> None:
    stage.spare_worker()
    stage.scan()
    stage.launch()
    stage.release()
    eventually(lambda: stage.were_launched_again("bounded", "both"), timeout=60)
    stage.assert_held("plain", "results")
    stage.add_worker()
    stage.judge()


@plays("busy worker")
def test_a_worker_that_has_fetched_a_task_is_busy_for_too_long(stage: Stage) -> None:
    worker = stage.worker(concurrency=1, worker_prefetch_multiplier=20)
    stage.celery().send_task("fates.block")
    stage.scan()
    stage.launch()
    eventually(lambda: all(each in worker.log() for each in stage.ids()), message="it has them")
    eventually(lambda: stage.were_launched_again("bounded", "both"), timeout=60)
    stage.assert_held("plain", "results")
    stage.release()
    stage.judge()


@plays("purged")
def test_the_queue_is_purged(stage: Stage) -> None:
    stage.spare_worker()
    stage.scan()
    stage.launch()
    assert stage.celery().control.purge() == 4
    stage.assert_held()
    stage.add_worker()
    stage.release()
    stage.judge()


@plays("restart that loses messages")
def test_the_broker_restarts_and_loses_what_waits(stage: Stage) -> None:
    stage.spare_worker()
    stage.scan()
    stage.launch()
    stage.server.kill()
    stage.server.start()
    stage.assert_held()
    stage.add_worker()
    stage.release()
    stage.judge()


@plays("restart that keeps messages")
def test_the_broker_restarts_and_keeps_what_waits(stage: Stage) -> None:
    stage.scan()
    stage.launch()
    stage.server.kill()
    stage.server.start()
    stage.assert_held()
    stage.worker()
    stage.release()
    stage.judge()


@plays("restart while it runs")
def test_the_broker_restarts_while_a_task_runs(stage: Stage) -> None:
    stage.worker()
    stage.scan()
    stage.begin()
    stage.wait_until_acknowledged()
    stage.server.kill()
    stage.server.start()
    stage.assert_held()
    stage.release()
    stage.judge()


@plays("restart while it runs, late acks")
def test_the_broker_restarts_while_a_task_runs_that_is_not_acknowledged(stage: Stage) -> None:
    stage.worker(task_acks_late=True)
    stage.scan()
    stage.begin()
    stage.server.kill()
    stage.server.start()
    stage.wait_until_done()
    stage.release()
    stage.judge()
    assert set(stage.task_ids()) == set(stage.ids())


@plays("visibility timeout")
def test_a_task_runs_for_longer_than_the_visibility_timeout(stage: Stage) -> None:
    often = {"unacked_restore_interval": 1, "unacked_restore_throttle": 1}
    stage.worker(task_acks_late=True, broker_transport_options={"visibility_timeout": 3, **often})
    stage.scan()
    stage.begin()
    stage.wait_until_done()
    stage.release()
    stage.judge()
    assert set(stage.task_ids()) == set(stage.ids())


@plays("result backend down")
def test_the_result_backend_is_down_when_a_task_ends(
    stage: Stage, persistent_redis: RedisServer
) -> None:
    stage.keep_results(persistent_redis.url)
    stage.worker(result_backend_always_retry=True)
    scanner = stage.scan()
    stage.begin()
    persistent_redis.kill()
    stage.release()
    stage.wait_until_done()
    unreachable = [f"default/{job}: ResultBackendUnreachable" for job in ("results", "both")]
    eventually(lambda: all(said in scanner.log() for said in unreachable), message="it is missed")
    stage.assert_held("results", "both")
    persistent_redis.start()
    stage.judge()


@plays("result given up")
def test_a_worker_gives_up_storing_a_result(stage: Stage, persistent_redis: RedisServer) -> None:
    stage.keep_results(persistent_redis.url)
    worker = stage.worker()
    stage.scan()
    stage.begin()
    persistent_redis.kill()
    stage.release()
    stage.wait_until_done()
    worker.terminate(timeout=60)
    stage.assert_held("results", "both")
    persistent_redis.start()
    stage.worker()
    stage.judge()


@plays("result expired")
def test_a_result_expires_before_anyone_reads_it(stage: Stage) -> None:
    worker = stage.worker(result_expires=1)
    scanner = stage.scan()
    stage.begin()
    scanner.stop()
    stage.release()
    stage.wait_until_done()
    worker.terminate()
    stage.worker()
    with redis.Redis.from_url(stage.results) as client:
        eventually(lambda: not client.keys("celery-task-meta-*"), message="results expire")
    stage.scan()
    stage.judge()
