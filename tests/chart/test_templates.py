"""What the chart makes of its values, without a cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from scannerjob.cli.commands import app
from tests.support.helm import (
    CHART,
    RELEASE,
    HelmError,
    Manifest,
    Values,
    helm,
    rights,
    template,
)

REPOSITORY = CHART.parents[1]
CRD = REPOSITORY / "crds" / "scannerjob.dev_scannerjobs.yaml"
KEEP = "  annotations:\n    helm.sh/resource-policy: keep\n"
EVERYTHING: Values = {
    "watchNamespaces": ["docs", "billing"],
    "replicas": 3,
    "crds": {"keep": False},
    "image": {
        "repository": "registry.example/scannerjob-operator",
        "digest": "sha256:" + "0" * 64,
        "pullPolicy": "Always",
    },
    "imagePullSecrets": [{"name": "registry"}],
    "serviceAccount": {"name": "scanner", "annotations": {"cloud.example/role": "scanner"}},
    "resources": {"requests": {"cpu": 1}, "limits": {"memory": "1Gi"}},
    "podAnnotations": {"example.com/owner": "docs"},
    "podLabels": {"team": "docs"},
    "nodeSelector": {"kubernetes.io/os": "linux"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {
            "topologyKey": "topology.kubernetes.io/zone",
            "maxSkew": 1,
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"team": "docs"}},
        }
    ],
    "priorityClassName": "system-cluster-critical",
    "fullnameOverride": "scanners",
    "commonLabels": {"example.com/cost-centre": "docs"},
    "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "extraVolumes": [{"name": "certificates", "configMap": {"name": "certificates"}}],
    "extraVolumeMounts": [{"name": "certificates", "mountPath": "/certificates"}],
    "podDisruptionBudget": {"enabled": True},
    "networkPolicy": {"enabled": True, "egress": [{"ports": [{"port": 443}]}]},
}
MINIMUM: Values = {
    "replicas": 1,
    "leaderElection": {"enabled": False},
    "crds": {"enabled": False},
    "serviceAccount": {"create": False},
    "rbac": {"create": False, "aggregate": False},
    "admissionPolicies": {"enabled": False},
    "podDisruptionBudget": {"enabled": False},
}
MATRIX: dict[str, Values | None] = {
    "defaults": None,
    "everything": EVERYTHING,
    "minimum": MINIMUM,
    "watched": {"watchNamespaces": ["docs"]},
    "alone": {"replicas": 1, "leaderElection": {"enabled": False}},
    "closed": {"networkPolicy": {"enabled": True}},
    "labelled": {"commonLabels": {"team": "docs"}, "podLabels": {"team": "pods"}},
}
# Of these the schemas are at hand; older ones lack what the admission policies are.
VERSIONS = [f"1.{minor}" for minor in range(30, 38)]
# Where make puts kubernetes-validate.
VALIDATE = Path(sys.prefix) / "validate"
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SECRET_KEY = {"secretKeyRef": {"name": "proxy", "key": "url"}}
NFS = {"server": "files.example", "path": "/"}
_VALIDATION = """
import json, sys, kubernetes_validate
for line in sys.stdin:
    for version in sys.argv[1:]:
        kubernetes_validate.validate(json.loads(line), version, strict=True)
