"""What the witness of a cluster notes of ScannerJobs, Jobs and pods, whatever its watches do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest

from tests.harness.witnesses.application import Application
from tests.harness.witnesses.cluster import KEY, LAUNCH, ClusterWitness
from tests.support.api import Api
from tests.support.apiproxy import ApiProxy
from tests.support.controlplane import ControlPlane
from tests.support.faults import Answer, EndWatch
from tests.support.kubelet import Kubelet
from tests.support.pods import Fate
from tests.support.waiting import eventually


@pytest.fixture
def witness(proxy: ApiProxy, cluster: ControlPlane, namespace: str) -> Iterator[ClusterWitness]:
    """It looks by the proxy; the test acts without it."""
    with ClusterWitness(proxy.kubeconfig(cluster.kubeconfig()), namespace) as witness:
        yield witness


@pytest.fixture
def api(cluster: ControlPlane) -> Api:
    return Api(cluster.kubeconfig())


@pytest.fixture
def scannerjobs(namespace: str) -> str:
    return f"/apis/scannerjob.dev/v1alpha1/namespaces/{namespace}/scannerjobs"


@pytest.fixture
def jobs(namespace: str) -> str:
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def scannerjob(**metadata: Any) -> dict[str, Any]:
    secret = {"urlSecretRef": {"name": "app", "key": "url"}}
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": "items", **metadata},
        "spec": {
            "database": secret,
            "query": "SELECT 1 AS item",
            "concurrency": 3,
            "celery": {"broker": secret, "task": "trial.work"},
        },
    }


def job(launch: str, item: int = 1, owner: str | None = None) -> dict[str, Any]:
    """The Job of a launch; `owner`, a ScannerJob's uid, must be there, or it is collected."""
    env = [{"name": "ITEM", "value": str(item)}]
    container = {"name": "main", "image": "none", "env": env}
    labels = {LAUNCH: launch}
    kind = {"apiVersion": "scannerjob.dev/v1alpha1", "kind": "ScannerJob", "name": "items"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"items-{launch}",
            "labels": labels,
            "annotations": {KEY: f"[{item}]"},
            "ownerReferences": [{**kind, "uid": owner, "controller": True}] if owner else [],
        },
        "spec": {
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [container]},
            },
        },
    }


def suspended(job: dict[str, Any]) -> dict[str, Any]:
    return {**job, "spec": {**job["spec"], "suspend": True}}


def write_status(api: Api, path: str, found: dict[str, Any], active: int) -> dict[str, Any]:
    return api.request("PUT", f"{path}/items/status", {**found, "status": {"active": active}})


def test_every_state_of_a_scannerjob_is_shown_in_order(
    witness: ClusterWitness, api: Api, scannerjobs: str
) -> None:
    before = time.time()
    states = [api.create(scannerjobs, scannerjob(finalizers=["tests/hold"]))]
    for active in range(20):
        states.append(write_status(api, scannerjobs, states[-1], active))
    api.delete(f"{scannerjobs}/items")
    held = api.get(f"{scannerjobs}/items")
    held["metadata"]["finalizers"] = []
    api.request("PUT", f"{scannerjobs}/items", held)
    witness.wait_caught_up()
    *lived, waits, gone = witness.versions()
    assert [each.version for each in lived] == [
        each["metadata"]["resourceVersion"] for each in states
    ]
    assert [each.status for each in lived] == [each.get("status", {}) for each in states]
    assert {each.uid for each in witness.versions()} == {held["metadata"]["uid"]}
    assert [each.cap for each in lived] == [3] * 21
    assert (waits.deleted, waits.version) == (True, held["metadata"]["resourceVersion"])
    assert gone.deleted
    times = [before, *(each.time for each in witness.versions()), time.time()]
    assert times == sorted(times)
    assert witness.gaps() == []


def test_a_watch_that_breaks_misses_nothing(
    witness: ClusterWitness, api: Api, scannerjobs: str, proxy: ApiProxy
) -> None:
    states = [api.create(scannerjobs, scannerjob())]
    broken = proxy.add(EndWatch())
    for active in range(5):
        states.append(write_status(api, scannerjobs, states[-1], active))
    proxy.remove(broken)
    proxy.down()
    for active in range(5):
        states.append(write_status(api, scannerjobs, states[-1], active))
    proxy.up()
    witness.wait_caught_up()
    seen = [each.version for each in witness.versions()]
    assert seen == [each["metadata"]["resourceVersion"] for each in states]
    assert witness.gaps() == []


