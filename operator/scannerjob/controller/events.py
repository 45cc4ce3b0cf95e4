"""Changes of ScannerJobs as Kubernetes Events: few, whatever happens, and never waited for.

As with client-go's broadcaster, what is repeated is counted on the Event that is there, what does
not fit is dropped, and nothing of it is ever an error. Unlike there, each object has its own
allowance of writes: a database that comes and goes all day must not fill etcd.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import uuid
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob.apiserver import asking
from scannerjob.clock import SystemClock
from scannerjob.model.notice import Notice
from scannerjob.model.spec import API_GROUP, API_VERSION, KIND
from scannerjob.ports import Clock, PortError, Ref, RefusedError

log = logging.getLogger(__name__)

_TIMEOUT = 5.0
_DRAIN_WITHIN = 3.0
_MAX_QUEUED = 1000
_REPEATS_WITHIN = 600.0
# Writes of one object: so many at once, then one a minute.
_BURST = 10
_REFILL_SECONDS = 60.0
# What the API server takes, in bytes and in characters.
_MAX_NOTE = 1024
_MAX_INSTANCE = 128
_MAX_NAME = 200
_EVENTS: dict[str, Any] = {
    "group": "events.k8s.io",
    "version": "v1",
    "plural": "events",
    "_request_timeout": _TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class _Queued:
    ref: Ref
    uid: str
    notice: Notice
    at: datetime


@dataclass(slots=True)
class _Posted:
    """An Event on the API server: how often it was seen, and when last."""

    name: str
    count: int
    seen: float


@dataclass(slots=True)
class _Allowance:
    """What one object may still write."""

    left: float
    since: float

    def take(self, now: float) -> bool:
        self.left = min(_BURST, self.left + (now - self.since) / _REFILL_SECONDS)
        self.since = now
        taken = self.left >= 1
        self.left -= taken
        return taken


class EventRecorder:
    """A Recorder that posts Events of `events.k8s.io/v1`. Must be made in the event loop.

    It needs `create` and `patch` on them. Trouble is logged once for each namespace, when it
    begins and when it ends.
    """

    def __init__(self, api: ApiClient, clock: Clock | None = None) -> None:
        self._events = CustomObjectsApi(api)
        self._clock = clock or SystemClock()
        self._instance = socket.gethostname()[:_MAX_INSTANCE] or "scannerjob"
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(_MAX_QUEUED)
        self._posted: OrderedDict[tuple[str, Notice], _Posted] = OrderedDict()
        self._allowances: OrderedDict[str, _Allowance] = OrderedDict()
        self._trouble: dict[str, str] = {}
        self._worker = asyncio.create_task(self._work(), name="events")

    def record(self, ref: Ref, uid: str, notice: Notice) -> None:
        """See Recorder; what comes faster than it can be posted is dropped."""
        try:
            self._queue.put_nowait(_Queued(ref, uid, notice, self._clock.now()))
        except asyncio.QueueFull:
            log.debug("%s: too many events wait to be posted: %s is dropped", ref, notice.reason)

    async def drained(self) -> None:
        """Wait until all that was recorded is posted, counted or dropped."""
        await self._queue.join()

    async def close(self) -> None:
        """Post what waits, for a few seconds at most, and stop."""
        try:
            await asyncio.wait_for(self.drained(), _DRAIN_WITHIN)
        except TimeoutError:
            log.debug("%d events were not posted", self._queue.qsize())
        self._worker.cancel()
        await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while True:
            queued = await self._queue.get()
            try:
                await self._post(queued)
            except Exception:
                log.exception("%s: a bug kept an event from being posted", queued.ref)
            finally:
                self._queue.task_done()

    async def _post(self, queued: _Queued) -> None:
        now = self._clock.boottime()
        self._forget_old(now)
        posted = self._seen_again(queued, now)
        if not self._may_write(queued.uid, now):
            return
        try:
            if posted is None or not await self._count(queued, posted):
                await self._create(queued, now)
        except PortError as error:
            self._failed(queued, error)
        else:
            self._worked(queued)

    def _seen_again(self, queued: _Queued, now: float) -> _Posted | None:
        """The Event of the same change, counted up: what is not written now is with the next."""
        posted = self._posted.get((queued.uid, queued.notice))
        if posted is not None:
            posted.count += 1
            posted.seen = now
            self._posted.move_to_end((queued.uid, queued.notice))
        return posted

    def _may_write(self, uid: str, now: float) -> bool:
        allowance = self._allowances.setdefault(uid, _Allowance(_BURST, now))
        self._allowances.move_to_end(uid)
        return allowance.take(now)

    def _forget_old(self, now: float) -> None:
        """Keep no more than is still of use: an allowance that is full again is as good as none."""
        while self._posted and now - next(iter(self._posted.values())).seen > _REPEATS_WITHIN:
            self._posted.popitem(last=False)
        oldest = _BURST * _REFILL_SECONDS
        while self._allowances and now - next(iter(self._allowances.values())).since > oldest:
            self._allowances.popitem(last=False)

    async def _create(self, queued: _Queued, now: float) -> None:
        # A lost reply leaves an Event that is not counted up any more, which harms nobody.
        body = _event(queued, self._instance)
        with asking(f"create an Event in namespace {queued.ref.namespace}"):
            await self._events.create_namespaced_custom_object(
                **_EVENTS, namespace=queued.ref.namespace, body=body
            )
        name = body["metadata"]["name"]
        self._posted[queued.uid, queued.notice] = _Posted(name, 1, now)

    async def _count(self, queued: _Queued, posted: _Posted) -> bool:
        """Say how often it was seen; False if the Event is there no more."""
        series = {"count": posted.count, "lastObservedTime": _time(queued.at)}
        try:
            with asking(f"patch an Event in namespace {queued.ref.namespace}"):
                await self._events.patch_namespaced_custom_object(
                    **_EVENTS,
                    namespace=queued.ref.namespace,
                    name=posted.name,
                    body={"series": series},
                    _content_type="application/merge-patch+json",
                )
        except RefusedError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _failed(self, queued: _Queued, error: PortError) -> None:
        namespace = queued.ref.namespace
        if self._trouble.get(namespace) != error.reason:
            log.warning("events in namespace %s are not recorded: %s", namespace, error)
        self._trouble[namespace] = error.reason

    def _worked(self, queued: _Queued) -> None:
        if self._trouble.pop(queued.ref.namespace, None):
            log.info("events in namespace %s are recorded again", queued.ref.namespace)


def _event(queued: _Queued, instance: str) -> dict[str, Any]:
    ref, notice = queued.ref, queued.notice
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": f"{ref.name[:_MAX_NAME].rstrip('-.')}.{uuid.uuid4().hex[:16]}",
            "namespace": ref.namespace,
        },
        "eventTime": _time(queued.at),
        "type": notice.type,
        "reason": notice.reason,
        "note": _cut(notice.message),
        "action": "Scan",
        "reportingController": f"{API_GROUP}/operator",
        "reportingInstance": instance,
        "regarding": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "namespace": ref.namespace,
            "name": ref.name,
            "uid": queued.uid,
        },
    }


def _time(when: datetime) -> str:
    """As MicroTime, the only form with fractions that the API server reads."""
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str) -> str:
    """What fits into a note; whole characters, and a sign that there was more."""
    raw = text.encode()
    if len(raw) <= _MAX_NOTE:
        return text
    return raw[: _MAX_NOTE - 3].decode(errors="ignore") + "..."
