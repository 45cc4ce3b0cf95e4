"""Rows become Jobs: an operator with few rights, the real Job controller, a test's kubelet."""

from __future__ import annotations

import math
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.jobs import JobWorkload, settled, template
from tests.cluster.operators import Operators, wait_ready, wipe
from tests.support.controlplane import KubectlError
from tests.support.helm import HelmError, helm
from tests.support.pods import EVICTED, FAILED, OOM_KILLED, VANISHED, Fate
from tests.support.waiting import eventually

CAP = 5
KILLS = 6


def test_rows_become_jobs_once_and_never_more_than_the_cap(
    work: JobWorkload, operators: Operators
) -> None:
    work.insert(25, title="costs $5, $(PATH) and $$")
    work.apply(concurrency=CAP)
    operators.start()
    work.wait_done()
    status = settled(work, succeeded=25, launched=25, active=0)
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(CAP)
    assert {tuple(pod.program.command) for pod in work.kubelet.started()} == {
        ("create-pages", str(number)) for number in range(1, 26)
    }
    assert {pod.env["TITLE"] for pod in work.kubelet.started()} == {"costs $5, $(PATH) and $$"}
    assert status["items"] == []
    _, row = work.kubectl("get", "scj").splitlines()
    assert row.split()[:7] == ["pdf-pages", "True", "false", "0", str(CAP), "0", "0"]
    eventually(lambda: len(work.jobs.kept) == 3, message="the history limit is kept")


def test_why_jobs_failed_is_told_and_rows_out_of_attempts_are_parked(
    work: JobWorkload, operators: Operators
) -> None:
    ends = {"1": OOM_KILLED, "2": FAILED, "3": EVICTED}
    work.kubelet.fate = lambda pod: (
        Fate(0.1, end=ends[pod.env["PDF_ID"]]) if pod.env["PDF_ID"] in ends else Fate(0.1)
    )
    work.insert(4)
    work.apply(retry={"attempts": 2, "backoff": "1s"})
    operators.start()
    status = settled(work, parked=3, failed=6, succeeded=1)
    reasons = {item["key"]: item["reason"] for item in status["items"]}
    assert reasons["[1]"] == "OOMKilled (exit code 137)"
    assert reasons["[2]"] == "exit code 1"
    assert reasons["[3]"].startswith("Evicted: The node was low on resource")
    assert work.executions() == {"1": 2, "2": 2, "3": 2, "4": 1}
    work.assert_no_row_ran_twice_at_once()
    work.assert_one_job_per_launch()
    work.execute("UPDATE pdf SET pages_created = true WHERE id = 1")
    settled(work, parked=2)
    events = work.plane.get("-n", work.namespace, "events.events.k8s.io")["items"]
    told = [each["note"] for each in events if each.get("reason") == "RowsParked"]
    assert any("OOMKilled (exit code 137)" in note or "exit code 1" in note for note in told)
    ours = [each for each in events if each["regarding"]["kind"] == "ScannerJob"]
    assert len(ours) <= 6, "one for each row"


def test_a_deadline_ends_a_job_and_counts_as_an_attempt(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf if len(work.kubelet.started()) < 1 else 0.1)
    work.insert(1)
    work.apply(deadline="2s", retry={"backoff": "1s"})
    operators.start()
    work.wait_done()
    status = settled(work, failed=1, succeeded=1)
    assert status["launched"] == 2
    work.assert_no_row_ran_twice_at_once()


@pytest.mark.timeout(300)
def test_sigkill_at_any_moment_breaks_no_promise(work: JobWorkload, operators: Operators) -> None:
    chance = random.Random(1)
    work.kubelet.fate = lambda pod: Fate(0.3)
    work.insert(80)
    work.apply(concurrency=CAP)
    process = operators.start("--no-leader-election")
    for kill in range(KILLS):
        wait_ready(process, starts=kill + 1)
        time.sleep(chance.uniform(0, 1.5))
        process.kill()
        process.start()
    assert work.waiting, "all rows were done before the last kill"
    work.wait_done(200)
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(CAP)
    settled(work, launched=80, succeeded=80, active=0)


