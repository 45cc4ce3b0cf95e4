"""The API server of the world, its Jobs and their pods, and what watches are told of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from scannerjob.model.facts import Fact
from scannerjob.targets.job.names import ATTEMPT, KEY, LAUNCH, NAME, UID, job_name
from scannerjob.targets.job.view import view
from tests.model.basics import NETWORK_DELAY, REF
from tests.model.workers import Message

if TYPE_CHECKING:
    from tests.model.world import World

Document = dict[str, Any]


# The launch of an earlier ScannerJob of the same name.
PREDECESSOR = "old"


@dataclass
class Job:
    """A Job object and the one pod that it has."""

    document: Document
    pod: Message

    @property
    def launch(self) -> str:
        return str(self.document["metadata"]["labels"][LAUNCH])

    @property
    def ended(self) -> bool:
        conditions = self.document.get("status", {}).get("conditions", ())
        return any(each["type"] in ("Complete", "Failed") for each in conditions)


@dataclass
class LateCreate:
    """A create that the network still has."""

    document: Document
    pod: Message
    not_after: datetime


@dataclass(eq=False)
class Watch:
    """What one process will be told of Jobs, in this order, unless it is lost without a word."""

    events: list[tuple[str, Document]] = field(default_factory=list)


class Cluster:
    """The Jobs by name, and the judge of what happens to them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._version = 0
        self._created: set[str] = set()
        self._made: set[str] = set()
        self._strangers: dict[str, Document] = {}
        self.jobs: dict[str, Job] = {}
        self.late: list[LateCreate] = []
        self.watches: list[Watch] = []
        # Launches whose Jobs a person deleted: what they did is not known any more.
        self.by_hand: set[str] = set()

    # Creates.

    def pod_of(self, document: Document) -> Message:
        """The pod that this Job will have."""
        spec = document["spec"]
        env = spec["template"]["spec"]["containers"][0]["env"]
        row = next(each["value"] for each in env if each["name"] == "ID")
        limit = spec.get("activeDeadlineSeconds")
        return Message(
            id=document["metadata"]["labels"][LAUNCH],
            row=row,
            generation=self._world.rows[row].generation,
            expires_at=None,
            time_limit=None if limit is None else timedelta(seconds=limit),
            reports=False,
        )

    def delay(self, document: Document, pod: Message) -> None:
        """The network keeps this create for a while, or for good."""
        self.late.append(LateCreate(document, pod, self._world.now + NETWORK_DELAY))

    def land_late(self, index: int) -> None:
        """A create that the network still had arrives, if it still can.

        Not while a pod of a Job goes on that a person deleted: nobody could prevent a second.
        """
        late = self.late.pop(index)
        if self._world.now <= late.not_after and not self.alive([late.pod.id]):
            self._world.note(f"a late create of {late.pod.id} arrives")
            self.create(late.document, late.pod)

    def create(self, document: Document, pod: Message) -> Document | None:
        """The Job as it is then, or None where there is one of this name."""
        name = document["metadata"]["name"]
        if name in self.jobs or self._is_a_strangers(name):
            return None
        self._judge_create(pod.id)
        self._version += 1
        document = deepcopy(document)
        document["metadata"] |= {
            "uid": f"job-{self._version}",
            "creationTimestamp": self._time(),
        }
        job = self.jobs[name] = Job(document, self._world.workers.get(pod))
        self._changed("ADDED", job)
        return deepcopy(job.document)

    def _is_a_strangers(self, name: str) -> bool:
        """Whether somebody else has a Job of this name, as those have who are quicker."""
        quicker = len(self._strangers) < self._world.setup.taken
        if quicker:
            metadata = {"name": name, "namespace": REF.namespace, "uid": f"stranger of {name}"}
            self._strangers[name] = {"metadata": metadata}
        return name in self._strangers

    def _judge_create(self, launch: str) -> None:
        if self.alive([launch]):
            self._world.violated(f"a Job of {launch} is created while a pod of an earlier one runs")
        if launch in self._created and launch not in self.by_hand:
            self._world.violated(f"a second Job of {launch} is created")
        self._created.add(launch)

    # What is there.

    def found(self) -> list[Document]:
        """All Jobs as they are now."""
        return [deepcopy(job.document) for job in self.jobs.values()]

    def named(self, name: str) -> Document | None:
        """The Job of this name, whosever it is."""
        found = self.jobs[name].document if name in self.jobs else self._strangers.get(name)
        return deepcopy(found)

    def pods(self, launches: Collection[str]) -> list[Document]:
        """The pods of these launches, whether their Jobs are there or not."""
        pods = [pod for pod in self._world.workers.messages if pod.id in launches]
        return [_pod(pod) for pod in pods if self._is_made(pod)]

    def _is_made(self, pod: Message) -> bool:
        """Whether there is a pod yet: the Job controller makes it some time after the Job."""
        return pod.state != "queued" or pod.id in self._made

    def alive(self, launches: Collection[str]) -> set[str]:
        """Those of these launches of which a pod has not ended."""
        return {pod.id for pod in self._world.workers.at_work() if pod.id in launches}

    def unrecorded(self, outstanding: Collection[str]) -> set[str]:
        """The launches whose Jobs have not ended and of which a ledger with these tells nothing."""
        running = {job.launch for job in self.jobs.values() if not job.ended and self._is_ours(job)}
        return running - set(outstanding)

    def at_work(self) -> bool:
        """Whether a Job has not ended, of which a pod may come still."""
        return any(not job.ended for job in self.jobs.values())

    def _is_ours(self, job: Job) -> bool:
        return view(job.document).owner == "uid"

    # What becomes of Jobs.

    def control(self) -> None:
        """The Job controller makes the pods that are missing, and sees which have ended."""
        for job in self.jobs.values():
            self._made.add(job.launch)
            if job.pod.state == "gone" and not job.ended:
                end = "Complete" if job.pod.result is Fact.SUCCEEDED else "Failed"
                self._world.note(f"the Job of {job.launch} is {end}")
                condition = {"type": end, "status": "True", "lastTransitionTime": self._time()}
                job.document["status"] = {"conditions": [condition]}
                self._changed("MODIFIED", job)

    def doom(self, index: int) -> None:
        """A Job is past its deadline, or out of attempts; a pod of it, on a lost node, goes on."""
        jobs = list(self.jobs.values())
        job = jobs[index % len(jobs)]
        if not job.ended:
            self._world.note(f"the Job of {job.launch} is to fail")
            condition = {"type": "FailureTarget", "status": "True"}
            job.document["status"] = {"conditions": [condition]}
            self._changed("MODIFIED", job)

    def expire(self, name: str, seconds: int) -> None:
        """Remove this Job so long after its end."""
        job = self.jobs[name]
        self._judge_removal(job)
        job.document["spec"]["ttlSecondsAfterFinished"] = seconds
        self._changed("MODIFIED", job)

    def time_passed(self) -> None:
        """Jobs go whose time after their end is over."""
        for job in list(self.jobs.values()):
            seen = view(job.document)
            ttl = None if seen.ttl is None else timedelta(seconds=seen.ttl)
            if seen.end and ttl is not None and seen.changed + ttl <= self._world.now:
                self._gone(job)

    def remove(self, name: str) -> None:
        """The operator removes this Job."""
        job = self.jobs[name]
        self._world.note(f"the Job of {job.launch} is removed")
        self._judge_removal(job)
        self._gone(job)

    def _judge_removal(self, job: Job) -> None:
        if not job.ended or job.launch in self._world.store.outstanding():
            self._world.violated(f"the Job of {job.launch} goes before its end is counted")

    def delete(self, index: int) -> None:
        """A person deletes a Job; its pod goes on for a while.

        Not while a create is at hand that nobody could tell from the first.
        """
        jobs = list(self.jobs.values())
        job = jobs[index % len(jobs)]
        late = any(each.pod.id == job.launch for each in self.late)
        if self._world.is_at_hand(job.launch) or (late and job.ended) or not self._is_ours(job):
            return
        self._world.note(f"the Job of {job.launch} is deleted by hand")
        self.by_hand.add(job.launch)
        self._gone(job)
        self.end_forgotten()

    def end_forgotten(self) -> None:
        """Pods end that neither a Job nor the ledger knows: nobody could know of them."""
        known = self._world.store.outstanding().keys() | {j.launch for j in self.jobs.values()}
        for pod in self._world.workers.at_work():
            if pod.id not in known and self._world.setup.jobs:
                self._world.workers.die(pod)

    def _gone(self, job: Job) -> None:
        if not self._is_made(job.pod):
            self._world.workers.die(job.pod)
        del self.jobs[job.document["metadata"]["name"]]
        self._changed("DELETED", job)

    def _changed(self, event: str, job: Job) -> None:
        self._version += 1
        job.document["metadata"]["resourceVersion"] = str(self._version)
        for watch in self.watches:
            watch.events.append((event, deepcopy(job.document)))

    def _time(self) -> str:
        return self._world.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    # An earlier ScannerJob of the same name.

    def begin_with_a_predecessor(self) -> None:
        """A Job of an earlier ScannerJob is at work on the first row's old generation."""
        metadata = {
            "name": job_name(REF.name, PREDECESSOR),
            "namespace": REF.namespace,
            "labels": {NAME: REF.name, UID: "old", LAUNCH: PREDECESSOR},
            "annotations": {KEY: "[0]", ATTEMPT: "1"},
            "ownerReferences": [{"name": REF.name, "uid": "old", "controller": True}],
        }
        self.create(
            {"metadata": metadata, "spec": {}}, Message(PREDECESSOR, "[0]", 0, None, None, False)
        )

    def predecessor_runs(self) -> bool:
        """Whether a Job of it has not ended."""
        return any(not job.ended and not self._is_ours(job) for job in self.jobs.values())


_PHASES = {"queued": "Pending", "running": "Running"}


def _pod(pod: Message) -> Document:
    ended = "Succeeded" if pod.result is Fact.SUCCEEDED else "Failed"
    metadata: Mapping[str, Any] = {"name": f"pod-{pod.id}", "labels": {LAUNCH: pod.id}}
    return {"metadata": metadata, "status": {"phase": _PHASES.get(pod.state, ended)}}
