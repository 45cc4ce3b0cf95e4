"""What the benchmarks on a control plane share: an operator under its own rights, and witnesses."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client, config

from tests.support.controlplane import ControlPlane
from tests.support.processes import Process

CRDS = Path(__file__).parents[1] / "crds"
# The controller manager's own client would otherwise be what is measured: 20 calls a second.
UNTHROTTLED = ["--kube-api-qps=500", "--kube-api-burst=1000"]
_GROUP, _VERSION, _PLURAL = "scannerjob.dev", "v1alpha1", "scannerjobs"


@contextmanager
def cluster() -> Iterator[ControlPlane]:
    """A control plane that knows ScannerJobs."""
    with ControlPlane(controller_manager_options=UNTHROTTLED) as plane:
        plane.kubectl("apply", "-f", CRDS)
        crd = "crd/scannerjobs.scannerjob.dev"
        plane.kubectl("wait", "--for=condition=Established", crd, "--timeout=30s")
        yield plane


def admin(plane: ControlPlane) -> client.ApiClient:
    """A client that may do everything; close it."""
    configuration = client.Configuration()
    config.load_kube_config(  # type: ignore[no-untyped-call]
        str(plane.kubeconfig()), client_configuration=configuration
    )
    configuration.connection_pool_maxsize = 32
    return client.ApiClient(configuration)


def operator(plane: ControlPlane, namespace: str, kubeconfig: Path) -> Process:
    """An operator for one namespace, as a process of its own; not started yet."""
    env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
    command = [sys.executable, "-m", "scannerjob", "operator", "--namespace", namespace]
    return Process(command, log=plane.folder / "operator.log", env=env)


def create_scannerjobs(
    api: client.ApiClient, namespace: str, specs: Mapping[str, Mapping[str, Any]]
) -> None:
    """Create these ScannerJobs, many at a time."""
    objects = client.CustomObjectsApi(api)

    def create(name: str) -> None:
        document = {
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "kind": "ScannerJob",
            "metadata": {"name": name, "namespace": namespace},
            "spec": dict(specs[name]),
        }
        objects.create_namespaced_custom_object(_GROUP, _VERSION, namespace, _PLURAL, document)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(create, specs))


def secret(namespace: str, name: str, url: str) -> dict[str, Any]:
    """A Secret with a URL."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"url": url}}


def database(name: str) -> dict[str, Any]:
    """A spec's reference to the URL in this Secret."""
    return {"urlSecretRef": {"name": name, "key": "url"}}


def job(*command: str) -> dict[str, Any]:
    """The `job` part of a spec: one container."""
    container = {"name": "main", "image": "none", "command": list(command)}
    return {"template": {"spec": {"template": {"spec": {"containers": [container]}}}}}


def middle(samples: Iterable[float]) -> float:
    """The median."""
    ordered = sorted(samples)
    return ordered[len(ordered) // 2]
