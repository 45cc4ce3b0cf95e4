"""What the operator's service account, and the people of a namespace, may do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE, Release, Values, rights
from tests.support.waiting import eventually

Right = tuple[str, str, str, str]
"""An API group, a resource, a name or nothing, and a verb."""

JOB_VERBS = ("get", "list", "watch", "create", "patch", "delete")
SERVED = {
    *(("scannerjob.dev", "scannerjobs", "", verb) for verb in ("get", "list", "watch", "patch")),
    ("scannerjob.dev", "scannerjobs/status", "", "update"),
    ("scannerjob.dev", "scannerjobs/finalizers", "", "update"),
    ("", "secrets", "", "get"),
    *(("batch", "jobs", "", verb) for verb in JOB_VERBS),
    ("", "pods", "", "list"),
    *(("events.k8s.io", "events", "", verb) for verb in ("create", "patch")),
}
LEASE = {
    ("coordination.k8s.io", "leases", RELEASE, "get"),
    ("coordination.k8s.io", "leases", RELEASE, "update"),
    ("coordination.k8s.io", "leases", "", "create"),
}


def review(plane: ControlPlane, kind: str, spec: Any, **options: Any) -> dict[str, Any]:
    """What the API server answers to one of its reviews."""
    document = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
    text = yaml.safe_dump(document)
    answer = plane.kubectl("create", "-f", "-", "-o", "json", input=text, **options)
    return dict(json.loads(answer)["status"])


def all_rights(plane: ControlPlane, account: str, owner: str, namespace: str) -> set[Right]:
    """All that a service account may do in a namespace."""
    kubeconfig = plane.kubeconfig_for(account, namespace=owner)
    spec = {"namespace": namespace}
    found = review(plane, "SelfSubjectRulesReview", spec, kubeconfig=kubeconfig)
    assert not found["incomplete"]
    return {
        (group, resource, name, verb)
        for rule in found["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def operators_rights(plane: ControlPlane, owner: str, namespace: str) -> set[Right]:
    """What the operator may do beyond what every service account may."""
    everyone = all_rights(plane, "default", owner, namespace)
    return all_rights(plane, RELEASE, owner, namespace) - everyone


def may(plane: ControlPlane, user: str, verb: str, resource: str, namespace: str = "") -> bool:
    """Whether a user may do this to a resource, as in `scannerjobs.scannerjob.dev/status`."""
    name, _, subresource = resource.partition("/")
    name, _, group = name.partition(".")
    attributes = {"group": group, "resource": name, "subresource": subresource}
    attributes |= {"verb": verb, "namespace": namespace}
    spec = {"user": user, "resourceAttributes": attributes}
    return bool(review(plane, "SubjectAccessReview", spec)["allowed"])


def test_all_that_the_operator_may_do(
    plane: ControlPlane, namespace: str, release: Release
) -> None:
    release.install()
    assert operators_rights(plane, namespace, namespace) == SERVED | LEASE
    assert operators_rights(plane, namespace, "default") == SERVED


def test_all_that_it_may_do_where_it_serves_some_namespaces(
    plane: ControlPlane, namespace: str, release: Release
) -> None:
    docs, billing = plane.create_namespace("docs"), plane.create_namespace("billing")
    release.install({"watchNamespaces": [docs, billing]})
    assert operators_rights(plane, namespace, docs) == SERVED
    assert operators_rights(plane, namespace, billing) == SERVED
    assert operators_rights(plane, namespace, namespace) == LEASE
    assert operators_rights(plane, namespace, "default") == set()


@pytest.mark.parametrize(
    ("values", "served", "own"),
    [
        ({"leaderElection": {"enabled": False}}, SERVED, SERVED),
        ({"rbac": {"create": False}}, set(), set()),
    ],
)
def test_rights_that_are_not_asked_for_are_not_given(
    plane: ControlPlane,
    namespace: str,
    release: Release,
    values: Values,
    served: set[Right],
    own: set[Right],
) -> None:
    release.install(values)
    assert operators_rights(plane, namespace, "default") == served
    assert operators_rights(plane, namespace, namespace) == own


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "scannerjobs.scannerjob.dev"),
        ("delete", "scannerjobs.scannerjob.dev"),
        ("patch", "scannerjobs.scannerjob.dev/status"),
        ("get", "pods"),
        ("create", "pods"),
        ("create", "pods/exec"),
        ("deletecollection", "jobs.batch"),
        ("list", "namespaces"),
        ("list", "customresourcedefinitions.apiextensions.k8s.io"),
        ("get", "nodes"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("impersonate", "users"),
    ],
)
def test_what_the_operator_may_do_nowhere(plane: ControlPlane, verb: str, resource: str) -> None:
    namespace = plane.create_namespace()
    plane.apply(*rights(None, release_namespace=namespace))
    user = f"system:serviceaccount:{namespace}:{RELEASE}"
    assert may(plane, user, "list", "scannerjobs.scannerjob.dev")
    assert not may(plane, user, verb, resource)
    assert not may(plane, user, verb, resource, "default")


def test_the_rights_that_other_tests_take_are_the_charts(plane: ControlPlane) -> None:
    namespace = plane.create_namespace()
    plane.apply(*rights(namespace))
    assert operators_rights(plane, namespace, namespace) == SERVED | LEASE
    assert operators_rights(plane, namespace, "default") == set()


SCANNER_JOBS = "scannerjobs.scannerjob.dev"
READING = [(verb, SCANNER_JOBS) for verb in ("get", "list", "watch")]
WRITING = [
    *((verb, SCANNER_JOBS) for verb in ("create", "update", "patch", "delete")),
    ("patch", f"{SCANNER_JOBS}/scale"),
]


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        ("view", READING, WRITING),
        ("edit", READING + WRITING, [("update", f"{SCANNER_JOBS}/status")]),
        ("admin", READING + WRITING, [("update", f"{SCANNER_JOBS}/finalizers")]),
    ],
)
def test_people_may_do_with_scannerjobs_what_they_may_do_with_their_namespace(
    plane: ControlPlane,
    namespace: str,
    release: Release,
    role: str,
    allowed: Sequence[tuple[str, str]],
    refused: Sequence[tuple[str, str]],
) -> None:
    user = f"{role}er"
    plane.kubectl(
        *("-n", namespace, "create", "rolebinding", user, "--clusterrole", role, "--user", user)
    )
    assert not may(plane, user, "get", SCANNER_JOBS, namespace)
    release.install()

    def all_allowed() -> bool:
        return all(may(plane, user, *right, namespace) for right in allowed)

    eventually(all_allowed, message="the controller manager aggregated the rights")
    for verb, resource in refused:
        assert not may(plane, user, verb, resource, namespace)
