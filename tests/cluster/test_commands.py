"""The commands in a cluster, under the rights of who may edit a namespace, and of who may not."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from celery import Celery

from scannerjob.model.ledger import Phase, ledger_to_status
from tests.cluster.jobs import JobWorkload, settled
from tests.cluster.operators import Operators
from tests.cluster.workload import scannerjob, secret
from tests.support.apiproxy import ApiProxy
from tests.support.command import Command
from tests.support.controlplane import ControlPlane
from tests.support.faults import Answer
from tests.support.podlogs import PodLogs
from tests.support.pods import End, Fate, Pod
from tests.support.processes import Process
from tests.support.waiting import eventually
from tests.unit.cases import item, ledger

# Each command is a process, and a busy machine takes seconds to start one.
pytestmark = pytest.mark.timeout(300)

EDITOR = [
    {"apiGroups": ["scannerjob.dev"], "resources": ["scannerjobs"], "verbs": ["*"]},
    {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "create"]},
    {"apiGroups": [""], "resources": ["pods", "pods/log"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
]
READER = [{"apiGroups": ["scannerjob.dev"], "resources": ["scannerjobs"], "verbs": ["get", "list"]}]


@pytest.fixture
def editor(cluster: ControlPlane, namespace: str) -> Command:
    kubeconfig = cluster.service_account("editor", EDITOR, namespace=namespace)
    return Command("--namespace", namespace, "--kubeconfig", str(kubeconfig))


def row_2_fails(pod: Pod) -> Fate:
    return Fate(end=End(3, "Error")) if pod.env["PDF_ID"] == "2" else Fate()


@pytest.fixture
def running(work: JobWorkload, operators: Operators) -> JobWorkload:
    """An operator at work; row 2 fails as often as it is tried."""
    work.kubelet.fate = row_2_fails
    operators.start()
    return work


def test_a_row_that_failed_is_explained_with_its_pods_last_words(
    running: JobWorkload, editor: Command, cluster: ControlPlane, tmp_path: Path
) -> None:
    running.insert(3)
    running.apply(retry={"attempts": 1})
    settled(running, succeeded=2, parked=1)
    said = "".join(f"page {page}\n" for page in range(1, 40)) + "page 40 is torn\n"
    with PodLogs(cluster.kubeconfig(), running.kubelet.node, tmp_path, lambda _: said):
        story = editor.says("explain", "pdf-pages", 2)
        told = editor.data("explain", "pdf-pages", 2)
        assert editor.says("logs", "pdf-pages", 2) == said
        assert editor.says("logs", "pdf-pages", 2, "--tail", 1) == "page 40 is torn\n"
        assert "pages" in editor.complains("logs", "pdf-pages", 2, "-c", "other", code=2)

    assert "Parked" in story
    assert "exit code 3" in story
    assert "page 40 is torn" in story
    assert "page 1\n" not in story
    (item,) = (each for each in running.items().values() if each["key"] == "[2]")
    assert told["reason"] == item["reason"]
    assert told["launch"] in {job.name for job in running.jobs.jobs.values()}


def test_last_words_of_a_task_are_for_who_may_read_the_result_backends_secret(
    cluster: ControlPlane, namespace: str, editor: Command, redis_url: str
) -> None:
    reference = {"urlSecretRef": {"name": "app-results", "key": "url"}}
    celery = {"broker": reference, "resultBackend": reference, "task": "docs.tasks.create_pages"}
    cluster.apply(scannerjob(namespace, celery=celery, suspend=True))
    parked = replace(item("[2]", Phase.PARKED), id="launch-2")
    found = cluster.get("-n", namespace, "scj", "pdf-pages")
    document = json.dumps({**found, "status": ledger_to_status(ledger(parked))})
    cluster.kubectl("replace", "--subresource=status", "-f", "-", input=document)
    backend = Celery(backend=redis_url).backend
    backend.mark_as_failure(parked.id, ValueError("page 2 is torn"), "In a task:\nValueError: ...")

    (word,) = _reader(cluster, namespace).data("explain", "pdf-pages", 2)["lastWords"]
    assert "spec.celery.resultBackend" in word
    assert "Secret" in word
    assert "must not be read" in word
    assert "is not there" in editor.data("explain", "pdf-pages", 2)["lastWords"][0]
    cluster.apply(secret(namespace, "app-results", url=redis_url))
    words = editor.data("explain", "pdf-pages", 2)["lastWords"]
    told = ["In a task:", "ValueError: ...", "ValueError: page 2 is torn"]
    assert words == [f"task {parked.id}: FAILURE", *told]


def _reader(cluster: ControlPlane, namespace: str) -> Command:
    kubeconfig = cluster.service_account("reader", READER, namespace=namespace)
    return Command("--namespace", namespace, "--kubeconfig", str(kubeconfig))


def test_a_parked_row_is_tried_again_now(running: JobWorkload, editor: Command) -> None:
    running.insert(3)
    running.apply(retry={"attempts": 1})
    settled(running, succeeded=2, parked=1)
    running.kubelet.fate = lambda pod: Fate()

    editor.says("retry", "pdf-pages", 2)

    settled(running, succeeded=3, parked=0)


def test_suspend_resume_scan_and_drain(running: JobWorkload, editor: Command) -> None:
    running.apply(interval="1h")
    running.wait_reason("Scanning")
    assert "suspended" in editor.says("suspend", "pdf-pages")
    running.wait_reason("Suspended")
    running.insert(1)
    assert "looked at its rows; 0 of" in editor.says("scan", "pdf-pages")
    assert running.kubelet.started() == []

    assert "resumed" in editor.says("resume", "pdf-pages")
    settled(running, succeeded=1)
    assert "drained" in editor.says("drain", "pdf-pages")
    running.insert(1)
    assert "suspended" in editor.says("explain", "pdf-pages", 2)
    assert running.found()["spec"]["suspend"] is True


def test_status_of_one_of_all_and_of_every_namespace(
    running: JobWorkload, cluster: ControlPlane, editor: Command, namespace: str
) -> None:
    running.insert(1)
    running.apply()
    running.apply("other", query="SELECT id AS pdf_id FROM pdf WHERE id < 0")
    settled(running, succeeded=1)

    assert [each["name"] for each in editor.data("status")] == ["other", "pdf-pages"]
    assert "1 succeeded" in editor.says("status", "pdf-pages")
    everywhere = Command("--kubeconfig", str(cluster.kubeconfig()))
    header, *lines = everywhere.says("status", "--all-namespaces").splitlines()
    assert header.split()[0] == "NAMESPACE"
    assert [namespace, "pdf-pages"] in [line.split()[:2] for line in lines]
    complaint = editor.complains("status", "--all-namespaces", code=1)
    assert "forbidden" in complaint


def test_preview_reads_the_secret_of_the_cluster(running: JobWorkload, editor: Command) -> None:
    running.insert(2)
    running.apply(suspend=True)
    running.wait_reason("Suspended")

    told = editor.data("preview", "pdf-pages")

    assert [(row["key"], row["launch"]) for row in told["rows"]] == [("[1]", False), ("[2]", False)]
    assert [hold["reason"] for hold in told["holds"]] == ["Suspended"]
    assert running.kubelet.started() == []


def test_who_may_only_read_changes_nothing_and_is_told(
    running: JobWorkload, cluster: ControlPlane, namespace: str
) -> None:
    running.insert(1)
    running.apply()
    settled(running, succeeded=1)
    reader = _reader(cluster, namespace)

    assert "1 succeeded" in reader.says("status", "pdf-pages")
    assert "could not be looked up" in reader.says("explain", "pdf-pages", 9)
    for command in ("suspend", "scan", "drain"):
        assert "forbidden" in reader.complains(command, "pdf-pages", code=1)
    assert "suspend" not in running.found()["spec"] or not running.found()["spec"]["suspend"]


def test_a_mistyped_name_or_context_gets_a_hint(
    running: JobWorkload, editor: Command, tmp_path: Path, namespace: str
) -> None:
    running.apply()
    eventually(running.found)

    assert "did you mean pdf-pages?" in editor.complains("status", "pdf-pagse", code=1)
    assert "did you mean pdf-pages?" in editor.complains("status", "pdf-page\udcff", code=1)
    assert "nowhere" in editor.complains("status", "--context", "nowhere", code=2)
    nowhere = Command("--kubeconfig", str(tmp_path / "none"))
    assert "kubeconfig" in nowhere.complains("status", code=2)


def test_a_cluster_without_the_kind_says_what_to_install(
    cluster: ControlPlane, tmp_path: Path
) -> None:
    with ApiProxy(cluster.kubeconfig(), tmp_path) as proxy:
        proxy.add(Answer(404), path="/scannerjobs$")
        command = Command("--kubeconfig", str(proxy.kubeconfig(cluster.kubeconfig())))
        assert "install" in command.complains("status", code=1)


def test_who_watches_or_waits_outlasts_an_api_server_that_is_away(
    running: JobWorkload, editor: Command, cluster: ControlPlane, tmp_path: Path, namespace: str
) -> None:
    running.apply()
    running.wait_reason("Scanning")
    with ApiProxy(cluster.kubeconfig(), tmp_path) as proxy:
        kubeconfig = proxy.kubeconfig(cluster.service_account("afar", EDITOR, namespace=namespace))
        afar = ["--namespace", namespace, "--kubeconfig", str(kubeconfig)]
        live = _started(["status", "--watch", *afar], tmp_path / "live.log")
        with live:
            eventually(lambda: "Scanning" in live.log(), timeout=60)
            proxy.down()
            eventually(lambda: "not up to date" in live.log(), timeout=60)
            proxy.up()
            running.kubelet.fate = lambda pod: Fate(seconds=math.inf)
            running.insert(1)
            (pod,) = eventually(running.kubelet.running, timeout=60)
            settled(running, active=1)
            drain = _started(["drain", "pdf-pages", *afar], tmp_path / "drain.log")
            with drain:
                eventually(lambda: "1 launches are out" in drain.log(), timeout=60)
                proxy.down()
                running.kubelet.end(pod.name)
                settled(running, active=0)
                proxy.up()
                assert drain.wait(60) == 0, drain.log()
            assert "drained" in drain.log()
            eventually(lambda: "Suspended" in live.log(), timeout=60)


def _started(arguments: Sequence[str], log: Path) -> Process:
    return Process([sys.executable, "-m", "scannerjob", *arguments], log=log)
