"""`scannerjob run` with workers that have the guard: what dies comes back in seconds, once."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from scannerjob.demo.judge import Execution
from tests.support.celery_worker import CeleryWorker
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.site import Site
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(300)

CAP = 4
# The row of a task that the operator has not launched.
ANOTHER = 99
# A task that takes longer than all that a test waits for.
FOR_EVER = 1000.0
LEASES = 120.0


@pytest.fixture
def site(tmp_path: Path, postgres_url: str) -> Iterator[Site]:
    site = Site(tmp_path, postgres_url)
    yield site
    site.close()


def scanner(site: Site, broker: str, guard: str, cap: int = CAP) -> Process:
    site.put_secret("app-broker", broker)
    site.put_secret("app-guard", guard)
    reference = {"urlSecretRef": {"name": "app-guard", "key": "url"}}
    return site.scanner(site.scanner_job(concurrency=cap, celery__guard=reference))


def running(site: Site, count: int) -> list[Execution]:
    """The executions that have begun and not ended, once there are so many."""

    def begun() -> list[Execution]:
        runs = [run for run in site.executions() if run.ended is None]
        return runs if len(runs) >= count else []

    return eventually(begun, timeout=60)


def wait_done(site: Site, rows: int) -> None:
    eventually(lambda: site.done() == list(range(1, rows + 1)), timeout=LEASES)


def assert_each_ran_once_but_for(site: Site, killed: list[Execution]) -> None:
    """Those that were killed have ended for nobody; of all others there is one for each row."""
    ended = [run.row for run in site.executions() if run.ended is not None]
    assert len(ended) == len(set(ended))
    unended = {run.task_id for run in site.executions() if run.ended is None}
    assert unended == {run.task_id for run in killed}


def phases(site: Site) -> list[str]:
    """Those of the ledger's items."""
    return [each["phase"] for each in site.items()]


@pytest.mark.parametrize("guard", ["redis_url", "mariadb_url"])
def test_the_rows_of_a_killed_worker_run_again_within_seconds(
    site: Site, redis_url: str, guard: str, request: pytest.FixtureRequest
) -> None:
    """As where its container ran out of memory: the heartbeat process goes with it."""
    guard_url = str(request.getfixturevalue(guard))
    site.add_rows(1, 8)
    with scanner(site, redis_url, guard_url):
        doomed = site.worker(redis_url, work=FOR_EVER, guard=guard_url)
        with doomed:
            killed = running(site, 2)
            doomed.kill()
        with site.worker(redis_url, guard=guard_url):
            wait_done(site, 8)
    assert_each_ran_once_but_for(site, killed)
    assert "LeaseLapsed" in site.logs()
    assert site.snapshot().status["lost"] == len(killed)


