import pytest

from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.waiting import eventually

CONFIG_MAPS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get"]}


def job(namespace: str) -> dict[str, object]:
    container = {"name": "main", "image": "none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "work", "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": template},
    }


def test_rights_are_enforced(control_plane: ControlPlane) -> None:
    namespace = control_plane.create_namespace()
    allowed = control_plane.service_account("allowed", [CONFIG_MAPS], namespace=namespace)
    refused = control_plane.service_account("refused", namespace=namespace)

    created = control_plane.kubectl("create", "configmap", "first", kubeconfig=allowed)
    assert created == "configmap/first created\n"
    with pytest.raises(KubectlError, match="forbidden"):
        control_plane.kubectl("create", "configmap", "second", kubeconfig=refused)
    with pytest.raises(KubectlError, match="forbidden"):
        control_plane.kubectl("-n", "default", "create", "configmap", "x", kubeconfig=allowed)


def test_rights_in_the_whole_cluster(control_plane: ControlPlane) -> None:
    namespace = control_plane.create_namespace()
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    reader = control_plane.service_account("reader", namespace=namespace, cluster_rules=rules)
    listed = control_plane.kubectl("get", "configmaps", "-A", "-o", "name", kubeconfig=reader)
    assert "configmap/kube-root-ca.crt" in listed


def test_the_controller_manager_makes_pods_for_jobs(control_plane: ControlPlane) -> None:
    namespace = control_plane.create_namespace()
    control_plane.apply(job(namespace))
    pods = eventually(
        lambda: control_plane.get("pods", "-n", namespace, "-l", "job-name=work")["items"]
    )
    assert [pod["metadata"]["ownerReferences"][0]["kind"] for pod in pods] == ["Job"]


def test_objects_survive_the_api_servers_death(control_plane: ControlPlane) -> None:
    namespace = control_plane.create_namespace()
    control_plane.kubectl("-n", namespace, "create", "configmap", "kept")
    control_plane.kill_apiserver()
    with pytest.raises(KubectlError, match="refused"):
        control_plane.kubectl("get", "namespaces")
    control_plane.start_apiserver()
    assert control_plane.get("configmap", "kept", "-n", namespace)["metadata"]["name"] == "kept"


def test_a_paused_api_server_never_answers(control_plane: ControlPlane) -> None:
    control_plane.pause_apiserver()
    with pytest.raises(KubectlError):
        control_plane.kubectl("get", "namespaces", "--request-timeout=1s")
    control_plane.resume_apiserver()
    assert "default" in control_plane.kubectl("get", "namespaces")
