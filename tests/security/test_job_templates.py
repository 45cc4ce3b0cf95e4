"""A Job template as a deputy: it must get nobody what their own rights would not."""

from __future__ import annotations

from typing import Any

import pytest

from scannerjob.model.facts import Fact, Observation
from scannerjob.ports import TargetError
from scannerjob.targets.job.names import LAUNCH, NAME, UID
from tests.cluster.conftest import Open
from tests.cluster.jobs import JobWorkload
from tests.cluster.operators import Operators
from tests.security.conftest import User, rule
from tests.support.api import Api, ApiError
from tests.support.controlplane import ControlPlane
from tests.support.waiting import eventually
from tests.unit.job_cases import CONTAINER, Document, template

EDITS = rule("scannerjob.dev", "scannerjobs", "get", "create", "update", "patch", "delete")
SCALES = rule("scannerjob.dev", "scannerjobs/scale", "get", "update", "patch")
CREATES_JOBS = rule("batch", "jobs", "create")
REFUSED = r"403.*must be allowed to create jobs\.batch"
MERGE, APPLY = "application/merge-patch+json", "application/apply-patch+yaml"


def pod_template(**pod: Any) -> Document:
    """A template whose pod has these fields."""
    return {"spec": {"template": {"spec": {"containers": [CONTAINER], **pod}}}}


def container_template(**container: Any) -> Document:
    return pod_template(containers=[{**CONTAINER, **container}])


PRIVILEGES = {
    "privileged": container_template(securityContext={"privileged": True}),
    "capability": container_template(securityContext={"capabilities": {"add": ["SYS_ADMIN"]}}),
    "host-path": pod_template(volumes=[{"name": "node", "hostPath": {"path": "/"}}]),
    "host-network": pod_template(hostNetwork=True),
    "host-processes": pod_template(hostPID=True),
    "host-ipc": pod_template(hostIPC=True),
    "host-port": container_template(ports=[{"containerPort": 80, "hostPort": 80}]),
}
OTHERS = {
    "service-account": pod_template(serviceAccountName="admin"),
    "secret-volume": pod_template(volumes=[{"name": "all", "secret": {"secretName": "other"}}]),
    "secret-variables": container_template(envFrom=[{"secretRef": {"name": "other"}}]),
    "token-volume": pod_template(
        volumes=[
            {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}
        ]
    ),
    "nothing-of-it": template(),
}


def scannerjob(a_template: Document, name: str = "pdf-pages") -> Document:
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": name},
        "spec": {
            "database": {"urlSecretRef": {"name": "app-db", "key": "url"}},
            "query": "SELECT 1 AS id",
            "job": {"template": a_template},
        },
    }


def path(namespace: str, *parts: str) -> str:
    return "/".join([f"/apis/scannerjob.dev/v1alpha1/namespaces/{namespace}/scannerjobs", *parts])