@pytest.mark.timeout(300)
def test_two_operators_without_election_break_no_promise(
    work: JobWorkload, operators: Operators
) -> None:
    chance = random.Random(3)
    work.kubelet.fate = lambda pod: Fate(0.1)
    work.insert(50)
    work.apply(concurrency=3)
    both = [operators.start("--no-leader-election") for _ in range(2)]
    for process in both:
        wait_ready(process)

    def done() -> bool:
        """Wakes both at one moment, and freezes one: what it has read is old when it goes on."""
        work.kubectl("annotate", "--overwrite", "scj", "pdf-pages", f"poke={chance.random()}")
        frozen = chance.choice(both)
        time.sleep(chance.uniform(0, 0.05))
        frozen.pause()
        time.sleep(0.6)
        frozen.resume()
        return work.waiting == 0

    eventually(done, timeout=200)
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(3)
    settled(work, launched=50, succeeded=50, active=0)


def test_sigterm_ends_it_and_what_is_out_goes_on(work: JobWorkload, operators: Operators) -> None:
    work.insert(12)
    work.apply(concurrency=CAP)
    process = operators.start()
    eventually(lambda: len(work.kubelet.started()) >= 3)
    process.send(signal.SIGTERM)
    assert process.wait(45) == 0, process.log()
    assert {item["phase"] for item in work.items().values()} <= {"Launched"}
    operators.start()
    work.wait_done()
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(CAP)


def test_a_job_that_ended_while_no_operator_ran_is_counted_once(
    work: JobWorkload, operators: Operators
) -> None:
    work.insert(4)
    work.apply(concurrency=2)
    process = operators.start()
    eventually(lambda: len(work.kubelet.running()) == 2)
    process.kill()
    eventually(lambda: not work.jobs.unfinished)
    operators.start()
    work.wait_done()
    settled(work, launched=4, succeeded=4, failed=0, lost=0, active=0)
    work.assert_each_row_ran_once()


# Jobs that end in unusual ways, or not at all.