@pytest.mark.parametrize("guard", ["redis_url", "mariadb_url"])
def test_the_rows_of_a_killed_worker_do_not_wait_for_its_leases_beside_another(
    site: Site, redis_url: str, guard: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    guard_url = str(request.getfixturevalue(guard))
    machine = {"TMPDIR": str(tmp_path)}
    site.add_rows(1, 2)
    with scanner(site, redis_url, guard_url):
        doomed = site.worker(redis_url, work=FOR_EVER, guard=guard_url, env=machine)
        with doomed:
            killed = running(site, 2)
            with site.worker(redis_url, guard=guard_url, env=machine):
                doomed.kill()
                wait_done(site, 2)
    assert_each_ran_once_but_for(site, killed)
    assert "LeaseLapsed" not in site.logs()
    assert site.snapshot().status["lost"] == 0


def test_a_killed_child_is_reported_at_once(site: Site, redis_url: str) -> None:
    site.add_rows(1, 2)
    with (
        scanner(site, redis_url, redis_url),
        site.worker(redis_url, work=FOR_EVER, guard=redis_url) as worker,
    ):
        killed = running(site, 2)
        for child in children(worker):
            os.kill(child, signal.SIGKILL)
        eventually(lambda: "its worker process died" in site.logs(), timeout=60)
        assert site.snapshot().status["lost"] == 0
        again = running(site, 4)
    assert {run.task_id for run in again} > {run.task_id for run in killed}


def children(worker: CeleryWorker) -> list[int]:
    """The processes in which its tasks run."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(worker.process.pid)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    lines = [line.split(maxsplit=1) for line in listing.splitlines()]
    return [int(pid) for pid, command in lines if "heartbeat" not in command]


def test_a_store_that_forgets_everything_in_mid_run_loses_no_row_and_starts_no_second_copy(
    site: Site, redis_url: str
) -> None:
    """Broker and guard in one Redis: the messages are gone, too."""
    site.add_rows(1, 6)
    with (
        scanner(site, redis_url, redis_url),
        site.worker(redis_url, work=8, guard=redis_url, concurrency=2),
    ):
        running(site, 2)
        redis.Redis.from_url(redis_url).flushall()
        wait_done(site, 6)
    assert_each_ran_once_but_for(site, [])


def test_a_worker_that_is_frozen_for_longer_than_its_lease_ends_nothing_when_it_wakes(
    site: Site, redis_url: str
) -> None:
    site.add_rows(1, 1)
    with scanner(site, redis_url, redis_url):
        frozen = site.worker(redis_url, work=1, guard=redis_url, concurrency=1)
        with frozen:
            (run,) = running(site, 1)
            os.killpg(frozen.process.pid, signal.SIGSTOP)
            with site.worker(redis_url, work=1, guard=redis_url):
                wait_done(site, 1)
                os.killpg(frozen.process.pid, signal.SIGCONT)
                eventually(lambda: all(each.ended for each in site.executions()), timeout=60)
            eventually(lambda: site.items() == [], timeout=60)
    first, second = site.executions()
    assert first.task_id == run.task_id
    assert first.ended
    assert second.ended
    assert first.ended > second.ended
    status = site.snapshot().status
    assert (status["launched"], status["lost"], status["succeeded"]) == (2, 1, 1)


def test_what_a_killed_worker_had_in_store_is_sent_again_by_an_operator_that_begins_anew(
    site: Site, redis_url: str
) -> None:
    """Its slot is the only one: no launch will ever be begun before this one is sent again."""
    doomed = site.worker(redis_url, work=FOR_EVER, guard=redis_url, concurrency=1)
    client = redis.Redis.from_url(redis_url)
    with doomed:
        with Celery(broker=redis_url, set_as_current=False) as app:
            app.send_task("site.work", kwargs={"pdf_id": ANOTHER})
        running(site, 1)
        site.add_rows(1, 1)
        with scanner(site, redis_url, redis_url, cap=1) as first:
            eventually(lambda: phases(site) == ["Launched"], timeout=60)
            eventually(lambda: client.hlen("unacked") and not client.llen("celery"), timeout=60)
            first.kill()
        doomed.kill()
    with scanner(site, redis_url, redis_url, cap=1), site.worker(redis_url, guard=redis_url):
        wait_done(site, 1)
    client.close()
    assert site.executed() == [1, ANOTHER]


def test_what_may_be_run_by_a_worker_without_the_guard_is_never_sent_again(
    site: Site, redis_url: str
) -> None:
    site.add_rows(1, 1)
    with (
        scanner(site, redis_url, redis_url, cap=2),
        site.worker(redis_url, work=FOR_EVER, concurrency=3),
    ):
        running(site, 1)
        eventually(lambda: "that it guards the task site.work" in site.logs(), timeout=LEASES)
        # Whatever was sent again then would run before the next row: there is a process for each.
        site.add_rows(2, 2)
        running(site, 2)
        assert site.executed() == [1, 2]
        assert [each["sends"] for each in site.items()] == [1, 1]


def test_rabbitmq_that_delivers_again_at_once_does_not_run_a_second_copy(
    site: Site, amqp_url: str, rabbit_server: RabbitServer, redis_url: str
) -> None:
    """Late acknowledgement: what a killed worker held comes back before its lease has lapsed."""
    late = {"LATE": "1"}
    site.add_rows(1, 4)
    with scanner(site, amqp_url, redis_url):
        doomed = site.worker(amqp_url, work=FOR_EVER, guard=redis_url, env=late)
        with doomed:
            killed = running(site, 2)
            doomed.kill()
        with site.worker(amqp_url, guard=redis_url, env=late):
            wait_done(site, 4)
    assert_each_ran_once_but_for(site, killed)