class TestWithoutTheRightToCreateJobs:
    """The author may do all with ScannerJobs, and nothing with Jobs."""

    @pytest.fixture
    def author(self, policies: None, user: User) -> Api:
        return user("author", [EDITS, SCALES])

    @pytest.fixture
    def there(self, cluster: ControlPlane, namespace: str, policies: None) -> Document:
        """A ScannerJob that somebody with more rights has created."""
        return Api(cluster.kubeconfig()).create(path(namespace), scannerjob(template()))

    def test_no_scannerjob_can_be_created(self, author: Api, namespace: str) -> None:
        for what, written in {**PRIVILEGES, **OTHERS}.items():
            with pytest.raises(ApiError, match=REFUSED):
                author.create(path(namespace), scannerjob(written, what))
        celery = scannerjob({})
        broker = {"urlSecretRef": {"name": "other", "key": "url"}}
        celery["spec"] |= {"job": None, "celery": {"broker": broker, "task": "docs.create"}}
        with pytest.raises(ApiError, match=REFUSED):
            author.create(path(namespace), celery)

    def test_no_spec_can_be_changed(self, author: Api, namespace: str, there: Document) -> None:
        bad = PRIVILEGES["privileged"]
        place = path(namespace, "pdf-pages")
        whole = {**there, "spec": {**there["spec"], "job": {"template": bad}}}
        operations = [{"op": "replace", "path": "/spec/job/template", "value": bad}]
        ways: list[tuple[str, str, str, Any]] = [
            ("PUT", place, "application/json", whole),
            ("PATCH", place, "application/json-patch+json", operations),
            ("PATCH", f"{place}?fieldManager=a&force=true", APPLY, scannerjob(bad)),
            ("PATCH", place, MERGE, {"spec": {"job": {"template": bad}}}),
            ("PATCH", place, MERGE, {"spec": {"query": "SELECT 2 AS id"}}),
            ("PATCH", place, MERGE, {"spec": {"database": _other_secret()}}),
        ]
        for method, where, content, body in ways:
            with pytest.raises(ApiError, match=REFUSED):
                author.request(method, where, body, content=content)

    def test_annotations_the_cap_and_the_end_are_theirs(
        self, author: Api, namespace: str, there: Document
    ) -> None:
        place = path(namespace, "pdf-pages")
        asked = {"metadata": {"annotations": {"scannerjob.dev/requested-accept-lost-ledger": "1"}}}
        author.request("PATCH", place, asked, content=MERGE)
        cap = {"spec": {"replicas": 3}}
        author.request("PATCH", f"{place}/scale", cap, content=MERGE)
        assert author.get(place)["spec"]["concurrency"] == 3
        author.delete(place)


def _other_secret() -> Document:
    return {"urlSecretRef": {"name": "other", "key": "url"}}


def test_who_may_create_jobs_writes_scannerjobs(policies: None, user: User, namespace: str) -> None:
    author = user("author", [EDITS, CREATES_JOBS])
    author.create(path(namespace), scannerjob(template()))
    change = {"spec": {"job": {"template": OTHERS["service-account"]}}}
    author.request("PATCH", path(namespace, "pdf-pages"), change, content=MERGE)


def test_a_right_in_another_namespace_is_none_here(
    policies: None, cluster: ControlPlane, user: User, namespace: str
) -> None:
    elsewhere = cluster.create_namespace()
    author = user("author", [EDITS])
    cluster.kubectl(
        *("-n", elsewhere, "create", "rolebinding", "author", "--clusterrole=admin"),
        f"--serviceaccount={namespace}:author",
    )
    with pytest.raises(ApiError, match=REFUSED):
        author.create(path(namespace), scannerjob(template()))


def test_the_operator_does_its_work_under_the_policies(
    policies: None, user: User, work: JobWorkload, operators: Operators
) -> None:
    cap = 2
    work.insert(3)
    work.apply(concurrency=cap)
    operators.start()
    work.assert_all_done(3, cap)
    scaler = user("scaler", [SCALES])
    place = path(work.namespace, "pdf-pages", "scale")
    scaler.request("PATCH", place, {"spec": {"replicas": 1}}, content=MERGE)
    work.insert(1)
    work.assert_all_done(4, cap)


# What a template says of the Job itself.

FORGED_METADATA: Document = {
    "name": "kube-dns",
    "generateName": "other-",
    "namespace": "kube-system",
    "uid": "00000000-0000-4000-8000-000000000000",
    "resourceVersion": "1",
    "labels": {NAME: "another", UID: "another", LAUNCH: "another", "team": "docs"},
    "annotations": {"scannerjob.dev/key": "[2]", "scannerjob.dev/attempt": "99"},
    "ownerReferences": [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "other"},
    ],
    "deletionTimestamp": "2020-01-01T00:00:00Z",
    "creationTimestamp": "2020-01-01T00:00:00Z",
}
FORGED_END = {
    "conditions": [{"type": "Complete", "status": "True"}],
    "succeeded": 1,
    "completionTime": "2020-01-01T00:00:00Z",
}


