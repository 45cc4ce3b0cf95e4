"""Events on a real API server, from a service account that may create and patch them only."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from scannerjob import apiserver
from scannerjob.controller.events import EventRecorder
from scannerjob.model.notice import Notice
from scannerjob.ports import Ref
from tests.cluster.workload import scannerjob
from tests.support.controlplane import ControlPlane

RIGHTS = [{"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]}]
DOWN = Notice("Warning", "DatabaseUnreachable", "db.example: connection refused")
SCANNING = Notice("Normal", "Scanning", "the query runs and its rows are launched")


class Clock:
    """The wall clock, and seconds that a test moves on."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def boottime(self) -> float:
        return self.seconds


class Cluster:
    """A ScannerJob, and what is told of it."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.plane = plane
        self.ref = Ref(namespace, "pdf-pages")
        self.clock = Clock()
        plane.apply(scannerjob(namespace))
        self.uid = plane.get("scj", "pdf-pages", "-n", namespace)["metadata"]["uid"]

    @property
    def events(self) -> list[Mapping[str, Any]]:
        """The Events there are, as the administrator sees them, the oldest first."""
        found = self.plane.get("events.events.k8s.io", "-n", self.ref.namespace)["items"]
        return sorted(found, key=lambda event: event["eventTime"])

    def told(self, *notices: Notice) -> None:
        """A recorder that is told of these and closed."""

        async def tell(recorder: EventRecorder) -> None:
            self.record(recorder, *notices)

        self.run(tell)

    def run(self, work: Callable[[EventRecorder], Awaitable[None]]) -> None:
        async def run() -> None:
            async with self._recorder() as recorder:
                await work(recorder)

        asyncio.run(run())

    def record(self, recorder: EventRecorder, *notices: Notice) -> None:
        for notice in notices:
            recorder.record(self.ref, self.uid, notice)

    async def settle(self, recorder: EventRecorder, *notices: Notice) -> None:
        """Tell of these, and wait until nothing of it is left to be done."""
        self.record(recorder, *notices)
        await asyncio.wait_for(recorder.drained(), 60)

    @asynccontextmanager
    async def _recorder(self) -> AsyncIterator[EventRecorder]:
        api = await apiserver.connect()
        recorder = EventRecorder(api, self.clock)
        try:
            yield recorder
        finally:
            await recorder.close()
            await api.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def world(cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    rights = cluster.service_account("recorder", RIGHTS, namespace=namespace)
    monkeypatch.setenv("KUBECONFIG", str(rights))
    return Cluster(cluster, namespace)


def test_kubectl_shows_what_was_recorded(world: Cluster) -> None:
    world.told(DOWN, SCANNING)
    first, second = world.events
    assert (first["type"], first["reason"], first["note"]) == (
        "Warning",
        "DatabaseUnreachable",
        "db.example: connection refused",
    )
    assert first["regarding"] == {
        "apiVersion": "scannerjob.dev/v1alpha1",
        "kind": "ScannerJob",
        "namespace": world.ref.namespace,
        "name": "pdf-pages",
        "uid": world.uid,
    }
    assert first["reportingController"] == "scannerjob.dev/operator"
    assert second["type"] == "Normal"
    about = ("-n", world.ref.namespace)
    listed = world.plane.kubectl("events", "--for", "scannerjob/pdf-pages", *about)
    described = world.plane.kubectl("describe", "scj", "pdf-pages", *about)
    for shown in (listed, described):
        assert "DatabaseUnreachable" in shown
        assert "the query runs and its rows are launched" in shown


def test_a_repetition_is_counted_on_the_event_that_is_there(world: Cluster) -> None:
    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, DOWN, SCANNING, DOWN)
        world.clock.seconds += 599
        await world.settle(recorder, DOWN)

    world.run(tell)
    first, second = world.events
    assert first["series"]["count"] == 3
    assert first["series"]["lastObservedTime"] > first["eventTime"]
    assert "series" not in second


def test_after_ten_minutes_it_is_an_event_of_its_own(world: Cluster) -> None:
    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, DOWN)
        world.clock.seconds += 601
        await world.settle(recorder, DOWN)

    world.run(tell)
    assert ["series" in event for event in world.events] == [False, False]


def test_an_event_that_was_removed_is_made_anew(world: Cluster) -> None:
    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, DOWN)
        remove = ("delete", "events.events.k8s.io", "--all", "-n", world.ref.namespace)
        await asyncio.to_thread(world.plane.kubectl, *remove)
        await world.settle(recorder, DOWN, DOWN)

    world.run(tell)
    [event] = world.events
    assert event["series"]["count"] == 2


def test_a_flood_is_bounded_for_each_object(world: Cluster) -> None:
    flood = [Notice("Warning", "Flapping", f"number {number}") for number in range(300)]

    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, *flood)
        assert len(await asyncio.to_thread(lambda: world.events)) == 10
        world.clock.seconds += 60
        await world.settle(recorder, *flood)
        recorder.record(world.ref, "another object's uid", DOWN)

    world.run(tell)
    # The first of the second flood was known, and took what the minute had brought.
    assert len(world.events) == 11
    assert sum("series" in event for event in world.events) == 1


def test_what_repeats_all_the_time_is_written_seldom_and_loses_no_count(world: Cluster) -> None:
    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, *[DOWN] * 300)
        [event] = await asyncio.to_thread(lambda: world.events)
        assert event["series"]["count"] == 10
        world.clock.seconds += 60
        await world.settle(recorder, DOWN)

    world.run(tell)
    [event] = world.events
    assert event["series"]["count"] == 301


def test_a_long_message_is_cut_between_two_characters(world: Cluster) -> None:
    world.told(Notice("Normal", "Scanning", "é" * 600))
    [event] = world.events
    assert event["note"] == "é" * 510 + "..."


def test_without_rights_there_is_one_line_and_nothing_else(
    world: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="scannerjob")
    namespace = world.ref.namespace
    none = world.plane.service_account("nobody", namespace=namespace)
    monkeypatch.setenv("KUBECONFIG", str(none))

    async def tell(recorder: EventRecorder) -> None:
        await world.settle(recorder, DOWN, SCANNING, DOWN)
        [line] = caplog.messages
        assert f"events in namespace {namespace} are not recorded" in line
        assert "cannot create resource" in line
        caplog.clear()
        await asyncio.to_thread(world.plane.service_account, "nobody", RIGHTS, namespace=namespace)
        await world.settle(recorder, SCANNING)

    world.run(tell)
    assert caplog.messages == [f"events in namespace {namespace} are recorded again"]
    assert [event["reason"] for event in world.events] == ["Scanning"]


def test_an_api_server_that_hangs_delays_nothing_and_a_stop_for_seconds(
    world: Cluster,
) -> None:
    async def tell(recorder: EventRecorder) -> None:
        world.plane.pause_apiserver()
        world.record(recorder, *[DOWN] * 2000)
        await asyncio.wait_for(recorder.close(), 60)

    try:
        world.run(tell)
    finally:
        world.plane.resume_apiserver()
    assert len(world.events) <= 1


def test_a_name_may_be_as_long_as_names_may_be(world: Cluster) -> None:
    world.ref = Ref(world.ref.namespace, "x" * 253)
    world.told(DOWN)
    [event] = world.events
    assert event["regarding"]["name"] == "x" * 253
