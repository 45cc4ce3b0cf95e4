from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.cluster.conftest import install_crd
from tests.cluster.operators import Operators, operator_account, wait_ready, wipe
from tests.cluster.workload import Workload, condition, scannerjob
from tests.support.controlplane import ControlPlane
from tests.support.processes import Process
from tests.support.waiting import eventually

GROUP = "scannerjob.dev"
CAP = 5
KILLS = 6


@pytest.fixture
def workload(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workload]:
    with Workload(tmp_path, postgres_url, redis_url) as workload:
        yield workload


def wait_done(workload: Workload, seconds: float = 90) -> None:
    eventually(lambda: workload.waiting == 0, timeout=seconds, message="all rows are done")


def test_rows_become_tasks_once_and_never_more_than_the_cap(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(40)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    operators.start()
    wait_done(workload)

    def settled() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get("-n", namespace, "scj", "pdf-pages")
        assert found["status"]["succeeded"] == 40, found["status"]
        return found

    found = eventually(settled)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)
    assert found["status"]["launched"] == 40
    assert found["status"]["active"] == 0
    _, row = cluster.kubectl("-n", namespace, "get", "scj").splitlines()
    assert row.split()[:7] == ["pdf-pages", "True", "false", "0", str(CAP), "0", "0"]


def test_a_freed_slot_is_refilled_as_soon_as_a_worker_tells_that_a_task_has_ended(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    app = Celery(broker=workload.broker, set_as_current=False)
    # Not one of the process's pool: what an earlier test opened may have been closed since.
    with app.connection_for_write() as connection:
        assert app.control.enable_events(reply=True, connection=connection)
    workload.insert(20)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, interval="5m", concurrency=2))
    operators.start()
    wait_done(workload)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(2)


def test_new_rows_are_found_and_an_idle_scannerjob_is_not_written(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    def version() -> str:
        return str(cluster.get("-n", namespace, "scj", "pdf-pages")["metadata"]["resourceVersion"])

    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    operators.start()
    eventually(lambda: condition(cluster, namespace, "pdf-pages", "Ready")["reason"] == "Scanning")
    idle = version()
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began > 3)
    assert version() == idle
    workload.insert(3)
    wait_done(workload)
    workload.assert_each_row_ran_once()


