"""How a Job's work ended, or why it does not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.job.outcomes import alive, causes, observation
from scannerjob.targets.job.view import JobView, view
from tests.unit.cases import NOW, ago
from tests.unit.job_cases import condition, document, exited, pod, seen_job

NO_TIME, LONG = timedelta(0), timedelta(seconds=31)


def observed(job: JobView, cause: str | None = None, ending: timedelta = NO_TIME) -> Observation:
    return observation(job, cause, ending, NOW)


def failed(reason: str = "BackoffLimitExceeded") -> JobView:
    return seen_job(conditions=[condition("Failed", reason)])


def cause(phase: str = "Failed", **status: Any) -> str | None:
    return causes([pod(phase=phase, **status)]).get("id-[7]")


class TestAJob:
    def test_that_is_complete_succeeded_whatever_its_pods_say(self) -> None:
        job = seen_job(conditions=[condition("Complete")])

        assert observed(job, "OOMKilled (exit code 137)") == Observation(Fact.SUCCEEDED)

    def test_that_failed_says_what_its_pods_say_of_it(self) -> None:
        assert observed(failed(), "OOMKilled (exit code 137)") == Observation(
            Fact.FAILED, "OOMKilled (exit code 137)"
        )

    @pytest.mark.parametrize("told", [None, ""])
    def test_that_failed_has_its_own_reason_where_they_say_nothing(self, told: str | None) -> None:
        assert observed(failed(), told).reason == "BackoffLimitExceeded"
        assert observed(failed(""), told).reason == "Failed"

    def test_that_was_ended_at_its_deadline_says_so_and_not_how_its_pods_were_killed(self) -> None:
        assert observed(failed("DeadlineExceeded"), "exit code 143").reason == "DeadlineExceeded"

    def test_that_runs_is_there(self) -> None:
        assert observed(seen_job(active=1)) == Observation(Fact.ACCEPTED)

    def test_that_is_about_to_fail_holds_its_slot_and_says_after_a_while_why(self) -> None:
        job = seen_job(conditions=[condition("FailureTarget", "PodFailure")], terminating=1)

        assert observed(job) == Observation(Fact.ACCEPTED)
        held = observed(job, ending=LONG)
        assert held.fact is Fact.ACCEPTED
        assert held.reason is not None
        assert f"{job.name} is ending (PodFailure)" in held.reason
        assert "node.kubernetes.io/out-of-service" in held.reason

    def test_that_has_no_pod_after_five_minutes_says_how_to_learn_why(self) -> None:
        assert observed(seen_job(created=ago(299))).reason is None
        reason = observed(seen_job(created=ago(301))).reason
        assert reason is not None
        assert "kubectl describe job" in reason

    def test_that_waits_for_its_queue_or_had_a_pod_is_not_stuck(self) -> None:
        suspended = document(created=ago(9999))
        suspended["spec"]["suspend"] = True

        assert observed(view(suspended)).reason is None
        assert observed(seen_job(created=ago(9999), failed=1)).reason is None


class TestTheCause:
    def test_is_the_exit_code(self) -> None:
        assert cause(containerStatuses=[exited(1)]) == "exit code 1"
        assert cause(containerStatuses=[exited(2, None)]) == "exit code 2"

    def test_is_the_reason_where_there_is_one(self) -> None:
        killed = exited(137, "OOMKilled")

        assert cause(containerStatuses=[killed]) == "OOMKilled (exit code 137)"

    def test_is_the_first_container_that_failed(self) -> None:
        statuses = [exited(0, "Completed", "one"), exited(3, name="two"), exited(4, name="three")]

        assert cause(containerStatuses=statuses) == "exit code 3"

    def test_is_an_init_container_where_no_other_has_run(self) -> None:
        waiting = {"name": "pages", "state": {"waiting": {"reason": "PodInitializing"}}}

        told = cause(containerStatuses=[waiting], initContainerStatuses=[exited(4)])

        assert told == "exit code 4"

    def test_is_not_the_sidecar_that_was_killed_when_the_others_had_ended(self) -> None:
        told = cause(containerStatuses=[exited(1)], initContainerStatuses=[exited(143)])

        assert told == "exit code 1"

    def test_is_the_pods_own_reason_before_all_others(self) -> None:
        told = cause(reason="Evicted", message="low on memory", containerStatuses=[exited(137)])

        assert told == "Evicted: low on memory"
        assert cause(reason="Evicted") == "Evicted"

    def test_is_a_disruption_before_an_exit_code(self) -> None:
        disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        undisturbed = {**disrupted, "status": "False"}

        assert cause(conditions=[disrupted], containerStatuses=[exited(137)]) == "DeletionByPodGC"
        assert cause(conditions=[undisturbed], containerStatuses=[exited(9)]) == "exit code 9"
        message = {**disrupted, "message": "the node is gone"}
        assert cause(conditions=[message]) == "DeletionByPodGC: the node is gone"

    @pytest.mark.parametrize("phase", ["Succeeded", "Running", "Pending"])
    def test_is_told_by_failed_pods_alone(self, phase: str) -> None:
        killed = exited(0, "OOMKilled")

        assert cause(phase, containerStatuses=[killed, exited(1)]) is None

    def test_is_unknown_where_no_pod_tells(self) -> None:
        assert cause() is None
        assert cause(containerStatuses=[{"name": "pages", "state": None}]) is None
        assert causes([]) == {}

    def test_is_told_for_each_launch(self) -> None:
        pods = [pod("a", containerStatuses=[exited(1)]), pod("b", containerStatuses=[exited(2)])]

        assert causes(pods) == {"id-a": "exit code 1", "id-b": "exit code 2"}


class TestPodsAlive:
    @pytest.mark.parametrize("phase", ["Pending", "Running", "Unknown"])
    def test_are_those_that_have_not_ended(self, phase: str) -> None:
        assert alive([pod(phase=phase)]) == {"id-[7]": "pod-[7]"}

    @pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
    def test_are_not_those_that_have(self, phase: str) -> None:
        assert alive([pod(phase=phase)]) == {}

    def test_are_one_that_tells_no_phase(self) -> None:
        silent = pod()
        silent["status"] = {}

        assert alive([silent]) == {"id-[7]": "pod-[7]"}

    def test_are_one_whose_launch_label_was_taken_off(self) -> None:
        bare = pod(phase="Running")
        bare["metadata"]["labels"] = {"other": "label"}

        assert alive([bare]) == {"": "pod-[7]"}
