"""The application under test: what its tasks do and record."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf
from pathlib import Path

import pytest
from celery import Celery

from tests.harness.witnesses.application import TASKS, Application
from tests.support.celery_worker import CeleryWorker
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually


@pytest.fixture
def application(postgres_url: str) -> Application:
    return Application(postgres_url, "trial_1")


@pytest.fixture
def worker(tmp_path: Path, application: Application, redis_url: str) -> Iterator[CeleryWorker]:
    (tmp_path / "tasks.py").write_text(TASKS)
    env = {"BROKER": redis_url, "DATABASE": application.url}
    with CeleryWorker(tmp_path / "tasks.py", env=env) as worker:
        yield worker


def launch(broker: str, application: Application, item: int) -> str:
    with Celery("trial", broker=broker, set_as_current=False) as app:
        told = {"item": item, "trial": application.schema}
        return str(app.send_task("trial.work", kwargs=told).id)


def test_a_task_records_its_begin_and_ends_with_its_row(
    application: Application, worker: CeleryWorker, redis_url: str, postgres_server: PostgresServer
) -> None:
    before = time.time()
    [item, other] = application.insert(2, seconds=0.2)
    task = launch(redis_url, application, item)
    eventually(application.executions, timeout=90, message="the execution is recorded")
    postgres_server.restart()
    eventually(lambda: application.waiting() == 1, timeout=90, message="the item is done")
    [run] = application.executions()
    done, waits = application.rows()
    assert (run.launch, run.row, run.outcome) == (task, "[1]", "succeeded")
    assert run.worker.startswith(f"{worker.name}@")
    assert run.ended is not None
    assert run.started + 0.2 <= run.ended
    assert before < done.since < run.started
    assert done.row == "[1]"
    assert run.started < done.until <= run.ended
    assert (waits.row, waits.until) == (f"[{other}]", inf)


def test_a_task_fails_and_gives_itself_back_as_often_as_its_item_says(
    application: Application, worker: CeleryWorker, redis_url: str
) -> None:
    [item] = application.insert(1, fails=1, retries=2)
    first = launch(redis_url, application, item)

    def outcomes() -> list[tuple[str, str | None]]:
        return [(run.launch, run.outcome) for run in application.executions()]

    retried = [(first, "retried")] * 2
    eventually(
        lambda: outcomes() == [*retried, (first, "failed")], timeout=90, message="it has failed"
    )
    second = launch(redis_url, application, item)
    done = [*retried, (first, "failed"), (second, "succeeded")]
    eventually(lambda: outcomes() == done, timeout=90, message="it is done")
    assert len({run.worker for run in application.executions()}) <= 2


def test_a_task_that_is_killed_has_no_end(
    application: Application, worker: CeleryWorker, redis_url: str
) -> None:
    [item] = application.insert(1, seconds=60)
    launch(redis_url, application, item)
    eventually(application.executions, timeout=90, message="the execution is recorded")
    worker.kill()
    [run] = application.executions()
    assert (run.ended, run.outcome) == (None, None)
    assert application.waiting() == 1


def test_an_item_that_is_done_twice_left_when_it_was_done_first(
    application: Application, worker: CeleryWorker, redis_url: str
) -> None:
    [item] = application.insert(1)

    def ends() -> list[float]:
        return [run.ended for run in application.executions() if run.ended is not None]

    launch(redis_url, application, item)
    eventually(lambda: len(ends()) == 1, timeout=90, message="it is done")
    launch(redis_url, application, item)
    eventually(lambda: len(ends()) == 2, timeout=90, message="it is done again")
    assert [row.until for row in application.rows()] == [min(ends())]
    assert {run.outcome for run in application.executions()} == {"succeeded"}
