from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.controlplane import ControlPlane
from tests.support.kubelet import Kubelet
from tests.support.pods import (
    EVICTED,
    FAILED,
    OOM_KILLED,
    TERMINATED,
    VANISHED,
    Fate,
    Pod,
    expanded,
)
from tests.support.waiting import eventually


@pytest.fixture
def place(control_plane: ControlPlane) -> str:
    """A namespace of this test's own."""
    return control_plane.create_namespace()


@pytest.fixture
def kubelet(control_plane: ControlPlane, place: str) -> Iterator[Kubelet]:
    with Kubelet(control_plane.kubeconfig(), [place]) as kubelet:
        yield kubelet


def job(place: str, name: str = "work", **env: str) -> dict[str, Any]:
    variables = [{"name": key, "value": value} for key, value in env.items()]
    container = {"name": "main", "image": "none", "command": ["make", "$(PDF)"], "env": variables}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": place},
        "spec": {"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": template},
    }


def conditions(plane: ControlPlane, place: str, name: str = "work") -> set[str]:
    """The types of a Job's conditions that are true."""
    status = plane.get("-n", place, "job", name).get("status", {})
    return {each["type"] for each in status.get("conditions", ()) if each["status"] == "True"}


def wait_for(plane: ControlPlane, place: str, kind: str, name: str = "work") -> None:
    eventually(lambda: kind in conditions(plane, place, name), message=f"{name} is {kind}")


def wait_terminating(plane: ControlPlane, place: str) -> None:
    """Its Job waits for the pod to end: by podReplacementPolicy it has not failed before."""

    def counted() -> bool:
        status = plane.get("-n", place, "job", "work")["status"]
        return bool(status.get("terminating") == 1)

    eventually(counted, message="the Job counts a terminating pod")


def the_pod(plane: ControlPlane, place: str) -> Any:
    (pod,) = plane.get("-n", place, "pods")["items"]
    return pod


def delete_pod(plane: ControlPlane, pod: Pod) -> None:
    plane.kubectl("-n", pod.namespace, "delete", "pod", pod.name, "--wait=false")


