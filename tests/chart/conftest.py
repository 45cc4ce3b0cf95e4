from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.support.auditlog import AuditLog
from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE, Release, helm


@pytest.fixture(scope="module")
def audit_log(tmp_path_factory: pytest.TempPathFactory) -> AuditLog:
    """What service accounts ask of the control plane."""
    return AuditLog(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def _plane(audit_log: AuditLog) -> Iterator[ControlPlane]:
    """One of these tests' own: Helm refuses a CRD that somebody else installed."""
    # A plugin that some clusters have, and that asks for more rights.
    strict = "--enable-admission-plugins=OwnerReferencesPermissionEnforcement"
    with ControlPlane(apiserver_options=[*audit_log.options, strict]) as plane:
        yield plane


@pytest.fixture
def plane(_plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with no release, no CRD and no ClusterRole of ours."""
    yield _plane.ensure_answering()
    for release in _releases(_plane):
        release.uninstall()
    _plane.delete_crd("scannerjobs.scannerjob.dev")
    cluster_roles = "clusterroles,clusterrolebindings"
    _plane.kubectl("delete", cluster_roles, RELEASE, "--ignore-not-found")


def _releases(plane: ControlPlane) -> list[Release]:
    listed = helm("list", "--all-namespaces", "--output=json", kubeconfig=plane.kubeconfig())
    return [Release(plane, each["namespace"], each["name"]) for each in json.loads(listed)]


@pytest.fixture
def namespace(plane: ControlPlane) -> str:
    """A namespace that admits only what the restricted pod security standard allows."""
    name = plane.create_namespace()
    plane.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    return name


@pytest.fixture
def release(plane: ControlPlane, namespace: str) -> Release:
    """A release in this namespace, not yet installed."""
    return Release(plane, namespace, RELEASE)


@pytest.fixture(params=["helm", "helm3"])
def release_of_either(
    plane: ControlPlane, namespace: str, request: pytest.FixtureRequest
) -> Release:
    """A release as it is made by Helm 4 and by Helm 3."""
    return Release(plane, namespace, RELEASE, request.param)
