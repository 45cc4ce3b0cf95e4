"""The chart grants the operator what it asks of a real API server, and nothing else."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.chart.test_release import args
from tests.cluster.conftest import install_crd
from tests.cluster.jobs import JobWorkload, template
from tests.support.apiproxy import ApiProxy
from tests.support.auditlog import Asked, AuditLog
from tests.support.controlplane import ControlPlane
from tests.support.faults import Answer, Request
from tests.support.helm import RELEASE, Release, Values
from tests.support.pods import Fate
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import eventually

# Nobody asks for it: an admission plugin, which is on here, lets no Job in without it.
UNSEEN = {("scannerjob.dev", "scannerjobs/finalizers", "update")}
VALUES: Values = {"crds": {"enabled": False}, "rbac": {"aggregate": False}, "replicas": 0}
TTL = "jsonpath={.items[*].spec.ttlSecondsAfterFinished}"
COUNTED = "jsonpath={.items[*].series.count}"


def granted(plane: ControlPlane) -> set[Asked]:
    label = f"app.kubernetes.io/instance={RELEASE}"
    return {
        (group, resource, verb)
        for role in plane.get("roles,clusterroles", "-A", "-l", label)["items"]
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def creates(request: Request) -> bool:
    """Whether it is to make something, and not only to try it out."""
    return request.method == "POST" and "dryRun" not in request.query


def operator(kubeconfig: Path, options: list[str], folder: Path) -> Process:
    """The operator as in the chart's Deployment, but for its port."""
    command = [sys.executable, "-m", "scannerjob", *options, "--health-port", str(free_port())]
    env = {**os.environ, "KUBECONFIG": str(kubeconfig)}
    return Process(command, log=folder / "operator.log", env=env)


def give_reasons_for_all_calls(work: JobWorkload, proxy: ApiProxy) -> None:
    # As when others changed a quota, or the ScannerJob: what is there is read anew. That all is
    # well again after the first is counted on the event that said so before.
    proxy.add(Answer(409), path="/jobs$", when=creates, times=1)
    proxy.add(Answer(409), method="PUT", path="/scannerjobs/[^/]+/status$", times=1)
    work.kubelet.fate = lambda pod: Fate(0)
    work.insert(2)
    job = {"template": template(ttlSecondsAfterFinished=3600), "successfulJobsHistoryLimit": 1}
    work.apply(job=job)


def all_came_of_it(work: JobWorkload, proxy: ApiProxy) -> bool:
    refused = {(each.method, each.path) for each in proxy.requests() if each.forwarded == 403}
    said = f"what was refused until now: {refused}"
    assert work.status().get("succeeded") == 2, said
    # One Job is beyond the limit, and the other one is to expire.
    assert len(work.jobs.kept) == 1, said
    assert work.kubectl("get", "jobs", "-o", TTL) == "3600", said
    ours = "--field-selector=involvedObject.kind=ScannerJob"
    assert work.kubectl("get", "events", ours, "-o", COUNTED), said
    return True


@pytest.mark.timeout(300)
@pytest.mark.parametrize("everywhere", [False, True], ids=["by-roles", "by-a-cluster-role"])
def test_the_operator_asks_for_all_that_it_may_and_for_nothing_else(
    plane: ControlPlane,
    audit_log: AuditLog,
    namespace: str,
    release: Release,
    tmp_path: Path,
    postgres_url: str,
    everywhere: bool,
) -> None:
    served = plane.create_namespace("served")
    watched = [] if everywhere else [served]
    # First, since the plugin may know of a kind ten seconds late.
    install_crd(plane)
    release.install({"watchNamespaces": watched, **VALUES})
    account = plane.kubeconfig_for(RELEASE, namespace=namespace)
    with (
        JobWorkload(plane, served, postgres_url) as work,
        ApiProxy(account, tmp_path) as proxy,
        operator(proxy.kubeconfig(account), args(plane, namespace), tmp_path),
    ):
        give_reasons_for_all_calls(work, proxy)
        eventually(lambda: all_came_of_it(work, proxy), timeout=90)
    assert audit_log.asked_by(RELEASE, namespace) == granted(plane) - UNSEEN
