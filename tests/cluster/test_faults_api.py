"""Calls to the API server that fail, get lost or come late, while rows are done by Jobs.

The operator's calls go by a proxy; the kubelet and the witnesses ask the API server itself.
"""

from __future__ import annotations

import math
import random
import time
from pathlib import Path

import pytest

from scannerjob.apiserver import TIMEOUT
from tests.cluster.health import answer
from tests.cluster.jobs import JobWorkload, settled, template
from tests.cluster.operators import Operators, wait_ready
from tests.cluster.tokens import BoundToken, Kubeconfig, Pod
from tests.support.apiproxy import ApiProxy
from tests.support.faults import (
    Answer,
    Delay,
    EndWatch,
    Fault,
    LoseReply,
    LoseRequest,
    Request,
    Rule,
)
from tests.support.pods import Fate
from tests.support.ports import free_port
from tests.support.waiting import eventually

# What was away is come back to by and by, and a busy machine takes its time.
pytestmark = pytest.mark.timeout(300)

CAP = 3
OURS = r"/(scannerjobs|jobs)\b"
JOBS = "/jobs(/|$)"
STATUS = "/scannerjobs/[^/]+/status$"


def creates(request: Request) -> bool:
    """Whether it is to make something, and not only to try it out."""
    return request.method == "POST" and "dryRun" not in request.query


def wait_hits(rule: Rule, count: int) -> None:
    eventually(lambda: len(rule.hits) >= count, timeout=90, message=f"{count} calls met {rule}")


@pytest.mark.parametrize("refusal", [Answer(429, retry_after=1), Answer(500)], ids=["429", "500"])
def test_an_api_server_that_fails_for_a_while_is_waited_for(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy, refusal: Answer
) -> None:
    work.insert(12)
    work.apply(concurrency=CAP)
    process = proxied.start()
    eventually(lambda: len(work.kubelet.started()) >= 3)
    calls = proxy.add(refusal, path=OURS, when=lambda request: not request.watch, times=4)
    wait_hits(calls, 4)
    watches = proxy.add(refusal, path=OURS, when=lambda request: request.watch, times=6)
    proxy.add(EndWatch(), times=2)
    wait_hits(watches, 6)
    work.assert_all_done(12, CAP)
    assert process.running, process.log()


@pytest.mark.parametrize(
    "fault",
    [LoseReply(), LoseRequest(), Delay(before=TIMEOUT + 1)],
    ids=["reply-lost", "request-lost", "comes-late"],
)
def test_a_create_in_doubt_makes_one_job(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy, fault: Fault
) -> None:
    # A Job that is removed once it has ended would let a late create make it again.
    work.insert(8)
    work.apply(concurrency=CAP, job={"template": template(), "successfulJobsHistoryLimit": 0})
    rule = proxy.add(fault, path="/jobs$", when=creates, times=2)
    proxied.start()
    work.assert_all_done(8, CAP)
    assert len(rule.hits) == 2
    if not isinstance(fault, LoseRequest):
        assert all(create.forwarded for create in rule.hits)


@pytest.mark.parametrize(
    "fault",
    [LoseReply(), LoseRequest(), Delay(before=TIMEOUT + 0.3), Delay(before=TIMEOUT + 2)],
    ids=["reply-lost", "request-lost", "comes-late", "comes-later"],
)
def test_a_write_of_the_status_in_doubt_launches_nothing_twice(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy, fault: Fault
) -> None:
    work.insert(8)
    work.apply(concurrency=CAP)
    process = proxied.start()
    eventually(lambda: len(work.kubelet.started()) >= 1)
    rule = proxy.add(fault, method="PUT", path=STATUS, times=1)
    work.assert_all_done(8, CAP)
    (write,) = rule.hits
    assert bool(write.forwarded) is not isinstance(fault, LoseRequest)
    assert process.running, process.log()


