"""How a Job's work ended, or why it does not: from its status and, for the cause, its pods'.

A Job says `Complete` or `Failed` once no pod of it runs any more; `FailureTarget` alone means that
one may still run, on a lost node for instance. That the kernel killed a container for its memory,
only the pod says; and a pod that says so may belong to a Job that is Complete: the Job decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.job.names import LAUNCH
from scannerjob.targets.job.view import JobView

# Pods need a moment to end, and the Job controller to make them: only after that it is worth a
# word.
_ENDING_FOR_LONG = timedelta(seconds=30)
_PODLESS_FOR_LONG = timedelta(minutes=5)
_PODS_ENDS = ("Succeeded", "Failed")

Pod = Mapping[str, Any]


def observation(
    job: JobView, cause: str | None, ending_for: timedelta, now: datetime
) -> Observation:
    """What is known of the launch whose Job this is.

    `cause` is what its pods say of a failure, `ending_for` how long it has been seen to be ending.
    """
    match job.end:
        case "Complete":
            return Observation(Fact.SUCCEEDED)
        case "Failed":
            return Observation(Fact.FAILED, _why_failed(job, cause))
        case _:
            return Observation(Fact.ACCEPTED, _trouble(job, ending_for, now))


def _why_failed(job: JobView, cause: str | None) -> str:
    # At its deadline its pods are killed: how they ended tells nothing.
    if job.reason == "DeadlineExceeded":
        return job.reason
    return cause or job.reason or "Failed"


def _trouble(job: JobView, ending_for: timedelta, now: datetime) -> str | None:
    if ending_for > _ENDING_FOR_LONG:
        why = f" ({job.reason})" if job.reason else ""
        return (
            f"Job {job.name} is ending{why}, but a pod of it has not: its node may be lost; "
            "delete the node, or taint it node.kubernetes.io/out-of-service"
        )
    podless = not job.pods and not job.suspended
    if podless and now - job.created > _PODLESS_FOR_LONG:
        return f"Job {job.name} has no pod: kubectl describe job {job.name} says why"
    return None


def causes(pods: Iterable[Pod]) -> Mapping[str, str]:
    """By launch, why it failed as its pods tell: `OOMKilled (exit code 137)`, `Evicted: ...`."""
    found: dict[str, str] = {}
    for pod in pods:
        cause = next(_causes(pod["status"]), None)
        if cause and pod["status"].get("phase") == "Failed":
            found.setdefault(_launch(pod), cause)
    return found


def _causes(status: Mapping[str, Any]) -> Iterator[str]:
    if status.get("reason"):
        yield _told(status)
    for each in status.get("conditions") or ():
        if each["type"] == "DisruptionTarget" and each["status"] == "True":
            yield _told(each)
    # In this order: sidecars are init containers, and are killed once the others have ended.
    for field in ("containerStatuses", "initContainerStatuses"):
        yield from filter(None, (_exit(each) for each in status.get(field) or ()))


def _told(part: Mapping[str, Any]) -> str:
    return ": ".join(filter(None, (part.get("reason"), part.get("message"))))


def _exit(container: Mapping[str, Any]) -> str | None:
    ended = (container.get("state") or {}).get("terminated")
    if not ended or not ended.get("exitCode"):
        return None
    code = f"exit code {ended['exitCode']}"
    reason = ended.get("reason")
    return code if reason in (None, "Error") else f"{reason} ({code})"


def alive(pods: Iterable[Pod]) -> Mapping[str, str]:
    """By launch, the name of a pod of it that has not ended."""
    return {
        _launch(pod): pod["metadata"]["name"]
        for pod in pods
        if pod["status"].get("phase") not in _PODS_ENDS
    }


def _launch(pod: Pod) -> str:
    return str(pod["metadata"]["labels"].get(LAUNCH, ""))
