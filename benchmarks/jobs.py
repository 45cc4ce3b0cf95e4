"""Jobs on a real API server with the real Job controller: refilling slots, a burst, the status.

What is measured is what a watch on Jobs shows. The pods' programs are a stand-in kubelet's.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

from benchmarks.cluster import cluster, job, middle
from benchmarks.cluster import operator as make_operator
from benchmarks.table import Table, percentile
from tests.cluster.jobs import JobWorkload
from tests.cluster.operators import operator_account
from tests.support.api import Api
from tests.support.controlplane import ControlPlane
from tests.support.pods import Fate
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually

ROWS, CAP, SECONDS = 200, 10, 1.0
BURST = 1000
KEY_LENGTH = 40


def refill() -> Table:
    """200 rows of a second each, cap 10: by ScannerJob, and by a loop that polls once a second."""
    with _scene() as (plane, postgres):
        ours = _Run(*_scan(plane, postgres, ROWS, CAP, SECONDS))
        naive = _Run(*_poll_loop(plane, postgres))
    table = Table(
        f"{ROWS} rows of {SECONDS:g} s as Jobs, cap {CAP}",
        ["way", "makespan, s", "ideal, s", "slots used", "refill p50, ms", "p95, ms", "peak"],
    )
    table.rows += [ours.row("ScannerJob"), naive.row("a loop that polls once a second")]
    p95, used = percentile(ours.refills, 0.95), ours.used
    table.bars += [
        (f"p95 from Complete to the next Job is {p95 * 1000:.0f} ms (bar: 150)", p95 <= 0.150),
        (f"{used:.0%} of the slots are used (bar: 95%)", used >= 0.95),
        (f"{ours.peak} Jobs at once (cap: {CAP})", ours.peak <= CAP),
    ]
    return table


class _Run:
    """What the watch showed of one run: when Jobs were created, and when they ended."""

    def __init__(self, created: Sequence[float], ended: Sequence[float], cap: int) -> None:
        self._cap = cap
        self._created, self._ended = sorted(created), sorted(ended)
        # The n-th end makes room for the Job that is n-th after the first `cap`.
        self.refills = [
            max(0.0, new - end) for end, new in zip(self._ended, self._created[cap:], strict=False)
        ]
        self.makespan = self._ended[-1] - self._created[0]

    @property
    def peak(self) -> int:
        changes = [(at, 1) for at in self._created] + [(at, -1) for at in self._ended]
        level = peak = 0
        for _, change in sorted(changes):
            level += change
            peak = max(peak, level)
        return peak

    @property
    def used(self) -> float:
        """The share of the slots' time that a Job filled, as long as rows were waiting."""
        first, last = self._created[0], self._created[-1]
        filled = sum(last - at for at in self._created)
        filled -= sum(max(0.0, last - at) for at in self._ended)
        return filled / (self._cap * (last - first))

    @property
    def ideal(self) -> float:
        """Slots that are never empty, with Jobs as long as these were."""
        pairs = zip(self._created, self._ended, strict=True)
        return len(self._created) / self._cap * middle(end - at for at, end in pairs)

    def row(self, way: str) -> Sequence[str]:
        return [
            way,
            f"{self.makespan:.1f}",
            f"{self.ideal:.1f}",
            f"{self.used:.0%}",
            f"{percentile(self.refills, 0.5) * 1000:.0f}",
            f"{percentile(self.refills, 0.95) * 1000:.0f}",
            str(self.peak),
        ]


def burst() -> Table:
    """1,000 rows at cap 1,000, beside as many creates of the same Jobs by 32 threads."""
    with _scene() as (plane, postgres):
        created, _, _ = _scan(plane, postgres, BURST, BURST, 3600, wait_for_end=False)
        ours = BURST / (max(created) - min(created))
        with _workload(plane, postgres, 3600) as work:
            began = time.perf_counter()
            with ThreadPoolExecutor(32) as pool:
                list(pool.map(_creator(work), range(BURST)))
            plain = BURST / (time.perf_counter() - began)
    table = Table(f"A burst of {BURST:,} Jobs", ["way", "Jobs/s"])
    table.rows += [["ScannerJob", f"{ours:.0f}"], ["plain creates, 32 at a time", f"{plain:.0f}"]]
    table.bars += [
        (f"{ours:.0f} Jobs/s (bar: 40), {ours / plain:.0%} of plain creates", ours >= 40)
    ]
    return table


