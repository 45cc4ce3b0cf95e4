"""How long people wait: for the command line to answer, and for a new operator to launch."""

import subprocess
import sys
import time

from benchmarks.cluster import cluster, middle, operator
from benchmarks.table import Table
from tests.cluster.jobs import JobWorkload
from tests.cluster.operators import operator_account
from tests.support.processes import Process
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually

ANSWERS, STARTS = 15, 5
# In seconds.
_ANSWER_WITHIN, _LAUNCH_WITHIN = 0.3, 3.0


def run() -> Table:
    """Medians, beside that of a Python which does nothing."""
    nothing = _answer("-c", "pass")
    help_page, version = (_answer("-m", "scannerjob", word) for word in ("--help", "version"))
    launch = _first_launch()
    table = Table("From a command to what it does, medians", ["what", "s", "times"])
    table.rows += [
        ["python -c pass", f"{nothing:.2f}", str(ANSWERS)],
        ["scannerjob --help", f"{help_page:.2f}", str(ANSWERS)],
        ["scannerjob version", f"{version:.2f}", str(ANSWERS)],
        ["an operator is started, until its first Job is created", f"{launch:.2f}", str(STARTS)],
    ]
    answers = f"--help answers in {help_page:.2f} s (bar: {_ANSWER_WITHIN:g})"
    launches = f"the first Job is there after {launch:.2f} s (bar: {_LAUNCH_WITHIN:g})"
    table.bars += [(answers, help_page < _ANSWER_WITHIN), (launches, launch < _LAUNCH_WITHIN)]
    return table


def _answer(*arguments: str) -> float:
    def once() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    once()
    return middle(once() for _ in range(ANSWERS))


def _first_launch() -> float:
    with cluster() as plane, PostgresServer() as postgres:
        samples: list[float] = []
        for _ in range(STARTS):
            namespace = plane.create_namespace()
            kubeconfig = operator_account(plane, namespace)
            with JobWorkload(plane, namespace, postgres.create_database()) as work:
                work.insert(1)
                work.apply(interval="1h")
                samples.append(_until_launch(work, operator(plane, namespace, kubeconfig)))
        return middle(samples)


def _until_launch(work: JobWorkload, process: Process) -> float:
    """From the start of this operator to the event that shows its first Job."""
    began = time.time()
    with process:
        eventually(lambda: bool(work.jobs.jobs), timeout=60, message="a Job is created")
    (job,) = work.jobs.jobs.values()
    return job.created_at - began
