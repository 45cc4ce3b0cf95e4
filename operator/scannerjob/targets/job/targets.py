"""The Job targets of an operator, which share a client and what is seen of Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kubernetes.aio.client import ApiClient

from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import Ref, Snapshot
from scannerjob.targets.job.api import JobsApi
from scannerjob.targets.job.manifest import Owner
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.target import JobTarget
from scannerjob.targets.job.view import view


class JobTargets:
    """Opens Job targets, and is told of Jobs by the watch."""

    def __init__(self, api: ApiClient) -> None:
        self._api = JobsApi(api)
        self._seen = SeenJobs()

    def open(self, snapshot: Snapshot, spec: ScannerJobSpec) -> JobTarget:
        """The target of this very ScannerJob: another of its name has other Jobs."""
        if spec.job is None:
            raise ValueError("this ScannerJob launches no Jobs")
        owner = Owner(snapshot.ref.namespace, snapshot.ref.name, snapshot.uid)
        return JobTarget(self._api, self._seen, owner, spec, spec.job)

    def seen(self, event: str | None, job: Mapping[str, Any]) -> Ref | None:
        """Note what the watch told of a Job; gives the ScannerJob for which that changes anything.

        `event` is the watch event's type, None for one that was there when the watch began.
        """
        new = view(job)
        if event == "DELETED":
            self._seen.drop(new)
            return Ref(new.namespace, new.scannerjob)
        before = self._seen.put(new)
        ended = new.end is not None and (before is None or before.end is None)
        return Ref(new.namespace, new.scannerjob) if ended else None