def test_what_the_schema_lets_pass_and_cannot_be_used_is_a_condition_of_its_own(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    missing = {"urlSecretRef": {"name": "later", "key": "url"}}
    other_key = {"urlSecretRef": {"name": "app-db", "key": "uri"}}
    bad: dict[str, dict[str, Any]] = {
        "bad-sql": {"query": "SELEC id FROM pdf"},
        "two-statements": {"query": "SELECT 1 AS id; DELETE FROM pdf"},
        "update": {"query": "UPDATE pdf SET seconds = 0 RETURNING id"},
        "no-table": {"query": "SELECT id FROM nowhere"},
        "no-secret": {"database": missing},
        "no-key": {"database": other_key},
        "no-column": {"key": ["nothing"]},
    }
    expected = {
        "bad-sql": "SELEC",
        "two-statements": "one statement",
        "update": "SELECT",
        "no-table": "nowhere",
        "no-secret": f"spec.database.urlSecretRef: Secret {namespace}/later",
        "no-key": "has no key uri; it has url",
        "no-column": "nothing",
    }
    cluster.apply(
        *workload.secrets(namespace),
        *(scannerjob(namespace, name, **spec) for name, spec in bad.items()),
    )
    process = operators.start()
    workload.insert(5)
    cluster.apply(scannerjob(namespace))
    wait_done(workload)
    workload.assert_each_row_ran_once()
    for name, text in expected.items():

        def said(name: str = name, text: str = text) -> bool:
            ready = condition(cluster, namespace, name, "Ready")
            assert ready["status"] == "False", (name, ready)
            assert text in ready["message"], (name, ready)
            return True

        eventually(said, message=name)
    assert "Traceback" not in process.log()
    password = workload.database.split("@")[0].rpartition(":")[2]
    assert password not in process.log()


def test_a_secret_created_later_is_picked_up(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(2)
    database, broker = workload.secrets(namespace)
    cluster.apply(broker, scannerjob(namespace))
    operators.start()
    eventually(
        lambda: condition(cluster, namespace, "pdf-pages", "Ready")["reason"] == "SecretNotFound"
    )
    cluster.apply(database)
    wait_done(workload)
    workload.assert_each_row_ran_once()


@pytest.mark.timeout(300)
def test_sigkill_at_any_moment_breaks_no_promise(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    chance = random.Random(1)
    workload.insert(150)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    # With election it would wait for its own Lease to lapse, and be killed while it does nothing.
    process = operators.start("--no-leader-election")
    for kill in range(KILLS):
        wait_ready(process, starts=kill + 1)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.start()
    assert workload.waiting, "all rows were done before the last kill"
    wait_done(workload, 200)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


@pytest.mark.timeout(300)
def test_two_operators_at_once_break_no_promise(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    chance = random.Random(3)
    workload.insert(120, seconds=0.02)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=3))
    both = [operators.start("--no-leader-election") for _ in range(2)]
    for process in both:
        wait_ready(process)

    def done() -> bool:
        """Wakes both at one moment, and freezes one: what it has read is old when it goes on."""
        poke = f"poke={chance.random()}"
        cluster.kubectl("-n", namespace, "annotate", "--overwrite", "scj", "pdf-pages", poke)
        frozen = chance.choice(both)
        time.sleep(chance.uniform(0, 0.05))
        frozen.pause()
        time.sleep(0.6)
        frozen.resume()
        return workload.waiting == 0

    eventually(done, timeout=200)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(3)


@pytest.mark.timeout(300)
def test_an_api_server_that_hangs_and_dies_breaks_no_promise(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(60)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    process = operators.start()
    eventually(lambda: workload.executions > 10)
    cluster.pause_apiserver()
    time.sleep(1)
    cluster.kill_apiserver()
    cluster.start_apiserver()
    wait_done(workload, 200)
    assert process.running, process.log()
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


def test_a_wiped_status_launches_nothing_until_a_person_says_so(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(6, seconds=4)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=2))
    operators.start()
    eventually(lambda: workload.executions == 2)
    wipe(cluster, namespace)

    def lost() -> bool:
        ready = condition(cluster, namespace, "pdf-pages", "Ready")
        return bool(ready["reason"] == "LedgerLost")

    eventually(lost)
    eventually(lambda: workload.waiting == 4, message="what was out ends")
    assert workload.executions == 2
    cluster.kubectl(
        *("-n", namespace, "annotate", "scj", "pdf-pages"),
        f"{GROUP}/requested-accept-lost-ledger=yes",
    )
    wait_done(workload)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(2)


def test_sigterm_ends_it_and_what_is_out_goes_on(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(10, seconds=1)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    process = operators.start()
    eventually(lambda: workload.executions >= 3)
    process.send(signal.SIGTERM)
    assert process.wait(30) == 0, process.log()
    out = cluster.get("-n", namespace, "scj", "pdf-pages")["status"]
    assert {item["phase"] for item in out["items"]} == {"Launched"}
    operators.start()
    wait_done(workload)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


def test_a_deleted_scannerjob_launches_nothing_more_and_can_be_created_anew(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(12, seconds=2)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=2))
    operators.start()
    eventually(lambda: workload.executions >= 2)
    cluster.kubectl("-n", namespace, "delete", "scj", "pdf-pages")
    # While launches went on, this would not come true before all rows were done.
    eventually(lambda: workload.waiting == 12 - len(workload.published.times))
    assert len(workload.published.times) < 12
    cluster.apply(scannerjob(namespace, concurrency=4))
    wait_done(workload)
    workload.assert_each_row_ran_once()


def test_kopf_run_starts_the_same(
    cluster: ControlPlane, namespace: str, workload: Workload, tmp_path: Path
) -> None:
    workload.insert(3)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    kubeconfig = operator_account(cluster, namespace)
    command = [sys.executable, "-m", "kopf", "run", "-m", "scannerjob.controller", "-n", namespace]
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    with Process(command, log=tmp_path / "kopf.log", env=env):
        wait_done(workload)
    workload.assert_each_row_ran_once()


def test_without_the_crd_it_says_so_and_ends(
    cluster: ControlPlane, namespace: str, operators: Operators
) -> None:
    cluster.kubectl("delete", "crd", "scannerjobs.scannerjob.dev")
    try:
        process = operators.start()
        assert process.wait(60) == 1
    finally:
        install_crd(cluster)
    assert "install the CRD first" in process.log()
    assert "Traceback" not in process.log()


def test_an_api_server_that_is_away_at_the_start_is_waited_for(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(3)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    cluster.kill_apiserver()
    process = operators.start()
    eventually(lambda: "no answer from the API server" in process.log())
    cluster.start_apiserver()
    wait_done(workload)
    assert process.running
    workload.assert_each_row_ran_once()