def test_what_the_api_server_has_forgotten_is_a_gap(
    witness: ClusterWitness, api: Api, scannerjobs: str, jobs: str, proxy: ApiProxy
) -> None:
    states = [api.create(scannerjobs, scannerjob())]
    for launch in ("stays", "goes"):
        api.create(jobs, suspended(job(launch)))
    witness.wait_caught_up()
    proxy.down()
    broke = time.time()
    for active in range(2):
        states.append(write_status(api, scannerjobs, states[-1], active))
    api.delete(f"{jobs}/items-goes", {"propagationPolicy": "Background"})
    proxy.add(Answer(410), when=lambda request: request.watch, times=3)
    proxy.up()
    eventually(lambda: len(witness.gaps()) == 3, message="each watch begins anew")
    witness.wait_caught_up()
    created, _, written = (each["metadata"]["resourceVersion"] for each in states)
    assert [each.version for each in witness.versions()] == [created, written]
    gone = {each.launch: each.deleted is not None for each in witness.jobs()}
    assert gone == {"stays": False, "goes": True}
    assert {gap.witness for gap in witness.gaps()} == {"scannerjobs", "jobs", "pods"}
    assert all(gap.begin <= broke <= gap.end for gap in witness.gaps())


def test_a_watch_that_is_told_so_begins_anew(
    witness: ClusterWitness, api: Api, scannerjobs: str, proxy: ApiProxy
) -> None:
    proxy.add(EndWatch(410), times=3)
    eventually(lambda: len(witness.gaps()) == 3, message="each watch begins anew")
    created = api.create(scannerjobs, scannerjob())
    witness.wait_caught_up()
    assert [each.version for each in witness.versions()] == [created["metadata"]["resourceVersion"]]


def test_jobs_and_pods_are_noted_from_begin_to_end(
    witness: ClusterWitness,
    api: Api,
    cluster: ControlPlane,
    namespace: str,
    scannerjobs: str,
    jobs: str,
    postgres_url: str,
) -> None:
    owner = api.create(scannerjobs, scannerjob())["metadata"]["uid"]
    application = Application(postgres_url, "trial")
    done, fails = application.insert(1)[0], application.insert(1, fails=1)[0]
    before = time.time()
    kubelet = Kubelet(
        cluster.kubeconfig(), [namespace], work=application.work, fate=application.fate
    )
    with kubelet:
        api.create(jobs, job("done", done, owner))
        api.create(jobs, job("fails", fails, owner))
        eventually(
            lambda: all(each.finished for each in two(witness)),
            timeout=90,
            message="both have ended",
        )
    api.delete(f"{jobs}/items-done", {"propagationPolicy": "Foreground"})
    eventually(lambda: witness.jobs()[0].deleted, message="the Job is gone")
    witness.wait_caught_up()
    first, second = witness.jobs()
    assert (first.name, first.launch, first.row) == ("items-done", "done", "[1]")
    assert (first.owner, first.outcome, second.outcome) == (owner, "Complete", "Failed")
    assert first.finished is not None
    assert first.deleted is not None
    assert before < first.created < first.finished < first.deleted < time.time()
    assert second.deleted is None
    assert [each.launch for each in sorted(witness.pods(), key=lambda each: each.launch)] == [
        "done",
        "fails",
    ]
    assert all(each.ended is not None for each in witness.pods())
    assert_recorded(application, kubelet)


def two(witness: ClusterWitness) -> list[Any]:
    assert len(witness.jobs()) == 2
    return witness.jobs()


def assert_recorded(application: Application, kubelet: Kubelet) -> None:
    runs = {run.launch: run for run in application.executions(kubelet)}
    assert {name: run.outcome for name, run in runs.items()} == {
        "done": "succeeded",
        "fails": "failed",
    }
    assert runs["done"].worker == kubelet.pod("items-done").name
    assert [row.until < inf for row in application.rows()] == [True, False]
    for pod in kubelet.started():
        run = runs[pod.labels[LAUNCH]]
        assert run.started == pod.started
        assert run.ended is not None
        assert pod.ended is not None
        assert pod.started < run.ended <= pod.ended


def test_a_pod_that_is_cut_short_is_an_execution_all_the_same(
    api: Api, cluster: ControlPlane, namespace: str, jobs: str, postgres_url: str
) -> None:
    application = Application(postgres_url, "trial")
    application.insert(1)
    with Kubelet(
        cluster.kubeconfig(), [namespace], work=application.work, fate=lambda pod: Fate(seconds=60)
    ) as kubelet:
        api.create(jobs, job("cut"))
        pod = kubelet.wait_running("items-cut", timeout=90)
        [run] = application.executions(kubelet)
        assert (run.launch, run.row, run.started, run.ended) == ("cut", "[1]", pod.started, None)
        api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod.name}")
        eventually(lambda: pod.ended, message="its program has ended")
    [run] = application.executions(kubelet)
    assert (run.ended, run.outcome) == (pod.ended, "failed")