"""


def kinds(manifests: list[Manifest]) -> list[str]:
    return sorted(manifest["kind"] for manifest in manifests)


def deployment(values: Values | None = None) -> dict[str, Any]:
    (found,) = template(values, "--show-only=templates/deployment.yaml")
    spec: dict[str, Any] = found["spec"]
    return spec


def container(values: Values | None = None) -> dict[str, Any]:
    (found,) = deployment(values)["template"]["spec"]["containers"]
    return dict(found)


def rendered_crd(values: Values, chart: Path = CHART) -> str:
    text = helm("template", "x", chart, "--show-only=templates/crd.yaml", values=values)
    text = text.removeprefix("---\n# Source: scannerjob-operator/templates/crd.yaml\n")
    return text.rstrip("\n") + "\n"  # Helm itself adds empty lines


def test_every_version_of_kubernetes_knows_what_is_made() -> None:
    made = [each for values in MATRIX.values() for each in template(values)]
    # Many are the same whatever the values are.
    different = {json.dumps(each) for each in made}
    done = subprocess.run(
        [sys.executable, "-c", _VALIDATION, *VERSIONS],
        check=False,
        input="\n".join(different),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(VALIDATE)},
    )
    assert done.returncode == 0, done.stderr


def test_labels_of_ones_own_are_on_everything_and_hide_nothing() -> None:
    own = {"team": "docs", "app.kubernetes.io/name": "mine"}
    for manifest in template({"commonLabels": own, "crds": {"enabled": False}}):
        labels = manifest["metadata"]["labels"]
        assert labels["team"] == "docs", manifest["kind"]
        assert labels.get("app.kubernetes.io/name") != "mine"


def test_the_pod_that_tests_a_release_is_none_of_the_operators() -> None:
    selector = deployment()["selector"]["matchLabels"]
    (pod,) = [each for each in template() if each["kind"] == "Pod"]
    assert not selector.items() <= pod["metadata"]["labels"].items()


def test_a_release_is_tested_in_each_namespace_that_it_serves_and_by_its_lease() -> None:
    (pod,) = [each for each in template(EVERYTHING) if each["kind"] == "Pod"]
    args = [container["args"] for container in pod["spec"]["containers"]]
    assert args == [
        ["status", "--namespace", "docs"],
        ["status", "--namespace", "billing"],
        ["alive", "--lease-name", "scanners", "--lease-namespace", "default"],
    ]
    (pod,) = [each for each in template(MINIMUM) if each["kind"] == "Pod"]
    args = [container["args"] for container in pod["spec"]["containers"]]
    assert args == [["status", "--all-namespaces"]]


def test_the_program_takes_the_arguments_of_the_pod_that_tests_a_release() -> None:
    (pod,) = [each for each in template(EVERYTHING) if each["kind"] == "Pod"]
    for container in pod["spec"]["containers"]:
        assert CliRunner().invoke(app, [*container["args"], "--help"]).exit_code == 0
        assert CliRunner().invoke(app, [*container["args"], "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize("version", ["helm", "helm3"])
@pytest.mark.parametrize("values", [None, EVERYTHING, {"leaderElection": {"enabled": False}}])
def test_lint_finds_nothing(values: Values | None, version: str) -> None:
    assert helm("lint", "--strict", "--quiet", CHART, values=values, version=version) == ""


def test_the_crd_is_the_one_in_crds_byte_for_byte() -> None:
    assert rendered_crd({"crds": {"keep": False}}) == CRD.read_text()
    kept = rendered_crd({"crds": {"keep": True}})
    assert yaml.safe_load(kept)["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert kept.replace(KEEP, "") == CRD.read_text()


def test_a_packaged_chart_holds_the_crd_itself(tmp_path: Path) -> None:
    helm("package", CHART, "--destination", tmp_path)
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        file = archive.extractfile(f"scannerjob-operator/files/{CRD.name}")
        assert file
        assert file.read() == CRD.read_bytes()
    assert rendered_crd({"crds": {"keep": False}}, package) == CRD.read_text()


def test_the_crd_can_be_left_out() -> None:
    manifests = template({"crds": {"enabled": False}})
    assert kinds(manifests) == [
        "ClusterRole",
        "ClusterRole",
        "ClusterRole",
        "ClusterRoleBinding",
        "Deployment",
        "Pod",
        "PodDisruptionBudget",
        "Role",
        "RoleBinding",
        "ServiceAccount",
        *["ValidatingAdmissionPolicy"] * 2,
        *["ValidatingAdmissionPolicyBinding"] * 2,
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"watchNamespace": ["docs"]}, "'watchNamespace' not allowed"),
        ({"crds": {"install": True}}, "'install' not allowed"),
        ({"image": {"Tag": "1"}}, "'Tag' not allowed"),
        ({"resources": {"limit": {}}}, "'limit' not allowed"),
        ({"affinity": {"podAffinities": {}}}, "'podAffinities' not allowed"),
        ({"watchNamespaces": "docs"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Docs"]}, "/watchNamespaces/0"),
        ({"watchNamespaces": ["docs", "docs"]}, "/watchNamespaces"),
        ({"replicas": "2"}, "/replicas"),
        ({"replicas": -1}, "/replicas"),
        ({"leaderElection": False}, "/leaderElection"),
        ({"leaderElection": {"enabled": "no"}}, "/leaderElection/enabled"),
        ({"image": {"tag": 1.0}}, "/image/tag"),
        ({"image": {"digest": "sha256:123"}}, "/image/digest"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"imagePullSecrets": ["registry"]}, "/imagePullSecrets/0"),
        ({"podLabels": {"team": 1}}, "/podLabels/team"),
        ({"podLabels": {"the team": "docs"}}, "'the team' does not match"),
        ({"podAnnotations": {"example.com/": "x"}}, "'example.com/' does not match"),
        ({"extraEnv": [{"name": "A", "vlaue": "x"}]}, "'vlaue' not allowed"),
        ({"extraEnv": [{"name": "A", "value": 1}]}, "/extraEnv/0/value"),
        ({"extraEnv": [{"name": "A", "value": "x", "valueFrom": SECRET_KEY}]}, "/extraEnv/0"),
        ({"extraEnv": [{"name": "A", "valueFrom": {"secret": {}}}]}, "'secret' not allowed"),
        ({"extraVolumes": [{"name": "A", "emptyDir": {}}]}, "/extraVolumes/0/name"),
        ({"extraVolumes": [{"name": "a"}]}, "/extraVolumes/0"),
        ({"extraVolumes": [{"name": "a", "emptydir": {}}]}, "'emptydir' not allowed"),
        ({"extraVolumes": [{"name": "a", "secret": {"name": "b"}}]}, "'name' not allowed"),
        ({"extraVolumes": [{"name": "a", "emptyDir": {}, "nfs": NFS}]}, "/extraVolumes/0"),
        ({"extraVolumeMounts": [{"name": "a", "mountpath": "/x"}]}, "'mountpath' not allowed"),
        ({"extraVolumeMounts": [{"name": "a"}]}, "mountPath"),
        ({"tolerations": [{"kye": "x"}]}, "'kye' not allowed"),
        ({"tolerations": [{"key": "x", "effect": "NoExec"}]}, "/tolerations/0/effect"),
        ({"resources": {"requests": {"memry": "1Gi"}}}, "'memry' does not match"),
        ({"resources": {"limits": {"memory": "1 GB"}}}, "/resources/limits/memory"),
        ({"topologySpreadConstraints": [{"topolgyKey": "x"}]}, "'topolgyKey' not allowed"),
        ({"affinity": {"podAffinity": {"required": []}}}, "'required' not allowed"),
        ({"networkPolicy": {"egress": [{"from": []}]}}, "'from' not allowed"),
        ({"fullnameOverride": "Bad_Name"}, "/fullnameOverride"),
        ({"nameOverride": "-name"}, "/nameOverride"),
        ({"serviceAccount": {"name": "my account"}}, "/serviceAccount/name"),
        ({"priorityClassName": "High"}, "/priorityClassName"),
        ({"image": {"repository": "scannerjob-operator:0.1.0"}}, "/image/repository"),
        ({"image": {"tag": "0.1.0@sha256"}}, "/image/tag"),
    ],
)
def test_a_wrong_value_is_named(values: Values, said: str) -> None:
    with pytest.raises(HelmError, match="don't meet the specifications of the schema") as refused:
        template(values)
    assert said in str(refused.value)


def test_what_kubernetes_takes_is_taken() -> None:
    container_values = {
        "extraEnv": [{"name": "A.b-c", "valueFrom": SECRET_KEY}, {"name": "EMPTY"}],
        "extraVolumes": [
            {"name": "ca", "secret": {"secretName": "ca", "items": [{"key": "a", "path": "b"}]}},
            {"name": "share", "nfs": NFS},
            {"name": "pod", "downwardAPI": {"items": []}},
            {"name": "all", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}},
        ],
        "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": True}],
        "resources": {
            "requests": {"cpu": 0.5, "memory": "1e9", "ephemeral-storage": "1Gi"},
            "limits": {"hugepages-2Mi": "4Mi", "example.com/device": 1},
        },
    }
    placement = {
        "tolerations": [{"operator": "Exists"}, {"key": "a/b", "effect": "NoExecute"}],
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
                    ]
                }
            }
        },
        "image": {"repository": "localhost:5000/team/scannerjob_operator", "tag": "v1.0-rc.1_x"},
        "serviceAccount": {"name": "scanner.of.docs"},
        "networkPolicy": {
            "enabled": True,
            "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "dns"}]}],
        },
    }
    assert deployment({**container_values, **placement})


def test_the_schema_knows_the_fields_of_kubernetes_own_types() -> None:
    path = f"kubernetes_validate/kubernetes-json-schema/v{VERSIONS[-1]}.0-local/_definitions.json"
    kubernetes = {
        name.rpartition(".")[2]: definition
        for name, definition in json.loads((VALIDATE / path).read_text())["$defs"].items()
        if name.startswith(("io.k8s.api.core.v1.", "io.k8s.api.networking.v1.", META))
    }
    definitions = json.loads((CHART / "values.schema.json").read_text())["definitions"]
    for name, definition in definitions.items():
        if name[0].isupper():
            fields = set(kubernetes[name]["properties"])
            # Claims of devices are made by a pod, and these pods make none.
            assert set(definition["properties"]) == fields - {"claims"}, name
            required = set(kubernetes[name].get("required", []))
            assert required <= set(definition.get("required", [])), name
            assert definition["additionalProperties"] is False, name


def test_the_chart_may_be_a_part_of_another_one(tmp_path: Path) -> None:
    chart = {"apiVersion": "v2", "name": "parent", "version": "1.0.0"}
    (tmp_path / "Chart.yaml").write_text(yaml.safe_dump(chart))
    (tmp_path / "charts").mkdir()
    (tmp_path / "charts" / CHART.name).symlink_to(CHART)
    assert "kind: Deployment" in helm("template", "x", tmp_path, values={"global": {"a": 1}})


def test_all_namespaces_are_served_by_a_cluster_role() -> None:
    manifests = rights(None, release_namespace="scanners")
    assert kinds(manifests) == [
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "ServiceAccount",
    ]
    for manifest in manifests:
        for subject in manifest.get("subjects", []):
            assert subject["namespace"] == "scanners"
    assert "--namespace" not in container()["args"]


def test_watched_namespaces_get_roles_and_no_cluster_role() -> None:
    values = {
        "watchNamespaces": ["docs", "billing"],
        "crds": {"enabled": False},
        "rbac": {"aggregate": False},
        "admissionPolicies": {"enabled": False},
    }
    manifests = template(values, namespace="scanners")
    assert kinds(manifests) == [
        "Deployment",
        "Pod",
        "PodDisruptionBudget",
        *["Role"] * 3,
        *["RoleBinding"] * 3,
        "ServiceAccount",
    ]
    roles = [each for each in manifests if each["kind"] == "Role"]
    namespaces = {each["metadata"]["namespace"] for each in roles}
    assert namespaces == {"docs", "billing", "scanners"}
    args = container(values)["args"]
    assert args[:5] == ["operator", "--namespace", "docs", "--namespace", "billing"]


@pytest.mark.parametrize("watched", [[], ["docs", "billing"]])
def test_policies_hold_where_the_operator_serves_and_deny(watched: list[str]) -> None:
    manifests = template({"watchNamespaces": watched}, "--show-only=templates/admission.yaml")
    bindings = [each["spec"] for each in manifests if each["kind"].endswith("PolicyBinding")]
    names = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": watched}
    selected = {"namespaceSelector": {"matchExpressions": [names]}}
    for each in bindings:
        assert each["validationActions"] == ["Deny"]
        assert each.get("matchResources") == (selected if watched else None)
    policies = [each for each in manifests if each["kind"] == "ValidatingAdmissionPolicy"]
    assert {each["spec"]["failurePolicy"] for each in policies} == {"Fail"}
    policy_names = {each["metadata"]["name"] for each in policies}
    assert {each["policyName"] for each in bindings} == policy_names


def test_the_same_rules_hold_in_a_role_and_in_the_cluster_role() -> None:
    (everywhere,) = (each for each in rights(None) if each["kind"] == "ClusterRole")
    (docs,) = (
        each
        for each in rights("docs", release_namespace="scanners")
        if each["kind"] == "Role" and each["metadata"]["namespace"] == "docs"
    )
    assert docs["rules"] == everywhere["rules"]


def test_the_operator_is_told_where_its_lease_is() -> None:
    args = container()["args"]
    lease = ["--lease-name", "scannerjob-operator", "--lease-namespace", "default"]
    assert args == ["operator", "--health-port", "8080", *lease]
    roles = [each for each in rights(None) if each["kind"] == "Role"]
    assert roles[0]["rules"][0]["resourceNames"] == ["scannerjob-operator"]


def test_without_leader_election_there_is_no_lease_and_one_operator_ends_before_the_next() -> None:
    values: dict[str, Any] = {"leaderElection": {"enabled": False}, "replicas": 1}
    assert container(values)["args"] == [
        "operator",
        "--health-port",
        "8080",
        "--no-leader-election",
    ]
    assert deployment(values)["strategy"] == {"type": "Recreate"}
    assert deployment({**values, "replicas": 2})["strategy"] == {"type": "RollingUpdate"}
    assert deployment({"replicas": 1})["strategy"] == {"type": "RollingUpdate"}
    assert "Role" not in kinds(template(values))


def test_probes_ask_the_port_that_the_operator_is_given() -> None:
    found = container()
    port = found["ports"][0]["containerPort"]
    assert found["args"][found["args"].index("--health-port") + 1] == str(port)
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}


def test_the_operator_cannot_write_to_its_image_and_has_time_to_stop() -> None:
    assert container()["securityContext"]["readOnlyRootFilesystem"] is True
    assert deployment()["template"]["spec"]["terminationGracePeriodSeconds"] == 60


def test_keys_are_written_to_memory_alone() -> None:
    (mount,) = container()["volumeMounts"]
    (volume,) = deployment()["template"]["spec"]["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/tmp"}
    assert volume["emptyDir"]["medium"] == "Memory"


def test_the_image_is_the_charts_version_unless_a_tag_or_a_digest_is_given() -> None:
    digest = "sha256:" + "a" * 64
    assert container()["image"] == f"scannerjob-operator:{chart()['appVersion']}"
    assert container({"image": {"tag": "next"}})["image"] == "scannerjob-operator:next"
    both = {"image": {"tag": "next", "digest": digest}}
    assert container(both)["image"] == f"scannerjob-operator@{digest}"


def test_a_label_of_ones_own_cannot_hide_the_pods_from_the_deployment() -> None:
    spec = deployment({"podLabels": {"app.kubernetes.io/name": "mine", "team": "docs"}})
    labels = spec["template"]["metadata"]["labels"]
    assert labels.items() >= {**spec["selector"]["matchLabels"], "team": "docs"}.items()


def chart() -> dict[str, Any]:
    return dict(yaml.safe_load((CHART / "Chart.yaml").read_text()))


def test_the_chart_is_of_the_programs_version() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert chart()["appVersion"] == project["version"]


@pytest.mark.parametrize(
    "values",
    [None, {"watchNamespaces": ["docs", "billing"]}, {"leaderElection": {"enabled": False}}],
    ids=["defaults", "some-namespaces", "no-lease"],
)
def test_the_program_takes_the_deployments_arguments(values: Values | None) -> None:
    arguments = [*container(values)["args"], "--help"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert CliRunner().invoke(app, [*arguments, "--no-such-option"]).exit_code == 2


@pytest.mark.parametrize("values", [None, EVERYTHING], ids=["defaults", "everything"])
def test_the_program_takes_what_the_notes_say(values: Values | None) -> None:
    printed = helm("install", RELEASE, CHART, "--dry-run=client", values=values)
    notes = printed.partition("NOTES:")[2]
    lines = [line.split() for line in notes.splitlines() if line.startswith("    ")]
    typed = [words[2:] for words in lines if words[:2] == ["kubectl", "scannerjob"]]
    assert [words[0] for words in typed] == ["init", "preview", "explain"]
    for words in typed:
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0
        assert CliRunner().invoke(app, [*words, "--no-such-option"]).exit_code == 2
    # What is applied is the file that was written.
    written = typed[0][typed[0].index("--output") + 1]
    assert f"kubectl apply --filename {written}" in notes
    assert (typed[0][1:3] == ["--namespace", "docs"]) is (values is EVERYTHING)