def test_a_job_deleted_by_hand_holds_its_slot_while_its_pod_runs(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: (
        Fate(math.inf, lingers=4) if not work.kubelet.started() else Fate(0.1)
    )
    work.insert(1)
    work.apply(concurrency=1, retry={"backoff": "0s"})
    operators.start()
    (job,) = eventually(lambda: work.jobs.unfinished)
    pod = work.kubelet.wait_running(job.name)
    work.kubectl("delete", "job", job.name, "--wait=false")
    work.wait_done()
    status = settled(work, lost=1, succeeded=1, launched=2)
    assert status["failed"] == 0
    assert pod.ended is not None
    work.assert_no_row_ran_twice_at_once()
    assert work.executions() == {"1": 2}


def test_a_pod_on_a_lost_node_holds_its_slot_and_the_condition_says_why(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf, lost=not work.kubelet.started())
    work.insert(1)
    work.apply(concurrency=1)
    operators.start()
    (job,) = eventually(lambda: work.jobs.unfinished)
    pod = work.kubelet.wait_running(job.name)
    work.kubectl("delete", "pod", pod.name, "--wait=false")

    def stalled() -> str:
        condition = work.condition("Stalled")
        assert condition["status"] == "True", condition
        return str(condition["message"])

    assert job.name in eventually(stalled, timeout=90)
    assert work.status()["active"] == 1
    assert len(work.jobs.jobs) == 1
    work.kubelet.end(pod.name, VANISHED)  # the node is back, and says that nothing of it runs
    eventually(lambda: len(work.jobs.jobs) == 2, message="the next attempt")


def test_a_suspended_job_holds_its_slot_until_its_queue_admits_it(
    work: JobWorkload, operators: Operators
) -> None:
    queued = template(suspend=True)
    queued["metadata"] = {"labels": {"kueue.x-k8s.io/queue-name": "batch"}}
    work.insert(2)
    work.apply(concurrency=1, job={"template": queued})
    operators.start()
    (job,) = eventually(lambda: work.jobs.unfinished)
    found = work.plane.get("-n", work.namespace, "job", job.name)
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "batch"
    eventually(lambda: work.status().get("active") == 1)
    work.kubectl("patch", "job", job.name, "-p", '{"spec": {"suspend": false}}')
    eventually(lambda: len(work.jobs.jobs) == 2, message="the second row's Job")
    assert work.waiting == 1
    assert len(work.kubelet.started()) == 1


def test_the_ttl_is_put_on_once_the_end_is_counted(work: JobWorkload, operators: Operators) -> None:
    work.kubelet.fate = lambda pod: Fate(0.5)
    work.insert(1)
    work.apply(job={"template": template(ttlSecondsAfterFinished=1)})
    operators.start()
    (job,) = eventually(lambda: work.jobs.unfinished)
    spec = work.plane.get("-n", work.namespace, "job", job.name)["spec"]
    assert "ttlSecondsAfterFinished" not in spec
    settled(work, succeeded=1)
    eventually(lambda: job.deleted, message="the Job expired")
    work.assert_each_row_ran_once()


# What people do.


def test_a_bad_template_is_named_by_its_field_and_a_good_one_goes_on(
    work: JobWorkload, operators: Operators
) -> None:
    bad = template()
    bad["spec"]["template"]["spec"]["containers"][0]["imgae"] = "none"
    work.insert(2)
    work.apply(job={"template": bad})
    operators.start()
    message = work.wait_reason("InvalidTemplate")
    assert "spec.template.spec.containers[0].imgae" in message
    del bad["spec"]["template"]["spec"]["containers"][0]["imgae"]
    bad["spec"]["template"]["spec"]["containers"][0]["image"] = ""
    work.apply(job={"template": bad})

    def named() -> bool:
        path = "spec.job.template.spec.template.spec.containers[0].image: Required value"
        return path in work.ready()["message"]

    eventually(named)
    assert not work.jobs.jobs
    work.apply()
    work.wait_done()
    work.assert_each_row_ran_once()


def test_a_column_that_cannot_be_a_variable_is_named(
    work: JobWorkload, operators: Operators
) -> None:
    work.insert(1)
    work.apply(query="SELECT id AS pdf_id, title AS path FROM pdf WHERE NOT pages_created")
    operators.start()
    assert "column 'path'" in work.wait_reason("InvalidColumn")
    assert not work.jobs.jobs
    work.apply()
    work.wait_done()


def test_a_quota_is_waited_for_and_costs_no_attempt(
    work: JobWorkload, operators: Operators
) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few", "namespace": work.namespace},
        "spec": {"hard": {"count/jobs.batch": "2"}},
    }
    work.plane.apply(quota)
    work.insert(6)
    job = {"template": template(), "successfulJobsHistoryLimit": 0}
    work.apply(concurrency=CAP, job=job)
    operators.start()
    work.wait_done()
    work.assert_each_row_ran_once()
    assert work.jobs.peak <= 2
    settled(work, launched=6, succeeded=6, failed=0, lost=0)


def test_the_cap_is_lowered_and_raised_while_work_is_out(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(10)
    work.apply(concurrency=4)
    operators.start()
    eventually(lambda: len(work.kubelet.running()) == 4)
    work.kubectl("scale", "scj/pdf-pages", "--replicas=2")
    first, second, third, fourth = work.kubelet.running()
    for pod in (first, second):
        work.kubelet.end(pod.name)
    settled(work, succeeded=2, active=2)
    assert len(work.jobs.jobs) == 4
    work.kubelet.end(third.name)
    eventually(lambda: len(work.jobs.jobs) == 5, message="a slot is free again")
    work.kubectl("scale", "scj/pdf-pages", "--replicas=6")
    eventually(lambda: len(work.kubelet.running()) == 6)
    assert work.status()["active"] == 6
    assert fourth.running
    work.assert_one_job_per_launch()


def test_an_autoscaler_changes_the_cap(work: JobWorkload, operators: Operators) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(10)
    work.apply(concurrency=1)
    operators.start()
    settled(work, active=1)
    target = {"apiVersion": "scannerjob.dev/v1alpha1", "kind": "ScannerJob", "name": "pdf-pages"}
    metric = {"type": "Utilization", "averageUtilization": 50}
    work.plane.apply(
        {
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": "pages", "namespace": work.namespace},
            "spec": {
                "scaleTargetRef": target,
                "minReplicas": 3,
                "maxReplicas": 7,
                "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": metric}}],
            },
        }
    )
    eventually(lambda: len(work.kubelet.running()) == 3, timeout=90)
    assert work.found()["spec"]["concurrency"] == 3


