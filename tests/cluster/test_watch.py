"""What the operator does where its watch fails, lies or says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.health import answer
from tests.cluster.operators import IMPATIENT, Operators, wait_ready
from tests.cluster.workload import Workload, condition, scannerjob
from tests.support.apiproxy import ApiProxy
from tests.support.controlplane import ControlPlane
from tests.support.faults import Answer, EndWatch, Stall
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import eventually

SCANNERJOBS = "/scannerjobs$"


@pytest.fixture
def workload(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workload]:
    with Workload(tmp_path, postgres_url, redis_url) as workload:
        yield workload


@pytest.fixture
def proxy(cluster: ControlPlane, tmp_path: Path) -> Iterator[ApiProxy]:
    with ApiProxy(cluster.kubeconfig(), tmp_path) as proxy:
        yield proxy


def start(
    operators: Operators, proxy: ApiProxy, *options: str, program: str = "scannerjob"
) -> Process:
    kubeconfig = proxy.kubeconfig(operators.kubeconfig)
    process = operators.start(*options, kubeconfig=kubeconfig, program=program)
    wait_ready(process)
    return process


def wait_done(workload: Workload) -> None:
    eventually(lambda: workload.waiting == 0, timeout=90, message="all rows are done")


def wait_scanning(cluster: ControlPlane, namespace: str, name: str, timeout: float = 60) -> None:
    eventually(
        lambda: condition(cluster, namespace, name, "Ready")["reason"] == "Scanning",
        timeout,
        message=f"{name} is scanned",
    )


def watches(proxy: ApiProxy) -> int:
    return sum(each.watch for each in proxy.requests("GET", SCANNERJOBS))


def test_an_idle_scannerjob_is_not_read_again(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    proxy: ApiProxy,
    operators: Operators,
) -> None:
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    start(operators, proxy)
    wait_scanning(cluster, namespace, "pdf-pages")
    renewals = len(proxy.requests("PUT", "/leases/"))
    reads = len(proxy.requests("GET", "/scannerjobs/pdf-pages$"))
    eventually(lambda: len(proxy.requests("PUT", "/leases/")) >= renewals + 5)
    assert len(proxy.requests("GET", "/scannerjobs/pdf-pages$")) == reads


@pytest.mark.parametrize("code", [410, 429, 500, None])
def test_an_error_amid_the_events_does_not_end_the_operator(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    proxy: ApiProxy,
    operators: Operators,
    code: int | None,
) -> None:
    workload.insert(20)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    process = start(operators, proxy)
    wait_scanning(cluster, namespace, "pdf-pages")
    eventually(lambda: watches(proxy) == 1)
    proxy.add(EndWatch(code), path=SCANNERJOBS, times=1)
    eventually(lambda: watches(proxy) >= 2, timeout=60, message="it watches again")
    cluster.apply(scannerjob(namespace, "later", suspend=True))
    eventually(
        lambda: condition(cluster, namespace, "later", "Ready")["reason"] == "Suspended", timeout=60
    )
    assert process.running, process.log()
    wait_done(workload)
    workload.assert_each_row_ran_once()


@pytest.mark.parametrize("status", [403, 429, 503])
def test_a_list_or_watch_that_is_refused_is_tried_again(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    proxy: ApiProxy,
    operators: Operators,
    status: int,
) -> None:
    workload.insert(3)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    refused = proxy.add(Answer(status), method="GET", path=SCANNERJOBS, times=6)
    process = start(operators, proxy)
    wait_done(workload)
    assert len(refused.hits) == 6
    assert process.running
    workload.assert_each_row_ran_once()


def test_a_watch_that_says_nothing_is_told_and_what_it_keeps_back_is_scanned(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    proxy: ApiProxy,
    operators: Operators,
) -> None:
    port = free_port()
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    process = start(operators, proxy, "--health-port", str(port), program=IMPATIENT)
    wait_scanning(cluster, namespace, "pdf-pages")
    proxy.add(Stall(), path=SCANNERJOBS)
    cluster.apply(scannerjob(namespace, "later"))
    wait_scanning(cluster, namespace, "later")
    assert f"1 ScannerJobs as they are: {namespace}/later" in process.log()
    eventually(lambda: answer(port, "/healthz")[0] == 500, timeout=60, message="it fails")
    told = answer(port, "/healthz")[1]
    assert [name for name, part in told.items() if not part["ok"]] == ["watch"]
    # kopf has opened it again by itself: it missed the bookmarks.
    assert watches(proxy) > 1


def test_a_person_who_asks_is_heard_though_the_watch_was_cut(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    proxy: ApiProxy,
    operators: Operators,
) -> None:
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    start(operators, proxy)
    wait_scanning(cluster, namespace, "pdf-pages")
    proxy.down()
    cluster.apply(scannerjob(namespace, suspend=True))
    proxy.up()
    eventually(
        lambda: condition(cluster, namespace, "pdf-pages", "Ready")["reason"] == "Suspended",
        timeout=60,
    )
