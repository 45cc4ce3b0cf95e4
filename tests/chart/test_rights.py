"""What the operator's service account, and the people of a namespace, may do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE, Release, Values, rights
from tests.support.waiting import eventually

Right = tuple[str, str, str, str]
"""An API group, a resource, a name or nothing, and a verb."""
Attempt = tuple[str, str]
"""A verb, and a resource as in `scannerjobs.scannerjob.dev/status`."""

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

SCANNER_JOBS = "scannerjobs.scannerjob.dev"
READING = [(verb, SCANNER_JOBS) for verb in ("get", "list", "watch")]
WRITING = [
    *((verb, SCANNER_JOBS) for verb in ("create", "update", "patch", "delete")),
    ("patch", f"{SCANNER_JOBS}/scale"),
]
FORGING = [(verb, "jobs.batch/status") for verb in ("update", "patch")]
NOWHERE = [
    ("list", "secrets"),
    ("watch", "secrets"),
    ("create", SCANNER_JOBS),
    ("delete", SCANNER_JOBS),
    ("patch", f"{SCANNER_JOBS}/status"),
    ("get", "pods"),
    ("create", "pods"),
    ("create", "pods/exec"),
    ("deletecollection", "jobs.batch"),
    ("list", "namespaces"),
    ("list", "customresourcedefinitions.apiextensions.k8s.io"),
    ("get", "nodes"),
    ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
    ("impersonate", "users"),
]


def review(
    plane: ControlPlane, kind: str, *specs: Any, show: str, kubeconfig: Path | None = None
) -> list[Any]:
    """What the API server answers to each of these reviews: one field of their status."""
    document = {"apiVersion": "authorization.k8s.io/v1", "kind": kind}
    answer = plane.kubectl(
        *("create", "-f", "-", "--validate=false", "-o", f"jsonpath={{.status{show}}}{{'\\n'}}"),
        input=yaml.safe_dump_all({**document, "spec": spec} for spec in specs),
        kubeconfig=kubeconfig,
    )
    return [json.loads(line) for line in answer.splitlines()]


def all_rights(plane: ControlPlane, account: str, owner: str, namespace: str) -> set[Right]:
    """All that a service account may do in a namespace."""
    kubeconfig = plane.kubeconfig_for(account, namespace=owner)
    spec = {"namespace": namespace}
    (status,) = review(plane, "SelfSubjectRulesReview", spec, show="", kubeconfig=kubeconfig)
    assert not status["incomplete"]
    return {
        (group, resource, name, verb)
        for rule in status["resourceRules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for name in rule.get("resourceNames", [""])
        for verb in rule["verbs"]
    }


def operators_rights(plane: ControlPlane, owner: str, namespace: str) -> set[Right]:
    """What the operator may do beyond what every service account may."""
    everyone = all_rights(plane, "default", owner, namespace)
    return all_rights(plane, RELEASE, owner, namespace) - everyone


def allowed(
    plane: ControlPlane, user: str, attempts: Sequence[Attempt], namespace: str = ""
) -> list[Attempt]:
    """What a user may do of this in a namespace, or in the whole cluster."""
    specs = [{"user": user, "resourceAttributes": asked(*each, namespace)} for each in attempts]
    answers = review(plane, "SubjectAccessReview", *specs, show=".allowed")
    return [each for each, answer in zip(attempts, answers, strict=True) if answer]


def asked(verb: str, resource: str, namespace: str) -> dict[str, str]:
    name, _, subresource = resource.partition("/")
    name, _, group = name.partition(".")
    attributes = {"group": group, "resource": name, "subresource": subresource}
    return {**attributes, "verb": verb, "namespace": namespace}


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


def test_what_the_operator_of_all_namespaces_may_do_nowhere(
    plane: ControlPlane, namespace: str
) -> None:
    plane.apply(*rights(None, release_namespace=namespace))
    user = f"system:serviceaccount:{namespace}:{RELEASE}"
    assert allowed(plane, user, READING) == READING
    assert allowed(plane, user, NOWHERE) == []
    assert allowed(plane, user, NOWHERE, "default") == []


def test_the_rights_that_other_tests_take_are_the_charts(
    plane: ControlPlane, namespace: str
) -> None:
    plane.apply(*rights(namespace))
    assert operators_rights(plane, namespace, namespace) == SERVED | LEASE
    assert operators_rights(plane, namespace, "default") == set()


@pytest.mark.parametrize(
    ("role", "granted", "refused"),
    [
        ("view", READING, WRITING),
        ("edit", READING + WRITING, [("update", f"{SCANNER_JOBS}/status"), *FORGING]),
        ("admin", READING + WRITING, [("update", f"{SCANNER_JOBS}/finalizers"), *FORGING]),
    ],
)
def test_people_may_do_with_scannerjobs_what_they_may_do_with_their_namespace(
    plane: ControlPlane,
    namespace: str,
    release: Release,
    role: str,
    granted: Sequence[Attempt],
    refused: Sequence[Attempt],
) -> None:
    user = f"{role}er"
    plane.kubectl(
        *("-n", namespace, "create", "rolebinding", user, "--clusterrole", role, "--user", user)
    )
    assert allowed(plane, user, granted, namespace) == []
    release.install()
    eventually(
        lambda: allowed(plane, user, granted, namespace) == granted,
        message="the controller manager aggregated the rights",
    )
    assert allowed(plane, user, refused, namespace) == []