def test_a_template_cannot_say_whose_job_it_is_or_how_it_ended(opened: Open) -> None:
    written = template(ttlSecondsAfterFinished=0)
    pod = {"labels": {LAUNCH: "another", UID: "another"}, "namespace": "kube-system"}
    written["spec"]["template"]["metadata"] = pod
    site = opened({**written, "metadata": FORGED_METADATA, "status": FORGED_END})

    assert site.launch_one("1") == Observation(Fact.ACCEPTED)

    (job,) = site.jobs().values()
    metadata = job["metadata"]
    ours = {NAME: site.name, UID: site.uid, LAUNCH: "id-1"}
    assert metadata["name"] == site.job_name("1")
    assert metadata["labels"].items() >= {**ours, "team": "docs"}.items()
    assert [owner["uid"] for owner in metadata["ownerReferences"]] == [site.uid]
    assert metadata["annotations"]["scannerjob.dev/key"] == "[1]"
    assert metadata["annotations"]["scannerjob.dev/attempt"] == "1"
    assert metadata["uid"] != FORGED_METADATA["uid"]
    assert "deletionTimestamp" not in metadata
    assert not job.get("status", {}).get("conditions")
    assert "ttlSecondsAfterFinished" not in job["spec"]
    assert job["spec"]["template"]["metadata"]["labels"].items() >= ours.items()
    assert site.observed("1") == Observation(Fact.ACCEPTED)


@pytest.mark.parametrize(
    "written",
    [
        {"apiVersion": "v1", "kind": "Pod", **template()},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", **template()},
        pod_template(serviceAccountName="kube-system/admin"),
        pod_template(serviceAccountName="../admin"),
    ],
)
def test_a_template_of_something_else_is_refused(opened: Open, written: Document) -> None:
    site = opened(written)

    with pytest.raises(TargetError) as error:
        site.check()

    assert error.value.reason == "InvalidTemplate"
    assert site.launch_one("1").fact is not Fact.ACCEPTED
    assert site.jobs() == {}


# What stands in the way of those who may create Jobs: the same as if they had.


def test_pod_security_holds_for_pods_of_templates(
    cluster: ControlPlane, namespace: str, opened: Open
) -> None:
    level = "pod-security.kubernetes.io/enforce=baseline"
    cluster.kubectl("label", "namespace", namespace, level)
    sites = [opened(written, name=what) for what, written in PRIVILEGES.items()]
    for site in sites:
        site.launch_one(site.name)
    jobs = {site.job_name(site.name) for site in sites}

    def all_refused() -> bool:
        events = cluster.get("-n", namespace, "events")["items"]
        told = [each for each in events if each["reason"] == "FailedCreate"]
        assert {each["involvedObject"]["name"] for each in told} == jobs
        assert all("forbidden" in each["message"] for each in told), told
        return True

    eventually(all_refused, message="the Job controller was refused each pod")
    assert cluster.get("-n", namespace, "pods")["items"] == []
    for site in sites:
        assert site.observed(site.name).fact is Fact.ACCEPTED, "its slot is held"


@pytest.mark.usefixtures("work")
def test_a_finalizer_holds_no_slot(opened: Open) -> None:
    """Its author has a Job that stays, and no more than that."""
    site = opened(
        {**template(), "metadata": {"finalizers": ["example.com/forever"]}},
        successfulJobsHistoryLimit=0,
    )
    site.launch_one("1")
    eventually(lambda: site.observed("1").fact is Fact.SUCCEEDED)
    for _ in range(2):
        site.clean_up(settled=["1"])
        assert site.observed("1", told=False).fact is not Fact.FAILED
    assert site.job("1")["metadata"]["deletionTimestamp"]
    site.patch_job("1", {"metadata": {"finalizers": None}})
