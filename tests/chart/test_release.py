"""What Helm does with the chart in a real control plane."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.test_templates import CRD, EVERYTHING
from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.helm import CHART, RELEASE, HelmError, Release, Values, helm
from tests.support.kubelet import Kubelet
from tests.support.pods import Pod, expanded
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import eventually

CRD_NAME = "scannerjobs.scannerjob.dev"
KINDS = "deployments,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings"
SCANNER_JOB: dict[str, Any] = {
    "apiVersion": "scannerjob.dev/v1alpha1",
    "kind": "ScannerJob",
    "metadata": {"name": "pages"},
    "spec": {
        "database": {"urlSecretRef": {"name": "app-db", "key": "url"}},
        "query": "SELECT id FROM pdf",
        "job": {"template": {}},
    },
}


def has_crd(plane: ControlPlane) -> bool:
    return bool(plane.kubectl("get", "crd", CRD_NAME, "--ignore-not-found"))


def gone(plane: ControlPlane) -> bool:
    return not has_crd(plane)


def create_scannerjob(plane: ControlPlane, namespace: str) -> None:
    plane.wait_established(CRD_NAME)
    plane.apply({**SCANNER_JOB, "metadata": {"name": "pages", "namespace": namespace}})


def objects(plane: ControlPlane, name: str = RELEASE) -> list[str]:
    label = f"app.kubernetes.io/instance={name}"
    return plane.kubectl("get", KINDS, "-A", "-l", label, "-o", "name").split()


def args(plane: ControlPlane, namespace: str) -> list[str]:
    found = plane.get("deployment", RELEASE, "-n", namespace)
    return list(found["spec"]["template"]["spec"]["containers"][0]["args"])


@pytest.mark.parametrize("values", [None, {**EVERYTHING, "watchNamespaces": ["default"]}])
def test_its_pods_are_admitted_under_the_restricted_standard(
    plane: ControlPlane, namespace: str, release: Release, values: Values | None
) -> None:
    with pytest.raises(KubectlError, match='violates PodSecurity "restricted'):
        plane.kubectl("-n", namespace, "run", "careless", "--image=none")
    release.install(values)
    replicas = (values or {}).get("replicas", 2)

    def admitted() -> bool:
        pods = plane.get("pods", "-n", namespace)["items"]
        assert len(pods) == replicas, plane.kubectl("-n", namespace, "get", "events")
        return True

    eventually(admitted, message="the Deployment's pods were made")


@pytest.mark.parametrize("values", [None, EVERYTHING, {"leaderElection": {"enabled": False}}])
def test_the_api_server_knows_every_field(
    plane: ControlPlane, namespace: str, values: Values | None
) -> None:
    for watched in ("docs", "billing"):
        known = plane.kubectl("create", "namespace", watched, "--dry-run=client", "-o", "yaml")
        plane.kubectl("apply", "-f", "-", input=known)
    # A hook's pod needs the service account to be there.
    options = ("--namespace", namespace, "--no-hooks")
    rendered = helm("template", RELEASE, CHART, *options, values=values)
    plane.kubectl("create", "-f", "-", "--dry-run=server", "--validate=strict", input=rendered)


def test_the_notes_say_what_to_do_next(release: Release) -> None:
    notes = release.install()
    assert "serves all namespaces" in notes
    assert f"--namespace {release.namespace} rollout status deployment/{RELEASE}" in notes
    assert f"helm --namespace {release.namespace} test {RELEASE}" in notes
    assert "kubectl explain scannerjob.spec" in notes
    assert f"kubectl delete crd {CRD_NAME}" in notes
    notes = release.upgrade({"watchNamespaces": ["default"], "crds": {"keep": False}})
    assert "serves the namespaces default." in notes
    assert "delete crd" not in notes


def test_an_upgrade_to_watched_namespaces_takes_the_cluster_role_back(
    plane: ControlPlane, namespace: str, release: Release
) -> None:
    release.install()
    own = f"clusterrole.rbac.authorization.k8s.io/{RELEASE}"
    assert own in objects(plane)
    other = plane.create_namespace()
    release.upgrade({"watchNamespaces": [other]})
    assert own not in objects(plane)
    assert plane.get("role", RELEASE, "-n", other)["rules"]
    assert args(plane, namespace)[:3] == ["operator", "--namespace", other]
    release.upgrade()
    assert own in objects(plane)
    with pytest.raises(KubectlError, match="NotFound"):
        plane.get("role", RELEASE, "-n", other)


def test_uninstalling_keeps_the_scannerjobs_and_nothing_else(
    plane: ControlPlane, namespace: str, release_of_either: Release
) -> None:
    release_of_either.install()
    create_scannerjob(plane, namespace)
    release_of_either.uninstall()
    assert objects(plane) == []
    assert plane.get("scannerjob", "pages", "-n", namespace)["spec"]["concurrency"] == 10
    release_of_either.install()
    assert plane.get("scannerjob", "pages", "-n", namespace)["spec"]["concurrency"] == 10


def test_uninstalling_removes_a_crd_that_is_not_to_be_kept(
    plane: ControlPlane, namespace: str, release: Release
) -> None:
    release.install({"crds": {"keep": False}})
    create_scannerjob(plane, namespace)
    release.uninstall()
    eventually(lambda: gone(plane), message="the CRD is deleted")


def test_whether_the_crd_is_kept_can_be_changed_later(
    plane: ControlPlane, release: Release
) -> None:
    release.install({"crds": {"keep": False}})
    release.upgrade({"crds": {"keep": True}})
    release.upgrade({"crds": {"enabled": False}})
    assert has_crd(plane)
    release.upgrade({"crds": {"keep": False}})
    release.uninstall()
    eventually(lambda: gone(plane), message="the CRD is deleted")


def test_an_upgrade_brings_the_kind_up_to_date_and_a_rollback_takes_it_back(
    plane: ControlPlane, namespace: str, release_of_either: Release, tmp_path: Path
) -> None:
    def described() -> str:
        version = plane.get("crd", CRD_NAME)["spec"]["versions"][0]
        return str(version["schema"]["openAPIV3Schema"]["description"])

    release_of_either.install()
    create_scannerjob(plane, namespace)
    before = described()
    newer = Path(shutil.copytree(CHART, tmp_path / "newer"))
    kind = newer / "files" / CRD.name
    kind.write_text(kind.read_text().replace("A ScannerJob looks", "A newer ScannerJob looks"))

    release_of_either.upgrade(chart=newer)
    assert described() == before.replace("A ScannerJob", "A newer ScannerJob")
    release_of_either.rollback(1)

    assert described() == before
    assert plane.get("scannerjob", "pages", "-n", namespace)["spec"]["concurrency"] == 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("release_of_either", "values"),
    [("helm", {}), ("helm3", {"watchNamespaces": ["default"]})],
    indirect=["release_of_either"],
)
def test_a_release_is_tested_under_the_operators_own_rights(
    plane: ControlPlane, namespace: str, release_of_either: Release, tmp_path: Path, values: Values
) -> None:
    said: list[str] = []
    # Helm waits for 50 s in all: where nobody works that need not be waited for as long.
    impatient = {"alive": ["--timeout", "12"]}

    def scannerjob(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "scannerjob", *arguments]

    def env() -> dict[str, str]:
        account = plane.kubeconfig_for(RELEASE, namespace=namespace)
        return {**os.environ, "KUBECONFIG": str(account)}

    def run(pod: Pod) -> None:
        for container in pod.manifest["spec"]["containers"]:
            options = impatient.get(container["name"], [])
            command = scannerjob(*expanded(container).command, *options)
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=env())
            said.append(done.stderr)
            done.check_returncode()

    release_of_either.install({"replicas": 0, **values})
    plane.wait_established(CRD_NAME)
    with Kubelet(plane.kubeconfig(), [namespace], work=run):
        with pytest.raises(HelmError, match="failed"):
            release_of_either.test()
        assert "no operator works" in said[-1]
        assert f"kubectl --namespace {namespace} get deployments" in said[-1]
        options = args(plane, namespace)
        options[options.index("--health-port") + 1] = str(free_port())
        impatient.clear()
        with Process(scannerjob(*options), log=tmp_path / "operator.log", env=env()):
            lease = ("lease", RELEASE, "-n", namespace)
            eventually(lambda: plane.get(*lease), timeout=60, ignoring=KubectlError)
            assert "Phase:          Succeeded" in release_of_either.test()
            kind = "role" if values else "clusterrole"
            plane.kubectl("delete", kind, RELEASE, "-n", "default")
            with pytest.raises(HelmError, match="failed"):
                release_of_either.test()


def test_a_crd_that_was_installed_otherwise(plane: ControlPlane, release: Release) -> None:
    plane.kubectl("apply", "-f", CRD)
    with pytest.raises(HelmError, match="cannot be imported into the current release"):
        release.install()
    release.install({"crds": {"enabled": False}})
    release.uninstall()
    assert has_crd(plane)
    release.install(None, "--take-ownership")
    release.uninstall()
    assert has_crd(plane)


def test_the_kind_is_served_as_it_is_written(plane: ControlPlane, release: Release) -> None:
    release.install()
    served = plane.get("crd", CRD_NAME)["spec"]
    written: dict[str, Any] = yaml.safe_load(CRD.read_text())["spec"]
    assert served["versions"][0]["schema"] == written["versions"][0]["schema"]


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("3 days", "expected a duration with a unit, as 500ms, 30s or 1h30m; at least 500ms"),
        ("499ms", "at least 500ms"),
        (30, "must be of type string"),
    ],
)
def test_a_wrong_duration_is_told_in_words(
    plane: ControlPlane, namespace: str, release: Release, written: object, told: str
) -> None:
    release.install()
    create_scannerjob(plane, namespace)
    spec = {**SCANNER_JOB["spec"], "interval": written}
    metadata = {"name": "wrong", "namespace": namespace}
    with pytest.raises(KubectlError, match=re.escape(told)) as refused:
        plane.apply({**SCANNER_JOB, "metadata": metadata, "spec": spec})
    assert "spec.interval" in str(refused.value)
    assert "[0-9]" not in str(refused.value)


def test_the_expressions_of_the_policies_are_of_the_right_types(
    plane: ControlPlane, release: Release
) -> None:
    release.install()

    def checked() -> bool:
        found = plane.get("validatingadmissionpolicies")["items"]
        statuses = [each.get("status", {}) for each in found]
        assert len(statuses) == 2
        assert all(each.get("observedGeneration") for each in statuses)
        assert not any(each.get("typeChecking", {}).get("expressionWarnings") for each in statuses)
        return True

    eventually(checked, message="the controller manager checked the policies")
    release.upgrade({"admissionPolicies": {"enabled": False}})
    assert plane.get("validatingadmissionpolicies")["items"] == []