def test_a_job_completes_and_its_work_is_done_once(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    done: list[list[str]] = []
    kubelet.work = lambda pod: done.append(pod.program.command)
    control_plane.apply(job(place, PDF="7"))
    wait_for(control_plane, place, "Complete")
    (pod,) = kubelet.started()
    assert done == [["make", "7"]]
    assert (pod.job, pod.env) == ("work", {"PDF": "7"})
    assert pod.started is not None
    assert pod.ended is not None
    assert pod.ended - pod.started >= 1
    assert the_pod(control_plane, place)["spec"]["nodeName"] == kubelet.node


def test_a_running_pod_is_ready_until_it_is_told_to_end(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=math.inf)
    control_plane.apply(job(place))
    kubelet.wait_running("work")
    status = control_plane.get("-n", place, "job", "work")["status"]
    eventually(lambda: control_plane.get("-n", place, "job", "work")["status"].get("ready") == 1)
    assert status["active"] == 1
    kubelet.end("work", FAILED)
    wait_for(control_plane, place, "Failed")


@pytest.mark.parametrize("end", [FAILED, OOM_KILLED, EVICTED], ids=lambda end: end.reason)
def test_a_failure_is_reported_as_a_kubelet_reports_it(
    control_plane: ControlPlane, kubelet: Kubelet, place: str, end: Any
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=0, end=end)
    kubelet.work = lambda pod: pytest.fail("the program failed before its work was done")
    control_plane.apply(job(place))
    wait_for(control_plane, place, "Failed")
    status = the_pod(control_plane, place)["status"]
    terminated = status["containerStatuses"][0]["state"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (end.exit_code, end.reason)
    assert status.get("reason") == ("Evicted" if end.evicted else None)
    true = {each["type"] for each in status["conditions"] if each["status"] == "True"}
    assert ("DisruptionTarget" in true) == end.evicted
    assert "PodScheduled" in true


def test_work_that_raises_is_a_failed_program(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    def work(pod: Pod) -> None:
        raise ValueError("no such file")

    kubelet.work = work
    control_plane.apply(job(place))
    wait_for(control_plane, place, "Failed")
    assert isinstance(kubelet.pod("work").error, ValueError)


def test_a_pod_that_never_starts_stays_pending_and_can_be_deleted(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(starts=False)
    control_plane.apply(job(place))
    eventually(kubelet.pods)
    assert the_pod(control_plane, place)["status"]["phase"] == "Pending"
    delete_pod(control_plane, kubelet.pod("work"))
    wait_for(control_plane, place, "Failed")
    assert kubelet.started() == []


def test_a_deleted_pod_goes_when_its_program_has_ended(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=math.inf, lingers=math.inf)
    control_plane.apply(job(place))
    pod = kubelet.wait_running("work")
    delete_pod(control_plane, pod)
    wait_terminating(control_plane, place)
    assert pod.running
    assert conditions(control_plane, place) == set()
    kubelet.end("work", TERMINATED)
    wait_for(control_plane, place, "Failed")
    eventually(lambda: control_plane.get("-n", place, "pods")["items"] == [])


def test_a_lost_node_confirms_no_deletion_and_its_program_goes_on(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    done: list[str] = []
    kubelet.fate = lambda pod: Fate(seconds=3, lost=True)
    kubelet.work = lambda pod: done.append(pod.name)
    control_plane.apply(job(place))
    pod = kubelet.wait_running("work")
    delete_pod(control_plane, pod)
    wait_terminating(control_plane, place)
    eventually(lambda: done == [pod.name])
    assert conditions(control_plane, place) == set()
    assert "deletionTimestamp" in the_pod(control_plane, place)["metadata"]
    kubelet.end("work", VANISHED)
    wait_for(control_plane, place, "Failed")


def test_a_frozen_kubelet_reports_what_happened_once_it_thaws(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    done: list[str] = []
    kubelet.fate = lambda pod: Fate(seconds=math.inf if pod.job == "work" else 0)
    kubelet.work = lambda pod: done.append(str(pod.job))
    control_plane.apply(job(place))
    kubelet.wait_running("work")
    kubelet.freeze()
    control_plane.apply(job(place, "later"))
    kubelet.end("work")
    eventually(lambda: done == ["work"])
    with kubelet.pod("work").lock:  # so that what it does after the work is over
        assert kubelet.pod("work").reported == "Running"
    assert control_plane.get("-n", place, "job", "work")["status"]["active"] == 1
    kubelet.thaw()
    wait_for(control_plane, place, "Complete")
    wait_for(control_plane, place, "Complete", "later")


def test_what_ran_when_the_kubelet_stopped_has_failed_when_it_starts_again(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=math.inf)
    control_plane.apply(job(place))
    pod = kubelet.wait_running("work")
    kubelet.stop()
    assert not pod.running
    assert conditions(control_plane, place) == set()
    kubelet.fate = lambda pod: Fate()
    kubelet.start()
    wait_for(control_plane, place, "Failed")
    control_plane.apply(job(place, "next"))
    wait_for(control_plane, place, "Complete", "next")


def test_it_works_on_when_the_api_server_is_back(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=math.inf)
    control_plane.apply(job(place))
    kubelet.wait_running("work")
    control_plane.kill_apiserver()
    kubelet.end("work")
    eventually(lambda: not kubelet.running())
    control_plane.start_apiserver()
    wait_for(control_plane, place, "Complete")


def test_pods_of_other_namespaces_are_left_alone(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    other = control_plane.create_namespace()
    control_plane.apply(job(other))
    eventually(lambda: control_plane.get("-n", other, "pods")["items"])
    control_plane.apply(job(place))
    wait_for(control_plane, place, "Complete")
    assert [pod.namespace for pod in kubelet.pods()] == [place]


def test_the_peak_of_running_programs_is_known(
    control_plane: ControlPlane, kubelet: Kubelet, place: str
) -> None:
    kubelet.fate = lambda pod: Fate(seconds=math.inf)
    control_plane.apply(*(job(place, f"work-{number}") for number in range(3)))
    for number in range(3):
        kubelet.wait_running(f"work-{number}")
    kubelet.end("work-0")
    wait_for(control_plane, place, "Complete", "work-0")
    control_plane.apply(job(place, "late"))
    kubelet.wait_running("late")
    assert (len(kubelet.started()), len(kubelet.running()), kubelet.peak()) == (4, 3, 3)


def test_its_node_is_ready_and_sends_heartbeats(
    control_plane: ControlPlane, kubelet: Kubelet
) -> None:
    def beat() -> bool:
        (ready,) = control_plane.get("node", kubelet.node)["status"]["conditions"]
        assert (ready["type"], ready["status"]) == ("Ready", "True")
        return ready["lastHeartbeatTime"] is not None

    eventually(beat, message="a heartbeat")


def test_variables_and_dollars_are_expanded_as_kubernetes_does() -> None:
    container = {
        "command": ["sh", "-c", "echo $(ID) $(NONE) $$(ID) $ID $$ $(ID"],
        "args": ["$(URL)", "$(PRICE)"],
        "env": [
            {"name": "EARLY", "value": "$(ID)"},
            {"name": "ID", "value": "7"},
            {"name": "URL", "value": "http://pdf/$(ID)?x=$$1"},
            {"name": "PRICE", "value": "$$(ID)"},
            {"name": "EMPTY"},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "db", "key": "url"}}},
        ],
    }
    program = expanded(container)
    assert program.command == [
        *("sh", "-c", "echo 7 $(NONE) $(ID) $ID $ $(ID"),
        *("http://pdf/7?x=$1", "$(ID)"),
    ]
    assert program.env == {
        "EARLY": "$(ID)",
        "ID": "7",
        "URL": "http://pdf/7?x=$1",
        "PRICE": "$(ID)",
        "EMPTY": "",
    }
