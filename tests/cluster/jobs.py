"""PDFs in PostgreSQL, done by the pods of Jobs, and witnesses of both.

The witnesses are the kubelet, which knows what ran, and a watch on Jobs, which shows their
creations and ends in the order in which the API server committed them; never what the operator says
of itself.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import psycopg

from tests.harness.witnesses.collection import Collection
from tests.support.controlplane import ControlPlane
from tests.support.kubelet import Kubelet
from tests.support.pods import Pod
from tests.support.waiting import eventually

TABLE = "CREATE TABLE pdf (id serial PRIMARY KEY, title text, pages_created bool DEFAULT false)"
QUERY = "SELECT id AS pdf_id, title FROM pdf WHERE NOT pages_created ORDER BY id"
LAUNCH, KEY = "scannerjob.dev/launch", "scannerjob.dev/key"
_ENDS = ("Complete", "Failed")


@dataclass
class SeenJob:
    """A Job object, and when the watch showed its creation and its end (time.time())."""

    name: str
    launch: str
    key: str
    created_at: float
    ended_at: float | None = None
    deleted: bool = False

    @property
    def ended(self) -> bool:
        return self.ended_at is not None


class JobWatch:
    """All Jobs of a namespace, and how many had not ended at most at one time."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self.jobs: dict[str, SeenJob] = {}
        self.peak = 0
        path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._collection = Collection(plane.kubeconfig(), path, self._note)

    @property
    def unfinished(self) -> list[SeenJob]:
        return [job for job in list(self.jobs.values()) if not job.ended and not job.deleted]

    @property
    def kept(self) -> list[SeenJob]:
        """Those whose objects are there."""
        return [job for job in list(self.jobs.values()) if not job.deleted]

    def start(self) -> None:
        self._collection.start()

    def stop(self) -> None:
        self._collection.stop()

    def _note(self, now: float, job: dict[str, Any], gone: bool) -> None:
        metadata = job["metadata"]
        labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
        new = SeenJob(metadata["name"], labels.get(LAUNCH, ""), annotations.get(KEY, ""), now)
        seen = self.jobs.setdefault(metadata["uid"], new)
        conditions = job.get("status", {}).get("conditions") or ()
        if any(each["type"] in _ENDS and each["status"] == "True" for each in conditions):
            seen.ended_at = seen.ended_at or now
        seen.deleted |= gone
        self.peak = max(self.peak, len(self.unfinished))


