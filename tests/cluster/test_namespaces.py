"""One operator for all namespaces, or for those it is told of, under the chart's own rights."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.jobs import JobWorkload
from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE, rights
from tests.support.processes import Process
from tests.support.servers import PostgresServer

CAP = 2
Start = Callable[..., Process]


@pytest.fixture
def works(cluster: ControlPlane, postgres_server: PostgresServer) -> Iterator[list[JobWorkload]]:
    """Three namespaces with rows of their own."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                JobWorkload(cluster, cluster.create_namespace(), postgres_server.create_database())
            )
            for _ in range(3)
        ]


@pytest.fixture
def start(cluster: ControlPlane, namespace: str, tmp_path: Path) -> Iterator[Start]:
    """Starts the operator of this namespace's service account, with these options."""
    made: list[Process] = []

    def start(*options: str) -> Process:
        kubeconfig = cluster.kubeconfig_for(RELEASE, namespace=namespace)
        env = {**os.environ, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": "operator"}
        command = [sys.executable, "-m", "scannerjob", "operator", *options]
        made.append(Process(command, log=tmp_path / "operator.log", env=env))
        return made[-1].start()

    yield start
    for process in made:
        process.kill()


def test_an_operator_for_all_namespaces_serves_each(
    cluster: ControlPlane, namespace: str, works: list[JobWorkload], start: Start
) -> None:
    cluster.apply(*rights(None, release_namespace=namespace))
    for work in works[:2]:
        work.insert(4)
        work.apply(concurrency=CAP)
    start()
    works[2].insert(4)
    works[2].apply(concurrency=CAP)
    for work in works:
        work.assert_all_done(4, CAP)


def test_an_operator_for_two_namespaces_touches_no_third(
    cluster: ControlPlane, namespace: str, works: list[JobWorkload], start: Start
) -> None:
    *served, other = works
    for work in served:
        cluster.apply(*rights(work.namespace, release_namespace=namespace))
    for work in works:
        work.insert(4)
        work.apply(concurrency=CAP)
    process = start(*(f"--namespace={work.namespace}" for work in served))
    for work in served:
        work.assert_all_done(4, CAP)
    for work in served:
        work.insert(1)
        work.wait_done()
    assert "conditions" not in other.status()
    assert other.waiting == 4
    assert not other.jobs.jobs
    assert other.namespace not in process.log()
