from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.job_target import Site
from tests.cluster.jobs import JobWorkload
from tests.cluster.operators import Operators, operator_account
from tests.support.apiproxy import ApiProxy
from tests.support.controlplane import ControlPlane

Open = Callable[..., Site]
CRDS = Path(__file__).parents[2] / "crds"


def install_crd(plane: ControlPlane) -> None:
    plane.kubectl("apply", "-f", CRDS)
    plane.wait_established("scannerjobs.scannerjob.dev")


@pytest.fixture(scope="session")
def _scannerjobs(_control_plane: ControlPlane) -> ControlPlane:
    install_crd(_control_plane.ensure_answering())
    return _control_plane


@pytest.fixture
def cluster(control_plane: ControlPlane, _scannerjobs: ControlPlane) -> ControlPlane:
    """The session's control plane, which knows ScannerJobs."""
    return control_plane


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    """A namespace of this test's own."""
    return cluster.create_namespace()


@pytest.fixture
def operators(cluster: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Operators]:
    """Makes operators for this namespace, each a process with few rights."""
    operators = Operators(cluster, namespace, tmp_path)
    yield operators
    operators.close()


@pytest.fixture
def opened(
    cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Opens targets in this namespace, under the rights that an operator has."""
    monkeypatch.setenv("KUBECONFIG", str(operator_account(cluster, namespace)))
    made: list[Site] = []

    def open_one(a_template: Any = None, **fields: Any) -> Site:
        made.append(Site(cluster, namespace, a_template, **fields))
        return made[-1].__enter__()

    yield open_one
    for site in made:
        site.__exit__()


@pytest.fixture
def work(cluster: ControlPlane, namespace: str, postgres_url: str) -> Iterator[JobWorkload]:
    """Rows, what does them, and its witnesses."""
    with JobWorkload(cluster, namespace, postgres_url) as work:
        yield work


@pytest.fixture
def proxy(cluster: ControlPlane, tmp_path: Path) -> Iterator[ApiProxy]:
    """Stands between the API server and those operators that are made by `proxied`."""
    with ApiProxy(cluster.kubeconfig(), tmp_path) as proxy:
        yield proxy


@pytest.fixture
def proxied(operators: Operators, proxy: ApiProxy) -> Operators:
    """Makes operators that reach the API server by the proxy; all others go direct."""
    operators.kubeconfig = proxy.kubeconfig(operators.kubeconfig)
    return operators
