"""What people do to a ScannerJob beside changing its spec."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.misoperations.scene import Scene, good_secret
from tests.proof.history import Fault
from tests.support.api import ApiError

# So long something takes at most, on a machine with much else to do.
PATIENCE = 90.0
_MERGE = "application/merge-patch+json"


class Deeds:
    """Each method does one thing, holds it for some seconds, and asserts what is to come of it."""

    def __init__(self, scene: Scene, seconds: float) -> None:
        self._scene = scene
        self._seconds = seconds

    def scale(self, cap: int) -> None:
        """As `kubectl scale` does."""
        self._scale(cap)
        assert self._scene.get()["spec"]["concurrency"] == cap
        self._hold()

    def scale_beyond(self) -> None:
        """To more than there may be."""
        with _refused("spec.concurrency"):
            self._scale(1001)

    def label(self) -> None:
        """With labels of a person's own."""
        self._scene.annotate({"labels": {"team": "docs", "app.kubernetes.io/managed-by": "hand"}})
        self._hold()

    def label_badly(self) -> None:
        """With what is no label."""
        with _refused("metadata.labels"):
            self._scene.annotate({"labels": {"team": "no label!"}})

    def annotate(self) -> None:
        """With garbage, under names that have a meaning."""
        names = ("ledger", "requested-accept-lost-ledger", "requested-nothing", "key", "attempt")
        garbage = dict.fromkeys(
            (f"scannerjob.dev/{name}" for name in names), "garbage \n\u0007" * 99
        )
        self._scene.annotate({"annotations": garbage})
        self._hold()

    def annotate_much(self) -> None:
        """With requests of which nobody knows."""
        names = (f"scannerjob.dev/requested-{number}" for number in range(100))
        self._scene.annotate({"annotations": dict.fromkeys(names, "please")})
        self._hold()

    def take_mark_away(self) -> None:
        """The mark that says that there is a ledger."""
        self._scene.annotate({"annotations": {"scannerjob.dev/ledger": None}})
        self._hold()

    def delete_held(self) -> None:
        """Delete it, while a finalizer that is not ours keeps it."""
        self._scene.annotate({"finalizers": ["example.com/of-another"]})
        self._delete()
        self._hold()
        assert "deletionTimestamp" in self._scene.get()["metadata"]
        self._scene.annotate({"finalizers": None})
        self._make_again()

    def make_again(self) -> None:
        """Delete it and make it again while what it has launched goes on."""
        self._delete()
        self._make_again()
        self._hold()

    def lose_secret(self) -> None:
        """Delete a Secret, and put it back."""
        self._scene.stage.api.delete(f"/api/v1/namespaces/{self._scene.name}/secrets/database")
        self._hold()
        self._scene.put_secret("database", good_secret(self._scene.stage.database_url))

    def spoil_secret(self) -> None:
        """Overwrite what a Secret holds, and put it back."""
        self._scene.put_secret("database", {"url": b"garbage", "also": b""})
        self._hold()
        self._scene.put_secret("database", good_secret(self._scene.stage.database_url))

    def allow_no_jobs(self) -> None:
        """Give the namespace a quota that leaves no room for a Job."""
        collection = f"/api/v1/namespaces/{self._scene.name}/resourcequotas"
        quota = {"metadata": {"name": "none"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
        begin = time.time()
        self._scene.stage.api.create(collection, quota)
        try:
            refused = self._scene.until(lambda: "quota" in self._told(), PATIENCE)
            assert refused, f"no word of the quota: {self._told()}"
            self._hold()
        finally:
            self._scene.stage.api.delete(f"{collection}/none")
            # It is the neighbour's namespace too.
            self._scene.faults.append(Fault("hand", begin, time.time()))

    def _told(self) -> str:
        ready = self._scene.ready()
        return str(ready.get("message", "")) if ready.get("status") == "False" else ""

    def _scale(self, cap: int) -> None:
        body = {"spec": {"replicas": cap}}
        path = f"{self._scene.path}/scale"
        self._scene.stage.api.request("PATCH", path, body, content=_MERGE)

    def _delete(self) -> None:
        self._scene.stage.api.delete(f"{self._scene.path}?propagationPolicy=Background")

    def _make_again(self) -> None:
        assert self._scene.until(self._is_gone, PATIENCE), "it is deleted, and still there"
        self._scene.create()

    def _is_gone(self) -> bool:
        try:
            self._scene.get()
        except ApiError as error:
            return error.status == 404
        return False

    def _hold(self) -> None:
        self._scene.until(lambda: False, self._seconds)


@contextmanager
def _refused(names: str) -> Iterator[None]:
    refusal = None
    try:
        yield
    except ApiError as error:
        refusal = error
    assert_refused(refusal, names)


def assert_refused(refusal: ApiError | None, names: str) -> None:
    """It was refused as wrong, by a name of what is wrong; several are between bars."""
    assert refusal, f"it is not refused, though {names} is wrong"
    assert refusal.status in (400, 422), str(refusal)
    assert any(each in str(refusal) for each in names.split("|")), f"{names} is not in: {refusal}"
