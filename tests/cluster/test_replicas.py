"""Several replicas and one Lease: who leads, who takes over, and that no promise is broken."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scannerjob import apiserver
from scannerjob.controller.elector import CALL_WITHIN, LEASE_SECONDS, Elector
from scannerjob.controller.lease import LeaseStore
from scannerjob.ports import ConflictError, Ref
from tests.cluster.health import answer
from tests.cluster.operators import Operators, wait_ready
from tests.cluster.workload import Workload, condition, scannerjob
from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually

CAP = 3
# What another replica may take to lead after one is killed: 6 s, and what a busy machine adds.
TAKEOVER = 15
LEADS = "leading, by the Lease"
ENDS = "leading no more"
STANDS_BY = "standing by"


@pytest.fixture
def workload(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Workload]:
    with Workload(tmp_path, postgres_url, redis_url) as workload:
        yield workload


def wait_done(workload: Workload) -> None:
    eventually(lambda: workload.waiting == 0, timeout=90, message="all rows are done")


def wait_leading(operator: Process, times: int = 1, timeout: float = TAKEOVER) -> None:
    def leads() -> bool:
        assert operator.running, operator.log()
        return operator.log().count(LEADS) >= times

    eventually(leads, timeout, message=f"it leads for the {times}. time")


def two(operators: Operators) -> tuple[Process, Process]:
    """Two replicas, of which the first leads."""
    first = operators.start()
    wait_leading(first, timeout=60)
    second = operators.start()
    wait_ready(second)
    eventually(lambda: "standing by" in second.log())
    return first, second


def lease(cluster: ControlPlane, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("-n", namespace, "lease", "scannerjob-operator")
    return found


def test_a_killed_leader_is_succeeded(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(40)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    first, second = two(operators)
    eventually(lambda: workload.executions > 5)
    first.kill()
    wait_leading(second)
    wait_done(workload)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


def test_a_leader_that_is_stopped_hands_over_and_ends_well(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(40)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    first, second = two(operators)
    eventually(lambda: workload.executions > 5)
    first.send(signal.SIGTERM)
    wait_leading(second)
    assert first.wait(60) == 0
    assert ENDS in first.log()
    assert "Traceback" not in first.log()
    assert "cancel" not in first.log()
    wait_done(workload)
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


def test_a_cycle_that_hangs_does_not_keep_the_lease_from_the_other(
    cluster: ControlPlane,
    namespace: str,
    workload: Workload,
    postgres_server: PostgresServer,
    operators: Operators,
) -> None:
    job = scannerjob(namespace, concurrency=CAP, queryTimeout="30s")
    cluster.apply(*workload.secrets(namespace), job)
    first, second = two(operators)
    eventually(lambda: condition(cluster, namespace, "pdf-pages", "Ready")["status"] == "True")
    postgres_server.pause()
    # Its query, once a second at least, hangs from now on.
    time.sleep(2)
    first.send(signal.SIGTERM)
    wait_leading(second)
    assert first.running
    postgres_server.resume()
    assert first.wait(60) == 0
    workload.insert(3)
    wait_done(workload)
    workload.assert_each_row_ran_once()


def test_a_lease_that_was_given_back_is_nobodys(
    cluster: ControlPlane, namespace: str, operators: Operators
) -> None:
    first = operators.start()
    wait_leading(first, timeout=60)
    spec = lease(cluster, namespace)["spec"]
    assert spec["holderIdentity"]
    assert spec["leaseDurationSeconds"] == LEASE_SECONDS
    first.send(signal.SIGTERM)
    assert first.wait(60) == 0
    assert not lease(cluster, namespace)["spec"].get("holderIdentity")


def test_a_leader_that_wakes_from_a_long_sleep_stands_by_and_breaks_no_promise(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(60)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    first, second = two(operators)
    eventually(lambda: workload.executions > 5)

    def times(words: str) -> int:
        return first.log().count(words)

    before = {words: times(words) for words in (LEADS, ENDS, STANDS_BY)}
    first.pause()
    wait_leading(second)
    executed = workload.executions
    eventually(lambda: workload.executions > executed, message="the other one works")
    first.resume()
    eventually(lambda: times(ENDS) > before[ENDS], message="it notices")
    eventually(lambda: times(STANDS_BY) > before[STANDS_BY])
    wait_done(workload)
    assert times(LEADS) == before[LEADS]
    workload.assert_each_row_ran_once()
    workload.assert_cap_was_kept(CAP)


def test_both_are_ready_and_alive_and_one_leads(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    ports = [free_port(), free_port()]
    for port in ports:
        operators.start("--health-port", str(port))
    eventually(
        lambda: all(answer(port, "/readyz")[0] == 200 for port in ports),
        timeout=60,
        ignoring=OSError,
    )

    def one_leads() -> bool:
        leading = [answer(port, "/readyz")[1]["leading"] for port in ports]
        assert leading.count(True) <= 1
        return any(leading)

    eventually(one_leads)
    for port in ports:
        status, told = answer(port, "/healthz")
        assert status == 200
        assert set(told) == {"queue", "watch", "resync", "lease"}


def test_an_operator_without_an_api_server_is_alive_and_ready_when_it_comes(
    cluster: ControlPlane, operators: Operators
) -> None:
    cluster.kill_apiserver()
    port = free_port()
    operators.start("--health-port", str(port))
    eventually(lambda: answer(port, "/healthz")[0] == 200, timeout=60, ignoring=OSError)
    assert answer(port, "/readyz")[0] == 503
    cluster.start_apiserver()
    eventually(lambda: answer(port, "/readyz")[0] == 200, timeout=60)
    eventually(lambda: answer(port, "/readyz")[1]["leading"], timeout=60)


def test_a_leader_whose_api_server_hangs_leads_again_when_it_answers(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace, concurrency=CAP))
    port = free_port()
    only = operators.start("--health-port", str(port))
    wait_leading(only, timeout=60)
    cluster.pause_apiserver()
    eventually(lambda: ENDS in only.log())
    assert answer(port, "/healthz")[0] == 200
    cluster.resume_apiserver()
    wait_leading(only, times=2, timeout=60)
    workload.insert(3)
    wait_done(workload)
    workload.assert_each_row_ran_once()


def test_without_the_right_to_leases_it_says_what_to_do_and_launches_nothing(
    cluster: ControlPlane, namespace: str, workload: Workload, operators: Operators
) -> None:
    workload.insert(1)
    cluster.apply(*workload.secrets(namespace), scannerjob(namespace))
    elsewhere = cluster.create_namespace()
    process = operators.start("--lease-namespace", elsewhere)
    eventually(lambda: "use --no-leader-election" in process.log(), timeout=60)
    assert process.log().count("use --no-leader-election") == 1
    assert condition(cluster, namespace, "pdf-pages", "Ready")["reason"] is None
    assert workload.executions == 0


def test_a_lease_has_one_holder_at_a_time(
    cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch, operators: Operators
) -> None:
    """The store of the Lease, against the API server itself."""
    monkeypatch.setenv("KUBECONFIG", str(operators.kubeconfig))

    async def main() -> None:
        api = await apiserver.connect()
        store = LeaseStore(api, Ref(namespace, RELEASE), CALL_WITHIN, LEASE_SECONDS)
        assert await store.read() is None
        first = await store.write(None, "a")
        with pytest.raises(ConflictError):
            await store.write(None, "b")
        renewed = await store.write(first, "a")
        with pytest.raises(ConflictError):
            await store.write(first, "b")
        assert await store.read() == renewed
        assert (renewed.holder, renewed.transitions) == ("a", 1)
        assert renewed.acquired == first.acquired
        cluster.kubectl("-n", namespace, "label", "lease", RELEASE, "team=docs")
        with pytest.raises(ConflictError):
            await store.write(renewed, "a")
        renewed = await store.write(await store.read(), "a")
        labels = cluster.get("-n", namespace, "lease", RELEASE)["metadata"]["labels"]
        assert labels == {"team": "docs"}
        free = await store.write(renewed, "")
        assert free.holder == ""
        taken = await store.write(free, "b")
        assert (taken.holder, taken.transitions) == ("b", 2)
        await api.close()  # type: ignore[no-untyped-call]

    asyncio.run(main())


def test_electors_take_turns(
    namespace: str, monkeypatch: pytest.MonkeyPatch, operators: Operators
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(operators.kubeconfig))
    said: list[str] = []

    def elector(store: LeaseStore, name: str) -> Elector:
        return Elector(store, lambda: said.append(f"+{name}"), lambda: said.append(f"-{name}"))

    async def says(count: int) -> None:
        async with asyncio.timeout(30):
            while len(said) < count:  # noqa: ASYNC110 - it is said by a callback
                await asyncio.sleep(0.05)

    async def main() -> None:
        api = await apiserver.connect()
        store = LeaseStore(api, Ref(namespace, RELEASE), CALL_WITHIN, LEASE_SECONDS)
        first, second = elector(store, "a"), elector(store, "b")
        one = asyncio.create_task(first.run())
        await says(1)
        other = asyncio.create_task(second.run())
        one.cancel()
        await first.release()
        await says(3)
        other.cancel()
        await second.release()
        await api.close()  # type: ignore[no-untyped-call]

    asyncio.run(main())
    assert said == ["+a", "-a", "+b", "-b"]
