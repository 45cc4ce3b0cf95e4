"""What the API server shows of ScannerJobs, their Jobs and the pods of these."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

from tests.harness.witnesses.collection import UNANSWERED, Collection
from tests.proof.history import Gap, Job, Pod, Version, Witness
from tests.support.api import Json
from tests.support.waiting import eventually

LAUNCH, KEY = "scannerjob.dev/launch", "scannerjob.dev/key"

_PATHS: dict[Witness, str] = {
    "scannerjobs": "/apis/scannerjob.dev/v1alpha1/namespaces/{}/scannerjobs",
    "jobs": "/apis/batch/v1/namespaces/{}/jobs",
    "pods": "/api/v1/namespaces/{}/pods",
}


class ClusterWitness:
    """Watches a namespace. Use it as a context manager, from before the first ScannerJob is made.

    Jobs and pods without a launch's label are none of its business.
    """

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._versions: list[Version] = []
        self._jobs: dict[str, Job] = {}
        self._pods: dict[str, Pod] = {}
        notes = {"scannerjobs": self._see_scannerjob, "jobs": self._see_job, "pods": self._see_pod}
        self._collections = {
            name: Collection(kubeconfig, path.format(namespace), notes[name])
            for name, path in _PATHS.items()
        }

    def versions(self) -> list[Version]:
        """Every state of every ScannerJob, in the order in which the watch had them."""
        return list(self._versions)

    def jobs(self) -> list[Job]:
        """Every Job, in the order in which they came to be known."""
        return list(self._jobs.values())

    def pods(self) -> list[Pod]:
        """Every pod, likewise."""
        return list(self._pods.values())

    def gaps(self) -> list[Gap]:
        """When a watch had to begin anew."""
        return [
            Gap(name, begin, end)
            for name, collection in self._collections.items()
            for begin, end in list(collection.gaps)
        ]

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was seen that the API server has when this is called, or later."""
        for name, collection in self._collections.items():
            eventually(
                collection.has_caught_up,
                timeout,
                message=f"the watch has shown all {name}",
                ignoring=UNANSWERED,
            )

    def __enter__(self) -> Self:
        for collection in self._collections.values():
            collection.start()
        return self

    def __exit__(self, *_: object) -> None:
        for collection in self._collections.values():
            collection.stop()

    def _see_scannerjob(self, now: float, found: Json, gone: bool) -> None:
        metadata = found["metadata"]
        uid, version = metadata["uid"], metadata["resourceVersion"]
        deleted = gone or "deletionTimestamp" in metadata
        status = found.get("status") or {}
        self._versions.append(Version(now, uid, version, found["spec"], status, deleted))

    def _see_job(self, now: float, found: Json, gone: bool) -> None:
        metadata = found["metadata"]
        launch = _launch(metadata)
        if launch is None:
            return
        job = self._jobs.get(metadata["uid"]) or Job(
            name=metadata["name"],
            uid=metadata["uid"],
            owner=_controller(metadata),
            launch=launch,
            row=(metadata.get("annotations") or {}).get(KEY, ""),
            created=now,
        )
        outcome = _outcome(found)
        if outcome is not None and job.finished is None:
            job = replace(job, finished=now, outcome=outcome)
        self._jobs[job.uid] = replace(job, deleted=now) if gone else job

    def _see_pod(self, now: float, found: Json, gone: bool) -> None:
        metadata = found["metadata"]
        launch = _launch(metadata)
        if launch is None:
            return
        pod = self._pods.get(metadata["uid"]) or Pod(metadata["name"], launch, now)
        final = found.get("status", {}).get("phase") in ("Succeeded", "Failed")
        if pod.ended is None and (gone or final):
            pod = replace(pod, ended=now)
        self._pods[metadata["uid"]] = pod


def _launch(metadata: Json) -> str | None:
    return (metadata.get("labels") or {}).get(LAUNCH)


def _controller(metadata: Json) -> str | None:
    owners = metadata.get("ownerReferences") or ()
    return next((each["uid"] for each in owners if each.get("controller")), None)


def _outcome(job: Json) -> Literal["Complete", "Failed"] | None:
    conditions: list[dict[str, Any]] = job.get("status", {}).get("conditions") or []
    true = {each["type"] for each in conditions if each["status"] == "True"}
    return "Complete" if "Complete" in true else "Failed" if "Failed" in true else None
