"""A stand-in for the kubelet, which the test control plane has not.

It binds pods to a Node of its own and moves them through `pods/status` as a kubelet does, so that
the real Job controller finishes their Jobs; what becomes of each is the test's to say. The programs
are a function of the test, called when one has done its work.
"""

import contextlib
import itertools
import math
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Self

import urllib3

from tests.support.agenda import Agenda
from tests.support.api import Api, ApiError, Watch
from tests.support.pods import (
    SUCCEEDED,
    TERMINATED,
    VANISHED,
    End,
    Fate,
    Json,
    Pod,
    condition,
    timestamp,
)
from tests.support.waiting import eventually

_RETRY = 0.2
_HEARTBEAT = 10.0
"""Seconds; a Node that was silent for 50 is taken for lost."""


class Kubelet:
    """Runs the pods of some namespaces, or of all.

        with Kubelet(plane.kubeconfig(), [namespace], work=mark_done) as kubelet:
            kubelet.fate = lambda pod: Fate(end=OOM_KILLED) if pod.env["PDF_ID"] == "7" else Fate()
            ...
            assert kubelet.peak() <= 5

    `fate` is asked once for each pod, when it is first seen. `work` is called when a program comes
    to a good end, just before it ends: an exception in it is the exit code 1, and stands in
    `pod.error`. Both are called in other threads, for several pods at once.
    """

    def __init__(
        self,
        kubeconfig: Path,
        namespaces: Collection[str] = (),
        *,
        fate: Callable[[Pod], Fate] = lambda pod: Fate(),
        work: Callable[[Pod], None] = lambda pod: None,
        threads: int = 8,
    ) -> None:
        self.fate = fate
        self.work = work
        self.node = f"node-{secrets.token_hex(4)}"
        self._namespaces = frozenset(namespaces)
        self._api = Api(kubeconfig, connections=threads + 2)
        self._pods: dict[str, Pod] = {}
        self._agenda: Agenda[Pod] = Agenda()
        self._awake = threading.Event()
        self._awake.set()
        self._stopped = threading.Event()
        self._watch: Watch | None = None
        self._loops = [self._see_pods, self._beat, *[self._act] * threads]
        self._threads: list[threading.Thread] = []

    # What a test does to it.

    def start(self) -> Self:
        """Start it, or its machine again: what ran when that was stopped is reported as failed."""
        self._register()
        self._stopped.clear()
        self._agenda.reopen()
        self._threads = [threading.Thread(target=loop, daemon=True) for loop in self._loops]
        for thread in self._threads:
            thread.start()
        self._look_at_all()
        return self

    def stop(self) -> None:
        """Its machine loses power: all programs end at once, and nobody is told."""
        self._stopped.set()
        self._agenda.close()
        self._awake.set()
        if self._watch is not None:
            self._watch.close()
        for thread in self._threads:
            thread.join()
        for pod in self.running():
            pod.finish(VANISHED)

    def freeze(self) -> None:
        """It sees and says nothing any more; the programs go on, and their work is done."""
        self._awake.clear()

    def thaw(self) -> None:
        """It catches up with what happened since it was frozen."""
        self._awake.set()
        self._look_at_all()

    def forget(self) -> None:
        """Remember no more of the pods that are gone: it may then run for days."""
        for pod in self.pods():
            if pod.reported == "Gone":
                self._pods.pop(pod.uid, None)

    def end(self, name: str, end: End = SUCCEEDED) -> None:
        """The program of this pod ends now, and its node is not lost any more.

        If it has ended while nobody heard of it, this is what is told of it.
        """
        pod = self.pod(name)
        with pod.lock:
            pod.fate = Fate(seconds=0, end=end)
            if pod.ended is not None:
                pod.end = end
        self._agenda.add(pod)

    # What a test learns from it.

    def pods(self) -> list[Pod]:
        """All pods it ever saw, those that are gone included, in the order it saw them."""
        return list(self._pods.values())

    def pod(self, name: str) -> Pod:
        """The pod of this name, or of the Job of this name. Raises LookupError if there is none."""
        for pod in reversed(self.pods()):
            if name in (pod.name, pod.job):
                return pod
        raise LookupError(f"the kubelet saw no pod of this name, nor of a Job: {name}")

    def started(self) -> list[Pod]:
        """The pods whose program was started: the executions."""
        return [pod for pod in self.pods() if pod.started is not None]

    def running(self) -> list[Pod]:
        """The pods whose program runs now."""
        return [pod for pod in self.pods() if pod.running]

    def peak(self) -> int:
        """How many programs ran at the same time at most."""
        changes = [(pod.started, 1) for pod in self.started() if pod.started is not None]
        changes += [(pod.ended, -1) for pod in self.started() if pod.ended is not None]
        return max(itertools.accumulate(change for _, change in sorted(changes)), default=0)

    def wait_running(self, name: str, timeout: float = 30) -> Pod:
        """The pod of this name, or of the Job of this name, once the API server knows it runs."""

        def reported() -> Pod | None:
            pod = self.pod(name)
            return pod if pod.reported == "Running" else None

        message = f"{name} is running"
        pod = eventually(reported, timeout=timeout, message=message, ignoring=LookupError)
        assert pod is not None
        return pod

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError):
            self._api.delete(f"/api/v1/nodes/{self.node}")

    # The Node.

    def _register(self) -> None:
        ready = {"conditions": [condition("Ready", True, reason="KubeletReady")]}
        node = {"kind": "Node", "metadata": {"name": self.node}, "status": ready}
        try:
            self._api.create("/api/v1/nodes", node)
        except ApiError as error:
            if error.status != 409:
                raise

    def _beat(self) -> None:
        while not self._stopped.is_set():
            if self._awake.is_set():
                with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError):
                    self._renew()
            self._stopped.wait(_HEARTBEAT)

    def _renew(self) -> None:
        beat = {"lastHeartbeatTime": timestamp(time.time())}
        ready = {**condition("Ready", True, reason="KubeletReady"), **beat}
        path = f"/api/v1/nodes/{self.node}/status"
        self._api.patch(path, {"status": {"conditions": [ready]}})

    # Seeing pods.

    def _see_pods(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(ApiError, urllib3.exceptions.HTTPError, OSError):
                for event in self._events():
                    self._awake.wait()
                    if self._stopped.is_set():
                        return
                    self._see(event["object"], gone=event["type"] == "DELETED")
            self._stopped.wait(_RETRY)

    def _events(self) -> Iterator[Json]:
        """All pods as they are, and then each change until the watch ends."""
        found = self._api.get("/api/v1/pods")
        uids = {pod["metadata"]["uid"] for pod in found["items"]}
        for pod in self.pods():
            if pod.uid not in uids:
                yield {"type": "DELETED", "object": pod.manifest}
        for manifest in found["items"]:
            yield {"type": "ADDED", "object": manifest}
        self._watch = self._api.watch("/api/v1/pods", found["metadata"]["resourceVersion"])
        if self._stopped.is_set():  # and nobody would end this watch
            return
        for event in self._watch:
            if event["type"] == "ERROR":
                return
            if event["type"] != "BOOKMARK":
                yield event

    def _see(self, manifest: Json, *, gone: bool) -> None:
        metadata = manifest["metadata"]
        pod = self._pods.get(metadata["uid"])
        if pod is None:
            if gone or not self._is_mine(manifest):
                return
            pod = Pod(manifest, Fate())
            pod.fate = self.fate(pod)
            self._pods[pod.uid] = pod
            self._agenda.add(pod)
        if (gone or "deletionTimestamp" in metadata) and pod.deleted is None:
            pod.deleted = time.time()
            self._agenda.add(pod)

    def _is_mine(self, manifest: Json) -> bool:
        if self._namespaces and manifest["metadata"]["namespace"] not in self._namespaces:
            return False
        if manifest["status"].get("phase") in ("Succeeded", "Failed"):
            return False
        return manifest["spec"].get("nodeName") in (None, self.node)

    # Acting upon them.

    def _act(self) -> None:
        while (pod := self._agenda.next()) is not None:
            try:
                with pod.lock:
                    self._bring_up_to_date(pod)
            except (ApiError, urllib3.exceptions.HTTPError) as error:
                if isinstance(error, ApiError) and not error.passing:
                    raise
                self._agenda.add(pod, time.time() + _RETRY)
            else:
                if pod.due < math.inf:
                    self._agenda.add(pod, pod.due)

    def _bring_up_to_date(self, pod: Pod) -> None:
        # A frozen kubelet starts and reports nothing, but what it started goes on.
        if pod.started is None and pod.fate.starts and pod.deleted is None and self._awake.is_set():
            self._start(pod)
        if pod.running and time.time() >= pod.due:
            self._finish(pod)
        if self._awake.is_set():
            self._report(pod)

    def _start(self, pod: Pod) -> None:
        if pod.manifest["spec"].get("nodeName") or self._bind(pod):
            pod.started = time.time()

    def _bind(self, pod: Pod) -> bool:
        """Whether it is bound to this node now: an unbound pod may be deleted at any time."""
        target = {"apiVersion": "v1", "kind": "Node", "name": self.node}
        binding = {"kind": "Binding", "metadata": {"name": pod.name}, "target": target}
        try:
            self._api.create(f"{_path(pod)}/binding", binding)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            # Bound before, if the reply to an earlier try was lost.
            return error.status == 409 and self._is_bound(pod)
        return True

    def _is_bound(self, pod: Pod) -> bool:
        with _unless_gone():
            pod.manifest = self._api.get(_path(pod))
        return bool(pod.manifest["spec"].get("nodeName") == self.node)

    def _finish(self, pod: Pod) -> None:
        if pod.terminates < pod.completes:
            pod.finish(TERMINATED)
            return
        if not pod.fate.end.exit_code:
            try:
                self.work(pod)
            except Exception as error:  # noqa: BLE001 - as with any program, it is its exit code
                pod.error = error
        pod.finish(End(1, "Error", str(pod.error)) if pod.error else pod.fate.end)

    def _report(self, pod: Pod) -> None:
        if pod.started is not None and pod.reported == "Pending":
            self._patch(pod, "Running", pod.running_status())
        if pod.fate.lost:
            return
        if pod.ended is not None and pod.reported == "Running":
            self._patch(pod, "Ended", pod.final_status())
        if pod.deleted is not None and not pod.running:
            self._confirm(pod)

    def _patch(self, pod: Pod, state: str, status: Json) -> None:
        with _unless_gone():
            self._api.patch(
                f"{_path(pod)}/status", {"metadata": {"uid": pod.uid}, "status": status}
            )
        pod.reported = state

    def _confirm(self, pod: Pod) -> None:
        """Nothing of a deleted pod runs any more: only now may its object go."""
        if pod.reported == "Gone":
            return
        if pod.reported == "Pending":
            self._patch(pod, "Ended", pod.final_status())
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": pod.uid}}
        with _unless_gone():
            self._api.delete(_path(pod), options)
        pod.reported = "Gone"

    def _look_at_all(self) -> None:
        for pod in self.pods():
            self._agenda.add(pod)


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    """What is no longer there, or is another of the same name, needs nothing any more."""
    try:
        yield
    except ApiError as error:
        if error.status not in (404, 409):
            raise


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