class JobWorkload:
    """Rows, and the kubelet that does them. Use it as a context manager."""

    def __init__(self, plane: ControlPlane, namespace: str, database: str) -> None:
        self.plane = plane
        self.namespace = namespace
        self.database = database
        self.jobs = JobWatch(plane, namespace)
        self.kubelet = Kubelet(plane.kubeconfig(), [namespace], work=self._work)
        self.execute(TABLE)

    def insert(self, rows: int, title: str = "a title") -> None:
        self.execute("INSERT INTO pdf (title) SELECT %s FROM generate_series(1, %s)", title, rows)

    def execute(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._libpq, autocommit=True) as connection:
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    @property
    def waiting(self) -> int:
        """Rows that are not done yet."""
        ((count,),) = self.execute("SELECT count(*) FROM pdf WHERE NOT pages_created")
        return int(count)

    def wait_done(self, seconds: float = 90) -> None:
        eventually(lambda: self.waiting == 0, timeout=seconds, message="all rows are done")

    def executions(self) -> Counter[str]:
        """How often each row's program was started."""
        return Counter(pod.env["PDF_ID"] for pod in self.kubelet.started())

    def assert_all_done(self, rows: int, cap: int, seconds: float = 120) -> None:
        """All these rows come to be done once, never more than `cap` at a time, and are counted."""
        self.wait_done(seconds)
        settled(self, launched=rows, succeeded=rows, failed=0, lost=0, active=0)
        self.assert_each_row_ran_once()
        self.assert_cap_was_kept(cap)

    def assert_each_row_ran_once(self) -> None:
        assert self.waiting == 0
        ((rows,),) = self.execute("SELECT count(*) FROM pdf")
        odd = {row: count for row, count in self.executions().items() if count != 1}
        assert not odd, f"rows (id: executions) that did not run once: {odd}"
        assert len(self.executions()) == rows
        self.assert_one_job_per_launch()

    def assert_one_job_per_launch(self) -> None:
        launches = Counter(job.launch for job in self.jobs.jobs.values())
        assert max(launches.values()) == 1, launches

    def assert_no_row_ran_twice_at_once(self) -> None:
        for row in self.executions():
            runs = [pod for pod in self.kubelet.started() if pod.env["PDF_ID"] == row]
            ordered = sorted(runs, key=lambda pod: pod.started or 0)
            for first, second in pairwise(ordered):
                assert first.ended is not None, f"row {row} runs twice"
                assert first.ended <= (second.started or 0), f"row {row} ran twice at once"

    def assert_cap_was_kept(self, cap: int) -> None:
        assert 0 < self.jobs.peak <= cap
        assert 0 < self.kubelet.peak() <= cap

    def secret(self, name: str = "app-db", url: str | None = None) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace},
            "stringData": {"url": url or self.database},
        }

    def scannerjob(self, name: str = "pdf-pages", **spec: Any) -> dict[str, Any]:
        return {
            "apiVersion": "scannerjob.dev/v1alpha1",
            "kind": "ScannerJob",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "database": {"urlSecretRef": {"name": "app-db", "key": "url"}},
                "query": QUERY,
                "interval": "500ms",
                "job": {"template": template()},
                **spec,
            },
        }

    def apply(self, name: str = "pdf-pages", **spec: Any) -> None:
        """Create or change a ScannerJob for these rows, with its Secret."""
        self.plane.apply(self.secret(), self.scannerjob(name, **spec))

    def found(self, name: str = "pdf-pages") -> dict[str, Any]:
        return dict(self.plane.get("-n", self.namespace, "scj", name))

    def status(self, name: str = "pdf-pages") -> dict[str, Any]:
        return dict(self.found(name).get("status", {}))

    def items(self, name: str = "pdf-pages") -> dict[str, dict[str, Any]]:
        """What is remembered, by key."""
        return {item["key"]: item for item in self.status(name).get("items", ())}

    def ready(self, name: str = "pdf-pages") -> dict[str, Any]:
        return self.condition("Ready", name)

    def condition(self, kind: str, name: str = "pdf-pages") -> dict[str, Any]:
        found = [each for each in self.status(name).get("conditions", ()) if each["type"] == kind]
        return dict(found[0]) if found else {"status": None, "reason": None, "message": ""}

    def wait_reason(self, reason: str, name: str = "pdf-pages", seconds: float = 60) -> str:
        """Wait until `Ready` has this reason; gives its message."""

        def has() -> dict[str, Any]:
            ready = self.ready(name)
            assert ready["reason"] == reason, ready
            return ready

        return str(eventually(has, timeout=seconds, message=f"Ready is {reason}")["message"])

    def kubectl(self, *args: str) -> str:
        return self.plane.kubectl("-n", self.namespace, *args)

    def patch(self, spec: dict[str, Any], name: str = "pdf-pages") -> None:
        self.kubectl("patch", "scj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def __enter__(self) -> Self:
        self.jobs.start()
        self.kubelet.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kubelet.stop()
        self.jobs.stop()

    def _work(self, pod: Pod) -> None:
        self.execute("UPDATE pdf SET pages_created = true WHERE id = %s", int(pod.env["PDF_ID"]))

    @property
    def _libpq(self) -> str:
        return self.database.replace("postgresql+psycopg://", "postgresql://")


def template(**spec: Any) -> dict[str, Any]:
    """A JobTemplateSpec; `spec` goes into the Job's."""
    container = {"name": "pages", "image": "none", "command": ["create-pages", "$(PDF_ID)"]}
    pod = {"spec": {"containers": [container]}}
    return {"spec": {"template": pod, **spec}}


def settled(work: JobWorkload, **counts: int) -> dict[str, Any]:
    """The status, once these counters have these values."""

    def has() -> dict[str, Any]:
        status = work.status()
        told = {name: status.get(name) for name in counts}
        assert told == counts, status
        return status

    return eventually(has, timeout=90, message=f"status shows {counts}")