def status() -> Table:
    """The object with 1,000 launches out, and with as many failures beside them."""
    with _scene() as (plane, postgres), _workload(plane, postgres, 3600) as work:
        work.execute(f"UPDATE pdf SET title = lpad(id::text, {KEY_LENGTH}, 'k')")
        _insert(work, BURST)
        query = f"SELECT lpad(id::text, {KEY_LENGTH}, 'k') AS k, id AS pdf_id FROM pdf ORDER BY id"
        _start(plane, work, query=query, concurrency=BURST, cap=BURST)
        full = work.status()
        outstanding = _size(full)
        puts = _status_puts(plane)
    failures = [
        {
            **item,
            "phase": "Parked",
            "reason": "OOMKilled (exit code 137)",
            "attempt": 3,
            "key": json.dumps([f"f{number:0{KEY_LENGTH - 1}}"]),
        }
        for number, item in enumerate(full["items"])
    ]
    both = _size({**full, "items": full["items"] + failures})
    table = Table("The status", ["items", "KiB"])
    table.rows += [["1,000 outstanding", f"{outstanding:.0f}"]]
    table.rows += [["1,000 outstanding and 1,000 failed", f"{both:.0f}"]]
    table.bars += [
        (f"{outstanding:.0f} KiB with 1,000 outstanding (bar: 256)", outstanding <= 256),
        (f"{both:.0f} KiB with the failure list full (bar: 512)", both <= 512),
        (f"{puts} writes of the status for 1,000 launches (bar: 10)", puts <= 10),
    ]
    return table


@contextmanager
def _scene() -> Iterator[tuple[ControlPlane, PostgresServer]]:
    with cluster() as plane, PostgresServer() as postgres:
        yield plane, postgres


@contextmanager
def _workload(
    plane: ControlPlane, postgres: PostgresServer, seconds: float
) -> Iterator[JobWorkload]:
    namespace = plane.create_namespace("bench")
    with JobWorkload(plane, namespace, postgres.create_database()) as work:
        work.kubelet.fate = lambda pod: Fate(seconds)
        yield work


def _insert(work: JobWorkload, rows: int) -> None:
    work.insert(rows)


def _start(plane: ControlPlane, work: JobWorkload, cap: int, **spec: Any) -> None:
    """Run an operator until so many launches are out."""
    work.apply(**spec)
    process = make_operator(plane, work.namespace, operator_account(plane, work.namespace))
    with process:
        eventually(lambda: work.status().get("active") == cap, timeout=120)


def _scan(
    plane: ControlPlane,
    postgres: PostgresServer,
    rows: int,
    cap: int,
    seconds: float,
    *,
    wait_for_end: bool = True,
) -> tuple[Sequence[float], Sequence[float], int]:
    """What the watch saw of an operator that does these rows: times of creation and of end."""
    with _workload(plane, postgres, seconds) as work:
        work.insert(rows)
        process = make_operator(plane, work.namespace, operator_account(plane, work.namespace))
        with process:
            work.apply(concurrency=cap, interval="30s")
            wanted = rows if wait_for_end else 0
            eventually(lambda: _has(work, rows, wanted), timeout=300, interval=0.5)
        return *_times(work), cap


def _poll_loop(
    plane: ControlPlane, postgres: PostgresServer
) -> tuple[Sequence[float], Sequence[float], int]:
    """What many write by hand: once a second, count the Jobs and create what is missing."""
    with _workload(plane, postgres, SECONDS) as work:
        work.insert(ROWS)
        create, numbers = _creator(work), count()
        while not _has(work, ROWS, ended=ROWS):
            free = min(CAP - len(work.jobs.unfinished), ROWS - len(work.jobs.jobs))
            for _ in range(free):
                create(next(numbers))
            time.sleep(1)
        return *_times(work), CAP


def _has(work: JobWorkload, created: int, ended: int) -> bool:
    jobs = list(work.jobs.jobs.values())
    return len(jobs) >= created and sum(job.ended for job in jobs) >= ended


def _times(work: JobWorkload) -> tuple[list[float], list[float]]:
    """When Jobs were created, and when they ended."""
    jobs = work.jobs.jobs.values()
    return [job.created_at for job in jobs], [job.ended_at for job in jobs if job.ended_at]


def _creator(work: JobWorkload) -> Callable[[int], object]:
    """Creates the Job of row n + 1 as ScannerJob would write it, but by hand."""
    api = Api(work.plane.kubeconfig(), connections=32)
    path = f"/apis/batch/v1/namespaces/{work.namespace}/jobs"

    def create(number: int) -> object:
        template: dict[str, Any] = json.loads(json.dumps(job("work", "$(PDF_ID)")["template"]))
        pod = template["spec"]["template"]["spec"]
        pod["restartPolicy"] = "Never"
        pod["containers"][0]["env"] = [{"name": "PDF_ID", "value": str(number + 1)}]
        template["spec"]["backoffLimit"] = 0
        metadata = {"name": f"work-{number}", "namespace": work.namespace}
        return api.create(path, {"metadata": metadata, **template})

    return create


def _status_puts(plane: ControlPlane) -> int:
    """How often a ScannerJob's status was written, as the API server counted."""
    metrics = plane.kubectl("get", "--raw", "/metrics")
    lines = [line for line in metrics.splitlines() if line.startswith("apiserver_request_total{")]
    puts = [line for line in lines if 'resource="scannerjobs"' in line and 'verb="PUT"' in line]
    return sum(int(float(line.rsplit(" ", 1)[1])) for line in puts)


def _size(document: object) -> float:
    """In KiB, as it is stored."""
    return len(json.dumps(document, separators=(",", ":")).encode()) / 1024
