"""Which events are heard, by whom, and that no hint is lost."""

import gc
import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.event_streams import ended
from scannerjob.targets.celery.events import Listener
from tests.support.waiting import eventually

END = {"type": "task-succeeded", "uuid": "a"}


@pytest.mark.parametrize("kind", ["task-succeeded", "task-failed", "task-revoked", "task-rejected"])
def test_these_say_that_a_task_has_ended(kind: str) -> None:
    assert ended(json.dumps({"type": kind, "uuid": "a", "hostname": "w"})) == ["a"]


@pytest.mark.parametrize(
    "kind", ["task-sent", "task-received", "task-started", "task-retried", "worker-offline"]
)
def test_these_do_not(kind: str) -> None:
    assert ended(json.dumps({"type": kind, "uuid": "a"})) == []


def test_events_come_in_groups() -> None:
    group = [END, {"type": "task-started", "uuid": "b"}, {"type": "task-failed", "uuid": "c"}]

    assert ended(json.dumps(group)) == ["a", "c"]


@pytest.mark.parametrize(
    "message",
    [
        *("", "no JSON", b"\xff\xfe\x00", "null", "7", '"task-succeeded"', "[]", "{}"),
        "[" * 100_000,
        "9" * 10_000,
        json.dumps({"type": "task-succeeded"}),
        json.dumps({"type": "task-succeeded", "uuid": 7}),
        json.dumps({"type": "task-succeeded", "uuid": ["a"]}),
        json.dumps({"type": ["task-succeeded"], "uuid": "a"}),
        json.dumps({"type": {}, "uuid": "a"}),
        json.dumps([None, [END], "x"]),
        json.dumps({**END, "result": "x" * 2_000_000}),
    ],
)
def test_garbage_says_nothing(message: bytes | str) -> None:
    assert ended(message) == []


class Stream:
    """Gives the ids that are put into it; what is an error is raised."""

    def __init__(self) -> None:
        self.coming: SimpleQueue[str | Exception] = SimpleQueue()
        self.subscribed = 0
        self.closed = 0

    def __call__(self) -> "Stream":
        return self

    def subscribe(self) -> None:
        self.subscribed += 1

    def receive(self) -> Sequence[str]:
        try:
            each = self.coming.get(timeout=0.01)
        except Empty:
            return []
        if isinstance(each, Exception):
            raise each
        return [each]

    def close(self) -> None:
        self.closed += 1


def listener(stream: Callable[[], Any], silent: set[str] | None = None) -> Listener:
    return Listener(Endpoint("broker", "redis://:c4n4ry@broker/0"), stream, silent or set())


def test_nobody_listens_before_something_is_out() -> None:
    stream = Stream()
    watch = listener(stream).watch(lambda: None)

    watch.take([])
    assert not threads()

    watch.expect(["a"])
    eventually(lambda: stream.subscribed, message="it listens")


def test_a_hint_is_for_the_one_whose_launch_it_was_and_wakes_it_once() -> None:
    stream, woken = Stream(), SimpleQueue[str]()
    shared = listener(stream)
    one, two = shared.watch(partial(woken.put, "one")), shared.watch(partial(woken.put, "two"))
    assert (one.take([]), two.take([])) == (True, True)
    two.expect(["b"])
    assert woken.get(timeout=30) == "two"
    assert (one.take(["a"]), two.take(["b"])) == (False, True)

    for each in ("other", "a", "a", "a", "b"):
        stream.coming.put(each)

    assert [woken.get(timeout=30), woken.get(timeout=30)] == ["one", "two"]
    assert woken.empty()
    assert (one.take([]), two.take(["b"])) == (True, True)
    assert (one.take([]), two.take(["b"])) == (False, False)


def test_what_ends_before_anybody_listens_is_a_reason_to_look() -> None:
    watch = listener(Stream()).watch(lambda: None)

    assert watch.take(["a"])


def test_what_is_out_no_more_is_heard_no_more() -> None:
    stream, woken = Stream(), SimpleQueue[str]()
    shared = listener(stream)
    watch, other = shared.watch(partial(woken.put, "it")), shared.watch(partial(woken.put, "other"))
    assert (watch.take([]), other.take([])) == (True, True)
    watch.expect(["a", "b"])
    assert woken.get(timeout=30) == "it"
    assert (watch.take(["b"]), other.take(["c"])) == (True, False)

    for each in ("a", "c"):
        stream.coming.put(each)

    assert woken.get(timeout=30) == "other"
    assert not watch.take(["b"])


def test_a_connection_that_fails_is_closed_and_made_anew_and_told_of_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scannerjob.targets.celery.events.random.uniform", lambda *_: 0.01)
    stream = Stream()
    watch = listener(stream).watch(lambda: None)
    watch.take(["a"])
    for _ in range(3):
        stream.coming.put(OSError("no way to c4n4ry"))

    eventually(lambda: stream.subscribed == 4, message="it listens again")

    assert stream.closed == 3
    (told,) = [each.getMessage() for each in caplog.records]
    assert told.startswith("broker broker:6379/0: no way to ***; until its events are heard")
    assert watch.take(["a"])


def test_its_thread_ends_with_the_last_watch_and_begins_anew_after_it_was_closed() -> None:
    stream = Stream()
    shared = listener(stream)
    watch = shared.watch(lambda: None)
    watch.expect(["a"])
    eventually(lambda: stream.subscribed == 1, message="it listens")

    shared.close()
    eventually(lambda: stream.closed == 1, message="its connection is closed")
    watch.take(["a"])
    eventually(lambda: stream.subscribed == 2, message="it listens again")

    del shared, watch
    gc.collect()
    eventually(lambda: not threads(), message="its thread has ended")
    assert stream.closed == 2


def threads() -> list[threading.Thread]:
    """Those of this file's broker, and of no other test's."""
    return [each for each in threading.enumerate() if each.name == "events of broker broker:6379/0"]
