"""All that happens to a collection of the API server, in order, and when it came to be known."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from pathlib import Path

import urllib3

from tests.support.api import Api, ApiError, Json, Watch
from tests.support.waiting import eventually

_RETRY = 0.1
# Longer than a bookmark takes to come: without them, what a quiet collection was last seen at is
# too old to go on from.
_SILENCE = 90.0
_GONE = 410
UNANSWERED = (ApiError, urllib3.exceptions.HTTPError, OSError)
"""What may be asked again."""

Note = Callable[[float, Json, bool], None]


class Collection:
    """Tells `note` of every state of every object that a watch shows, from a first list on.

    It is called in one thread, with the time at which the state came, the object, and whether it
    is gone. A watch that ends is taken up where it ended. Where the API server has forgotten what
    came since, the collection is listed again, and `gaps` has the time in which states may have
    been missed, from the last thing that was heard on.
    """

    def __init__(self, kubeconfig: Path, path: str, note: Note) -> None:
        self.gaps: list[tuple[float, float]] = []
        self._api = Api(kubeconfig, connections=2, timeout=_SILENCE)
        self._path = path
        self._note = note
        self._lock = threading.Lock()
        self._live: dict[str, Json] = {}
        self._gone: set[str] = set()
        self._version = ""
        self._heard = 0.0
        self._watch: Watch | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._look_on, daemon=True)

    def start(self) -> None:
        """List it, once the API server answers, and watch it from there on."""
        eventually(self._list, 60, message=f"{self._path} is listed", ignoring=UNANSWERED)
        self._thread.start()

    def stop(self) -> None:
        """See no more."""
        self._stopped.set()
        if self._watch is not None:
            self._watch.close()
        self._thread.join()

    def has_caught_up(self) -> bool:
        """Whether `note` was told of all that the API server has now."""
        found = self._api.get(self._path)
        listed = {each["metadata"]["uid"]: _version(each) for each in found["items"]}
        with self._lock:
            live = {uid: _version(each) for uid, each in self._live.items()}
            changes_known = all(
                uid in self._gone or live.get(uid, 0) >= version for uid, version in listed.items()
            )
        deletions_known = all(
            uid in listed or version > _version(found) for uid, version in live.items()
        )
        return changes_known and deletions_known

    def _look_on(self) -> None:
        while not self._stopped.is_set():
            with contextlib.suppress(*UNANSWERED):
                self._follow()
            self._stopped.wait(_RETRY)

    def _follow(self) -> None:
        try:
            self._watch = self._api.watch(self._path, self._version, bookmarks=True)
            if self._stopped.is_set():  # and nobody would end this watch
                return
            for event in self._watch:
                self._see(event["type"], event["object"])
        except ApiError as error:
            if error.status != _GONE:
                raise
            self._list()

    def _see(self, kind: str, found: Json) -> None:
        if kind == "ERROR":
            raise ApiError("WATCH", self._path, found.get("code", 0), found.get("message", ""))
        now = time.time()
        if kind != "BOOKMARK":
            self._tell(now, found, gone=kind == "DELETED")
        self._version, self._heard = found["metadata"]["resourceVersion"], now

    def _list(self) -> bool:
        found = self._api.get(self._path)
        now = time.time()
        if self._heard:
            self.gaps.append((self._heard, now))
        listed = {each["metadata"]["uid"]: each for each in found["items"]}
        for uid in self._live.keys() - listed.keys():
            self._tell(now, self._live[uid], gone=True)
        for uid, each in listed.items():
            if uid not in self._live or _version(self._live[uid]) != _version(each):
                self._tell(now, each, gone=False)
        self._version, self._heard = found["metadata"]["resourceVersion"], now
        return True

    def _tell(self, now: float, found: Json, *, gone: bool) -> None:
        uid = found["metadata"]["uid"]
        self._note(now, found, gone)
        with self._lock:
            if gone:
                self._live.pop(uid, None)
                self._gone.add(uid)
            else:
                self._live[uid] = found


def _version(found: Json) -> int:
    return int(found["metadata"]["resourceVersion"])
