"""The story of the demo, from the first row to the verdict."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from scannerjob.demo.judge import Kill
from scannerjob.demo.processes import Process, start_scanner, start_worker, stop_all
from scannerjob.demo.screen import Screen, look
from scannerjob.demo.stage import CAP, FIRST_ROWS, Stage
from scannerjob.demo.witness import all_are_begun, read_executions, undelivered
from scannerjob.worker.records import LEASE

_MORE_ROWS = 6
# The verdict is told within MAX_SECONDS, whatever happens.
_END_AFTER = 70.0
_STEP = 0.05
_NAMES = ("worker-1", "worker-2")


class PlayError(Exception):
    """The demo could not be played to its end; `log` may tell why."""

    def __init__(self, message: str, process: Process) -> None:
        self.process = process
        super().__init__(message)


class Play:
    """One run of the demo on a stage that is set up."""

    def __init__(self, stage: Stage, screen: Screen) -> None:
        self._stage = stage
        self._screen = screen
        self._began = time.monotonic()
        self._processes: list[Process] = []
        self.kills: list[Kill] = []

    @property
    def seconds(self) -> float:
        """How long it has been playing."""
        return time.monotonic() - self._began

    def perform(self) -> None:
        """Everything up to the moment when nothing is left to do, or time is up."""
        workers = {name: self._start(start_worker(self._stage, name)) for name in _NAMES}
        self._screen.say("two Celery workers are starting, with two processes each")
        self._wait(lambda: all(worker.log_says(" ready.") for worker in workers.values()))
        self._start(start_scanner(self._stage))
        self._screen.say(f"scannerjob run: {FIRST_ROWS} PDFs to do, at most {CAP} at a time")
        self._wait(lambda: self._finished() >= 2)
        self._stage.add_rows(_MORE_ROWS)
        self._screen.say(f"{_MORE_ROWS} new rows inserted")
        self._kill(workers["worker-1"])
        self._wait(self._all_is_quiet)

    def stop(self) -> None:
        """Stop all that was started."""
        stop_all(self._processes)

    def _start(self, process: Process) -> Process:
        self._processes.append(process)
        return process

    def _wait(self, condition: Callable[[], bool]) -> None:
        killed = {kill.worker for kill in self.kills}
        while not condition() and self.seconds < _END_AFTER:
            for process in self._processes:
                if not process.running and process.name not in killed:
                    raise PlayError(f"{process.name} ended by itself", process)
            self._screen.show(look(self._stage, _NAMES, self.kills))
            time.sleep(_STEP)

    def _finished(self) -> int:
        return sum(run.ended is not None for run in read_executions(self._stage))

    def _running_on(self, worker: Process) -> list[int]:
        runs = read_executions(self._stage)
        return [run.row for run in runs if run.worker == worker.name and run.ended is None]

    def _kill(self, worker: Process) -> None:
        """SIGKILL for a whole worker that is at work: it is frozen to make sure, then killed.

        This is what running out of memory is in a container.
        """
        self._wait(lambda: self._freeze_at_work(worker))
        rows = ", ".join(map(str, self._running_on(worker)))
        worker.kill()
        self.kills.append(Kill(worker.name, time.time()))
        self._screen.say(
            f"{worker.name} killed with SIGKILL, and all it had started, at work on PDF {rows}: "
            "nobody of it is left to tell. The other worker finds its journal, and these rows run "
            f"again in some seconds (from another machine: once their leases of {LEASE:.0f} s have "
            "lapsed); the others go on meanwhile"
        )

    def _freeze_at_work(self, worker: Process) -> bool:
        if not self._running_on(worker):
            return False
        worker.signal(signal.SIGSTOP)
        if self._running_on(worker) and all_are_begun(self._stage):
            return True
        worker.signal(signal.SIGCONT)
        return False

    def _all_is_quiet(self) -> bool:
        """Everything is done, and stays so: nothing is queued, running, or launched once more."""
        view = look(self._stage, _NAMES, self.kills)
        busy = view.backlog or view.claimed or view.launched or undelivered(self._stage)
        return not busy and not any(worker.running for worker in view.workers)
