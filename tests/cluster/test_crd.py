from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from scannerjob.model.spec import parse_spec
from tests.conformance.ledger_store import document, status
from tests.corpus.cases import BAD, GOOD, Case
from tests.corpus.templates import BAD_TEMPLATES, GOOD_TEMPLATES, Template
from tests.support.controlplane import ControlPlane, KubectlError

COLUMNS = "NAME READY SUSPENDED ACTIVE CAP WAITING PARKED LAST LAUNCH AGE"


@pytest.fixture
def api(cluster: ControlPlane) -> Iterator[client.CustomObjectsApi]:
    configuration = client.Configuration()
    config.load_kube_config(  # type: ignore[no-untyped-call]
        str(cluster.kubeconfig()), client_configuration=configuration
    )
    with client.ApiClient(configuration) as connection:
        yield client.CustomObjectsApi(connection)


@pytest.mark.parametrize("template", GOOD_TEMPLATES.values(), ids=GOOD_TEMPLATES)
def test_a_template_that_the_command_line_takes_makes_a_job(
    cluster: ControlPlane, template: Template
) -> None:
    _dry_run(cluster, template)


@pytest.mark.parametrize("bad", BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_a_template_that_the_command_line_refuses_makes_none(
    cluster: ControlPlane, bad: tuple[Template, str]
) -> None:
    with pytest.raises(KubectlError):
        _dry_run(cluster, bad[0])


def _dry_run(cluster: ControlPlane, template: Template) -> None:
    metadata = {"name": "specimen", **template.get("metadata", {})}
    job = {"apiVersion": "batch/v1", "kind": "Job", **template, "metadata": metadata}
    options = ("--dry-run=server", "--validate=strict")
    cluster.kubectl("create", *options, "-f", "-", input=json.dumps(job))


def create(api: client.CustomObjectsApi, spec: Any) -> Mapping[str, Any]:
    """As `kubectl create --dry-run=server` does."""
    created = api.create_namespaced_custom_object(
        "scannerjob.dev",
        "v1alpha1",
        "default",
        "scannerjobs",
        {**document(), "spec": spec},
        dry_run="All",
        field_validation="Strict",
    )
    return cast(Mapping[str, Any], created)


@pytest.mark.parametrize("case", GOOD, ids=str)
def test_a_good_spec_is_accepted_and_keeps_its_meaning(
    api: client.CustomObjectsApi, case: Case
) -> None:
    assert parse_spec(create(api, case.spec)["spec"]) == parse_spec(case.spec)


@pytest.mark.parametrize("case", BAD, ids=str)
def test_a_bad_spec_is_refused_by_the_name_of_its_field(
    api: client.CustomObjectsApi, case: Case
) -> None:
    with pytest.raises(ApiException) as error:
        create(api, case.spec)
    assert error.value.status in (400, 422)
    assert case.expected in str(error.value.body)


def put_status(cluster: ControlPlane, namespace: str, new: Mapping[str, Any]) -> None:
    found = cluster.get("-n", namespace, "scannerjob", "pdf-pages")
    cluster.kubectl(
        "replace", "--subresource=status", "-f", "-", input=json.dumps({**found, "status": new})
    )


@pytest.fixture
def applied(cluster: ControlPlane, namespace: str) -> dict[str, Any]:
    """A ScannerJob on the API server, and its document."""
    manifest = document()
    manifest["metadata"]["namespace"] = namespace
    cluster.apply(manifest)
    return manifest


def test_a_new_object_is_not_observed_and_has_its_defaults(
    cluster: ControlPlane, namespace: str, applied: dict[str, Any]
) -> None:
    found = cluster.get("-n", namespace, "scj", "pdf-pages")
    assert found["status"] == {"observedGeneration": -1}
    assert found["spec"]["retry"] == {"attempts": 3, "backoff": "10s", "maxBackoff": "10m"}
    assert parse_spec(found["spec"]) == parse_spec(applied["spec"])


def test_the_columns(cluster: ControlPlane, namespace: str, applied: dict[str, Any]) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    ready = {"type": "Ready", "status": "True", "reason": "Scanning", "message": ""}
    counts = {"active": 4, "waiting": 3, "parked": 2, "cooling": 1}
    conditions = [{**ready, "lastTransitionTime": now}]
    put_status(cluster, namespace, {**counts, "conditions": conditions, "lastLaunchTime": now})
    head, row = cluster.kubectl("-n", namespace, "get", "scj").splitlines()
    assert head.split() == COLUMNS.split()
    assert row.split()[:7] == ["pdf-pages", "True", "false", "4", "10", "3", "2"]


def test_the_columns_of_the_wide_table(
    cluster: ControlPlane, namespace: str, applied: dict[str, Any]
) -> None:
    head = cluster.kubectl("-n", namespace, "get", "scj", "--output=wide").splitlines()[0]
    wide = "REASON COOLING SUCCEEDED FAILED LOST LAST SCAN"
    assert head.split() == COLUMNS.replace(" AGE", f" {wide} AGE").split()


def test_they_are_selected_by_queue_task_and_suspension(
    cluster: ControlPlane, namespace: str, applied: dict[str, Any]
) -> None:
    def found(selector: str) -> str:
        options = ("get", "scj", "-o", "name", "--field-selector", selector)
        return cluster.kubectl("-n", namespace, *options)

    task = applied["spec"]["celery"]["task"]
    assert found(f"spec.celery.task={task},spec.celery.queue=celery,spec.suspend=false")
    assert not found("spec.celery.queue=slow")
    assert not found("spec.suspend=true")


def test_the_cap_can_be_scaled(
    cluster: ControlPlane, namespace: str, applied: dict[str, Any]
) -> None:
    put_status(cluster, namespace, {"active": 4, "selector": "scannerjob.dev/name=pdf-pages"})
    cluster.kubectl("-n", namespace, "scale", "scj/pdf-pages", "--replicas=25")
    assert cluster.get("-n", namespace, "scj", "pdf-pages")["spec"]["concurrency"] == 25
    with pytest.raises(KubectlError, match=r"spec\.concurrency"):
        cluster.kubectl("-n", namespace, "scale", "scj/pdf-pages", "--replicas=1001")


def test_a_full_ledger_is_accepted(
    cluster: ControlPlane, namespace: str, applied: dict[str, Any]
) -> None:
    put_status(cluster, namespace, status(items=1100))
    assert len(cluster.get("-n", namespace, "scj", "pdf-pages")["status"]["items"]) == 1100


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"key": ["id"]}, "spec.key"),
        ({"key": None}, "spec.key"),
        ({"celery": None, "job": {"template": {}}}, "the kind of target"),
    ],
    ids=["other-key", "no-key", "other-target"],
)
def test_key_and_target_cannot_change_under_outstanding_launches(
    cluster: ControlPlane,
    namespace: str,
    applied: dict[str, Any],
    change: dict[str, Any],
    expected: str,
) -> None:
    patch = ("patch", "scj", "pdf-pages", "--type=merge", "-n", namespace, "-p")
    cluster.kubectl(*patch, json.dumps({"spec": {"key": ["pdf_id"]}}))
    put_status(cluster, namespace, {"active": 1})
    with pytest.raises(KubectlError, match=expected) as error:
        cluster.kubectl(*patch, json.dumps({"spec": change}))
    assert "status.active" in str(error.value)
    cluster.kubectl(*patch, json.dumps({"spec": {"key": ["pdf_id"], "interval": "1s"}}))
    put_status(cluster, namespace, {"active": 0})
    cluster.kubectl(*patch, json.dumps({"spec": change}))