def test_query_and_interval_change_and_suspension_stops_launches_while_work_is_out(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(6)
    work.apply(concurrency=2)
    operators.start()
    eventually(lambda: len(work.kubelet.running()) == 2)
    work.patch({"suspend": True})
    work.wait_reason("Suspended")
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    settled(work, succeeded=2, active=0)
    assert len(work.jobs.jobs) == 2
    newest_first = (
        "SELECT id AS pdf_id, title, 1 AS fast FROM pdf WHERE NOT pages_created ORDER BY id DESC"
    )
    work.patch({"suspend": False, "interval": "1s", "query": newest_first})
    eventually(lambda: len(work.kubelet.running()) == 2)
    assert {pod.env["PDF_ID"] for pod in work.kubelet.running()} == {"5", "6"}
    assert {pod.env["FAST"] for pod in work.kubelet.running()} == {"1"}
    work.kubelet.fate = lambda pod: Fate(0.1)
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    work.wait_done()
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(2)


def test_the_kind_of_target_cannot_change_while_work_is_out(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(1)
    work.apply()
    operators.start()
    settled(work, active=1)
    broker = {"urlSecretRef": {"name": "app-db", "key": "url"}}
    celery = {"job": None, "celery": {"broker": broker, "task": "docs.tasks.create_pages"}}
    with pytest.raises(KubectlError, match="cannot change while launches are outstanding"):
        work.patch(celery)
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    settled(work, active=0)
    work.patch(celery)


def test_a_rotated_password_is_used_without_a_restart(
    work: JobWorkload, operators: Operators, postgres_server: Any
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(3)
    work.apply(concurrency=1)
    operators.start()
    (pod,) = eventually(work.kubelet.running)
    before = work.database
    try:
        work.database = rotate(work, postgres_server)
        work.kubelet.fate = lambda pod: Fate(0.1)
        work.kubelet.end(pod.name)
        eventually(lambda: work.condition("DatabaseReachable")["status"] == "False")
        assert "second-c4n4ry" not in work.ready()["message"]
        work.plane.apply(work.secret())
        work.wait_done()
        work.assert_each_row_ran_once()
    finally:
        work.execute(f"ALTER ROLE app PASSWORD '{postgres_server.password}'")
        work.database = before


def rotate(work: JobWorkload, server: Any) -> str:
    """Give the role another password and end its sessions; gives the new URL."""
    work.execute("ALTER ROLE app PASSWORD 'second-c4n4ry'")
    rotated = work.database.replace(f":{server.password}@", ":second-c4n4ry@")
    admin = JobWorkload.execute
    work.database = rotated
    admin(
        work,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE usename = 'app' AND pid <> pg_backend_pid()",
    )
    return rotated


# Ledgers and objects that vanish.


def test_a_wiped_status_gives_running_jobs_their_slots_back(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(6)
    work.apply(concurrency=2)
    operators.start()
    eventually(lambda: len(work.kubelet.running()) == 2)
    settled(work, active=2)
    wipe(work.plane, work.namespace)
    work.wait_reason("LedgerLost")
    settled(work, active=2, launched=2)
    assert len(work.jobs.jobs) == 2
    work.kubelet.fate = lambda pod: Fate(0.1)
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    settled(work, active=0, succeeded=2)
    assert len(work.jobs.jobs) == 2
    work.kubectl("annotate", "scj", "pdf-pages", "scannerjob.dev/requested-accept-lost-ledger=yes")
    work.wait_done()
    work.assert_each_row_ran_once()
    work.assert_cap_was_kept(2)


def test_deleting_a_scannerjob_removes_its_jobs_and_one_created_anew_waits_for_them(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf, lingers=3)
    work.insert(4)
    work.apply(concurrency=2)
    operators.start()
    eventually(lambda: len(work.kubelet.running()) == 2)
    old = list(work.jobs.jobs.values())
    work.kubectl("delete", "scj", "pdf-pages")
    work.kubelet.fate = lambda pod: Fate(0.1)
    work.apply(concurrency=2)
    work.wait_done()
    assert all(job.deleted for job in old)
    assert {row: work.executions()[row] for row in ("1", "2")} == {"1": 2, "2": 2}
    work.assert_no_row_ran_twice_at_once()
    settled(work, succeeded=4, launched=4)


def test_jobs_that_outlive_their_scannerjob_hold_the_launches_of_its_successor(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(2)
    work.apply(concurrency=1)
    operators.start()
    (pod,) = eventually(work.kubelet.running)
    backup = work.found()
    work.kubectl("delete", "scj", "pdf-pages", "--cascade=orphan")
    eventually(lambda: not work.kubectl("get", "scj", "--ignore-not-found"))
    work.apply(concurrency=1)
    assert str(pod.job) in work.wait_reason("PredecessorRuns")
    assert len(work.jobs.jobs) == 1
    work.kubelet.fate = lambda pod: Fate(0.1)
    work.kubelet.end(pod.name)
    work.wait_done()
    work.assert_each_row_ran_once()
    assert backup["metadata"]["uid"] != work.found()["metadata"]["uid"]


def test_a_backup_restored_without_its_status_launches_nothing_until_a_person_says_so(
    work: JobWorkload, operators: Operators
) -> None:
    work.kubelet.fate = lambda pod: Fate(0.1)
    work.insert(1)
    work.apply()
    operators.start()
    work.wait_done()
    settled(work, succeeded=1)
    backup = work.found()
    work.kubectl("delete", "scj", "pdf-pages")
    work.insert(2)
    for field in ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"):
        backup["metadata"].pop(field, None)
    work.plane.apply({key: value for key, value in backup.items() if key != "status"})
    work.wait_reason("LedgerLost")
    assert work.waiting == 2
    work.kubectl("annotate", "scj", "pdf-pages", "scannerjob.dev/requested-accept-lost-ledger=yes")
    work.wait_done()
    work.assert_each_row_ran_once()


def test_kubectl_waits_for_ready(work: JobWorkload, operators: Operators) -> None:
    work.apply()
    operators.start()
    eventually(lambda: work.ready()["status"] == "True")
    said = work.kubectl("wait", "--for=condition=Ready", "scj/pdf-pages", "--timeout=30s")
    assert "condition met" in said
    found = work.found()
    assert found["status"]["observedGeneration"] == found["metadata"]["generation"]
    eventually(lambda: "Scanning" in work.kubectl("events", "--for", "scannerjob/pdf-pages"))


def test_helm_waits_until_it_is_ready_and_not_for_its_work(
    work: JobWorkload, operators: Operators, tmp_path: Path
) -> None:
    """Helm goes by kstatus, as Flux and Argo CD do."""
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(3)
    work.plane.apply(work.secret())
    operators.start()
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: pages, version: 0.1.0}")
    manifest = chart / "templates" / "scannerjob.yaml"
    wait = ("--namespace", work.namespace, "--wait", "--timeout")

    manifest.write_text(yaml.safe_dump(work.scannerjob(concurrency=2)))
    helm("install", "pages", chart, *wait, "60s", kubeconfig=work.plane.kubeconfig())
    assert work.ready()["status"] == "True"
    settled(work, active=2)

    bad = work.scannerjob(query="SELECT id FROM nowhere")
    manifest.write_text(yaml.safe_dump(bad))
    with pytest.raises(HelmError):
        helm("upgrade", "pages", chart, *wait, "5s", kubeconfig=work.plane.kubeconfig())
    assert "nowhere" in work.ready()["message"]
