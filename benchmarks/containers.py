"""Celery workers as if each ran in a container: what ends, ends as a whole."""

import signal
import time

import psutil

from tests.support.celery_worker import CeleryWorker


def processes(worker: CeleryWorker) -> list[psutil.Process]:
    """All processes that this worker has started, whoever their parent is by now."""
    mark = str(worker.process.log_file.parent)
    return [each for each in psutil.process_iter() if _variable(each, "TMPDIR") == mark]


def kill(worker: CeleryWorker) -> float:
    """SIGKILL for all of them, none of which sees another one's end; when they were dead."""
    family = processes(worker)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for process in family:
            process.send_signal(number)
    worker.kill()
    psutil.wait_procs(family, timeout=15)
    return time.time()


def keep(worker: CeleryWorker) -> None:
    """Start it again if it has ended by itself, as Kubernetes does; it may not be ready yet.

    In a container nothing outlives the first process.
    """
    if not worker.running:
        kill(worker)
        worker.process.start()


def _variable(process: psutil.Process, name: str) -> str | None:
    try:
        return process.environ().get(name)
    except psutil.Error:
        return None