def test_jobs_that_cannot_be_read_free_no_slot(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(40)
    work.apply(concurrency=10)
    process = proxied.start("--no-leader-election")
    eventually(lambda: len(work.kubelet.running()) == 10)
    rule = proxy.add(Answer(500), method="GET", path=JOBS)
    proxy.add(EndWatch(), path=JOBS, times=1)
    work.kubelet.fate = lambda pod: Fate(0.1)
    for pod in work.kubelet.running():
        work.kubelet.end(pod.name)
    eventually(lambda: not work.jobs.unfinished, message="all that was launched has ended")
    wait_hits(rule, 4)
    process.kill()  # whoever begins anew knows of Jobs only what it reads
    process.start()
    wait_ready(process, starts=2)
    # The watch is tried again after 1, 1, 2, 3 and 5 s, and so is the list.
    wait_hits(rule, len(rule.hits) + 8)
    assert len(work.jobs.jobs) == 10
    assert work.status()["active"] == 10
    proxy.remove(rule)
    work.assert_all_done(40, 10)


@pytest.mark.timeout(300)
def test_faults_in_any_order_break_no_promise(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    chance = random.Random(1)
    work.kubelet.fate = lambda pod: Fate(chance.uniform(0.1, 0.6))
    work.insert(60)
    work.apply(concurrency=5)
    process = proxied.start("--no-leader-election")
    order = chance.sample(range(12), 12)
    for number, choice in enumerate(order):
        if number in (4, 8):
            process.kill()
            process.start()
        rule = some_fault(proxy, choice)
        wait_hits(rule, 1)
        proxy.remove()
    assert work.waiting, "all rows were done before the last fault"
    work.assert_all_done(60, 5)


def some_fault(proxy: ApiProxy, choice: int) -> Rule:
    """One of twelve, for the next one or two calls of its kind."""
    match choice:
        case 0:
            return proxy.add(LoseReply(), path="/jobs$", when=creates, times=2)
        case 1:
            return proxy.add(LoseRequest(), path="/jobs$", when=creates, times=2)
        case 2:
            return proxy.add(Answer(429, retry_after=1), path="/jobs$", when=creates, times=2)
        case 3:
            return proxy.add(Answer(500), path="/jobs$", when=creates, times=2)
        case 4:
            return proxy.add(LoseReply(seconds=0.5), method="PUT", path=STATUS, times=1)
        case 5:
            return proxy.add(LoseRequest(), method="PUT", path=STATUS, times=1)
        case 6:
            return proxy.add(Answer(503), method="PUT", path=STATUS, times=1)
        case 7:
            return proxy.add(Answer(409), method="PUT", path=STATUS, times=1)
        case 8:
            return proxy.add(Delay(before=0.5, after=0.5), path=OURS, times=2)
        case 9:
            return proxy.add(EndWatch(), path=OURS, times=2)
        case 10:
            return proxy.add(EndWatch(410), path=OURS, times=2)
        case _:
            return proxy.add(EndWatch(500), path=OURS, times=1)


def test_an_api_server_that_knows_nobody_for_a_while_is_waited_for(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    work.insert(8)
    work.apply(concurrency=CAP)
    process = proxied.start()
    eventually(lambda: len(work.kubelet.started()) >= 2)
    rule = proxy.add(Answer(401))
    proxy.add(EndWatch(), times=2)
    wait_hits(rule, 20)
    proxy.remove()
    work.assert_all_done(8, CAP)
    assert process.log().count("ready for ScannerJobs") == 1
    assert "Traceback" not in process.log()


def test_an_api_server_that_hangs_and_dies_breaks_no_promise(
    work: JobWorkload, operators: Operators
) -> None:
    work.insert(15)
    work.apply(concurrency=CAP)
    process = operators.start()
    eventually(lambda: len(work.kubelet.started()) >= 4)
    work.plane.pause_apiserver()
    eventually(lambda: "leading no more" in process.log())
    work.plane.kill_apiserver()
    work.plane.start_apiserver()
    work.assert_all_done(15, CAP)
    assert process.running, process.log()


def test_an_api_server_without_its_store_is_waited_for(
    work: JobWorkload, operators: Operators
) -> None:
    work.insert(15)
    work.apply(concurrency=CAP)
    process = operators.start()
    eventually(lambda: len(work.kubelet.started()) >= 4)
    work.plane.etcd.kill()
    eventually(lambda: "leading no more" in process.log())
    work.plane.etcd.start()
    work.plane.ensure_answering()
    work.assert_all_done(15, CAP)
    assert process.running, process.log()


def test_replicas_that_were_all_cut_off_agree_on_one_leader(
    work: JobWorkload, proxied: Operators, proxy: ApiProxy
) -> None:
    work.insert(12)
    work.apply(concurrency=CAP)
    ports = [free_port(), free_port()]
    both = [proxied.start("--health-port", str(port)) for port in ports]

    def leading() -> list[bool]:
        found = [answer(port, "/readyz")[1]["leading"] for port in ports]
        assert found.count(True) <= 1
        return found

    eventually(lambda: any(leading()), timeout=60, ignoring=OSError)
    for process in both:
        wait_ready(process)
    eventually(lambda: len(work.kubelet.started()) >= 2)
    proxy.down()
    eventually(lambda: not any(leading()))
    cut_off = time.monotonic()
    eventually(lambda: time.monotonic() - cut_off > 5, message="the Lease has lapsed")
    proxy.up()
    eventually(lambda: any(leading()), timeout=60)
    work.assert_all_done(12, CAP)
    assert leading().count(True) == 1
    assert all(process.running for process in both)
    settled(work, launched=12)


@pytest.mark.parametrize("place", [Kubeconfig, Pod])
def test_a_token_that_is_replaced_is_used_without_a_restart(
    work: JobWorkload,
    proxied: Operators,
    proxy: ApiProxy,
    tmp_path: Path,
    place: type[Kubeconfig | Pod],
) -> None:
    """The old one is revoked before the new one is there, which is the worse order."""
    work.insert(3)
    work.apply(concurrency=CAP)
    old = BoundToken(work.plane, work.namespace)
    credentials = place(proxied.kubeconfig, tmp_path)
    credentials.put(old.value)
    options = (f"--namespace={work.namespace}", f"--lease-namespace={work.namespace}")
    with credentials.operator(*options) as process:
        settled(work, succeeded=3)
        old.revoke()
        eventually(lambda: was_refused(proxy, "scannerjob"), timeout=60)
        proxy.add(EndWatch(), times=2)
        eventually(lambda: was_refused(proxy, "kopf"), timeout=60)
        work.insert(3)
        credentials.put(BoundToken(work.plane, work.namespace).value)
        work.assert_all_done(6, CAP)
        work.patch({"suspend": True})
        work.wait_reason("Suspended")
    assert process.log().count("ready for ScannerJobs") == 1
    assert "Traceback" not in process.log()


def was_refused(proxy: ApiProxy, client: str) -> bool:
    """Whether a client of this name was told that nobody knows it."""
    asked = [each for each in proxy.requests() if each.user_agent.startswith(client)]
    return any(each.status == 401 for each in asked)
