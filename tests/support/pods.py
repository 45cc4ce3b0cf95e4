"""Pods of a test: what becomes of them, what their programs see, what a kubelet reports."""

import math
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

# Kubernetes writes a dollar as two, and leaves a name that it does not know as it stands.
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


@dataclass(frozen=True)
class End:
    """How a container ended. `evicted`: by its kubelet, for want of the node's memory."""

    exit_code: int = 0
    reason: str = "Completed"
    message: str = ""
    evicted: bool = False

    @property
    def phase(self) -> str:
        """The pod's; the exit code decides, not the reason."""
        return "Failed" if self.exit_code or self.evicted else "Succeeded"


SUCCEEDED = End()
FAILED = End(1, "Error")
OOM_KILLED = End(137, "OOMKilled")
EVICTED = End(137, "Error", evicted=True)
TERMINATED = End(143, "Error")
VANISHED = End(
    137,
    "ContainerStatusUnknown",
    "The container could not be located when the pod was terminated",
)


@dataclass(frozen=True)
class Fate:
    """What is to become of a pod.

    It runs for so many seconds (`math.inf`: until told otherwise) and then comes to its end.
    `starts=False`: it stays Pending. `lost`: its node is cut off once it runs, which means that
    its program goes on and nobody hears of its end, or confirms that it was deleted. `lingers`:
    so many seconds its program goes on after its pod was deleted.
    """

    seconds: float = 1.0
    end: End = SUCCEEDED
    starts: bool = True
    lost: bool = False
    lingers: float = 0.0


@dataclass(frozen=True)
class Program:
    """A container's command line and environment, as its program gets them."""

    command: list[str]
    env: dict[str, str]


def expanded(container: Mapping[str, Any]) -> Program:
    """What Kubernetes makes of `command`, `args` and `env`: each `$(NAME)` and `$$` is replaced.

    A variable may refer to those before it. Only plain values: `valueFrom` and `envFrom` are left
    out.
    """
    env: dict[str, str] = {}
    for variable in container.get("env") or ():
        if "valueFrom" not in variable:
            env[variable["name"]] = _expand(variable.get("value") or "", env)
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    return Program([_expand(word, env) for word in words], env)


def _expand(text: str, env: Mapping[str, str]) -> str:
    def replacement(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else env.get(name, found[0])

    return _REFERENCE.sub(replacement, text)


@dataclass(eq=False)
class Pod:
    """A pod that a kubelet was given.

    Times are `time.time()`, and those of its program, not of reports about it. `error` is what its
    work raised. One whose program was never started has no `started`.
    """

    manifest: Json
    fate: Fate
    started: float | None = None
    ended: float | None = None
    end: End | None = None
    error: Exception | None = None
    deleted: float | None = None
    reported: str = "Pending"
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        metadata = self.manifest["metadata"]
        self.uid: str = metadata["uid"]
        self.name: str = metadata["name"]
        self.namespace: str = metadata["namespace"]
        self.labels: dict[str, str] = metadata.get("labels") or {}
        self.program = expanded(self.manifest["spec"]["containers"][0])

    @property
    def job(self) -> str | None:
        """The name of the Job that it belongs to."""
        return self.labels.get("batch.kubernetes.io/job-name")

    @property
    def env(self) -> dict[str, str]:
        """The environment of its first container."""
        return self.program.env

    @property
    def running(self) -> bool:
        """Whether its program runs, whatever the API server was told."""
        return self.started is not None and self.ended is None

    @property
    def due(self) -> float:
        """When something happens to it by itself; `math.inf` if nothing does."""
        if self.started is None or self.ended is not None:
            return math.inf
        return min(self.completes, self.terminates)

    @property
    def completes(self) -> float:
        """When its program ends by itself."""
        return (self.started or 0.0) + self.fate.seconds

    @property
    def terminates(self) -> float:
        """When its program ends because its pod was deleted, which a lost node never hears of."""
        if self.deleted is None or self.fate.lost:
            return math.inf
        return self.deleted + self.fate.lingers

    def finish(self, end: End) -> None:
        """Its program ends now."""
        self.ended, self.end = time.time(), end

    def running_status(self) -> Json:
        """What a kubelet reports when the containers were started."""
        since = timestamp(self.started)
        status = self._status("Running", state={"running": {"startedAt": since}})
        return {**status, "startTime": since}

    def final_status(self) -> Json:
        """What a kubelet reports when nothing of it runs any more."""
        if self.started is None or self.end is None:
            return {"phase": "Failed"}
        terminated = {
            "exitCode": self.end.exit_code,
            "reason": self.end.reason,
            "message": self.end.message,
            "startedAt": timestamp(self.started),
            "finishedAt": timestamp(self.ended),
        }
        why = "PodCompleted" if self.end.phase == "Succeeded" else "PodFailed"
        status = self._status(self.end.phase, state={"terminated": terminated}, reason=why)
        return _evicted(status) if self.end.evicted else status

    def _status(self, phase: str, *, state: Json, **why: str) -> Json:
        ready = phase == "Running"
        conditions = [condition(kind, ready, **why) for kind in ("Ready", "ContainersReady")]
        containers = [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "containerID": f"test://{self.uid}/{container['name']}",
                "ready": ready,
                "started": ready,
                "restartCount": 0,
                "state": state,
            }
            for container in self.manifest["spec"]["containers"]
        ]
        return {
            "phase": phase,
            "conditions": [condition("Initialized", True), *conditions],
            "containerStatuses": containers,
        }


def condition(kind: str, value: bool, **more: str) -> Json:
    """One condition of a status, true or false since now."""
    return {
        "type": kind,
        "status": str(value),
        "lastTransitionTime": timestamp(time.time()),
        **more,
    }


def timestamp(seconds: float | None) -> str:
    """A `time.time()` as Kubernetes writes times."""
    return datetime.fromtimestamp(seconds or 0.0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _evicted(status: Json) -> Json:
    message = "The node was low on resource: memory."
    by_kubelet = condition("DisruptionTarget", True, reason="TerminationByKubelet", message=message)
    conditions = [*status["conditions"], by_kubelet]
    return {**status, "reason": "Evicted", "message": message, "conditions": conditions}
