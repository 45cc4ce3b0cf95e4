"""The worker guard with the oldest Celery that it supports, and nothing else installed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import scannerjob
from scannerjob.worker.records import State
from tests.support.guard_stage import GuardStage
from tests.support.servers import RedisServer

_OLDEST = ("celery==5.4.*", "kombu==5.4.*", "redis==5.0.*")
# Beside the tests' other programs.
_FOLDER = Path(sys.prefix) / "oldest" / "-".join(_OLDEST).replace("*", "x")


@pytest.fixture(scope="session")
def oldest() -> Path:
    """A folder with these packages, installed once."""
    if not (_FOLDER / "complete").exists():
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--upgrade"]
        subprocess.run([*install, "--target", str(_FOLDER), *_OLDEST], check=True, timeout=300)
        (_FOLDER / "complete").touch()
    return _FOLDER


@pytest.fixture
def stage(tmp_path: Path, redis_server: RedisServer) -> Iterator[GuardStage]:
    """Redis for all."""
    redis_server.flush()
    results, guard = redis_server.database_url(1), redis_server.database_url(2)
    with GuardStage(tmp_path, redis_server.url, results, guard) as stage:
        yield stage


@pytest.mark.timeout(400)  # with the packages' installation
def test_the_oldest_celery_is_guarded(stage: GuardStage, oldest: Path) -> None:
    # -S leaves out whatever else is installed here.
    path = os.pathsep.join([str(oldest), str(Path(scannerjob.__file__).parent.parent)])
    worker = stage.worker(
        python=(sys.executable, "-S"), env={"PYTHONPATH": path}, task_track_started=True
    )
    assert "v5.4" in worker.log()

    launch = stage.send("work")
    stage.wait_for("begin", launch)
    assert stage.celery().AsyncResult(launch).state == "STARTED"
    stage.send("work", launch=launch)
    stage.wait_for("postrun", launch)
    assert stage.certain(launch).state is State.RUNNING
    stage.release()
    stage.wait_until(launch, State.DONE)
    assert stage.count(launch)["begin"] == 1

    for task in ("retry", "replace", "told", "ignore"):
        stage.wait_until(stage.send(task), State.DONE)
    failure = stage.send("told", kwargs={"fails": True})
    assert stage.wait_until(failure, State.FAILED).reason == "ValueError: no such page"

    (stage.folder / "release").unlink()
    victim = stage.send("work")
    stage.wait_for("begin", victim)
    psutil.Process(stage.pid(victim)).kill()
    stage.wait_until(victim, State.FAILED)
