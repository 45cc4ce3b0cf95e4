"""A control plane to attack: the operator under the chart's rights and policies, and its users."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.cluster.conftest import _scannerjobs, cluster, namespace, opened, operators, work
from tests.support.api import Api, ApiError
from tests.support.controlplane import ControlPlane, Rule
from tests.support.helm import template
from tests.support.waiting import eventually

__all__ = ["_scannerjobs", "cluster", "namespace", "opened", "operators", "work"]

User = Callable[[str, Sequence[Rule]], Api]


@pytest.fixture
def user(cluster: ControlPlane, namespace: str) -> User:
    """Makes users of this test's namespace, by name and rights, who talk to the API server."""

    def make(name: str, rules: Sequence[Rule]) -> Api:
        return Api(cluster.service_account(name, rules, namespace=namespace))

    return make


@pytest.fixture
def policies(cluster: ControlPlane, namespace: str, user: User) -> Iterator[None]:
    """The chart's admission policies, at work in this test's namespace and in no other."""
    values = {"watchNamespaces": [namespace], "fullnameOverride": namespace}
    manifests = template(values, "--show-only=templates/admission.yaml")
    cluster.apply(*manifests)
    stranger = user("stranger", [rule("scannerjob.dev", "scannerjobs", "create")])

    path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{namespace}/scannerjobs?dryRun=All"

    def at_work() -> bool:
        try:
            stranger.create(path, _scannerjob())
        except ApiError as error:
            return "must be allowed to create jobs" in str(error)
        return False

    # It takes the API server a moment to know of new policies.
    eventually(at_work, timeout=60)
    yield
    kinds = "validatingadmissionpolicies,validatingadmissionpolicybindings"
    cluster.kubectl("delete", kinds, "-l", "app.kubernetes.io/name=scannerjob-operator")


def rule(group: str, resource: str, *verbs: str) -> Rule:
    """One rule of a Role."""
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _scannerjob() -> dict[str, object]:
    database = {"urlSecretRef": {"name": "app-db", "key": "url"}}
    return {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "metadata": {"name": "probe"},
        "spec": {"database": database, "query": "SELECT 1 AS id", "job": {"template": {}}},
    }
