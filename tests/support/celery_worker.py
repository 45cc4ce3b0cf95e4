"""A Celery worker, started as its users start it: by Celery's own command line."""

import os
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self
from uuid import uuid4

from tests.support.processes import Process
from tests.support.waiting import eventually


class CeleryWorker:
    """`celery -A MODULE worker`, in a process group of its own.

        with CeleryWorker(tmp_path / "tasks.py", env={"BROKER": url}) as worker:
            ...
            worker.kill()

    `module` is the file that makes the Celery app; the worker runs in its folder. `env` is added
    to this process's environment. Use a new object for each worker; `start()` after `kill()` or
    `terminate()` starts it again under the same name.
    """

    def __init__(
        self,
        module: Path,
        *,
        env: Mapping[str, str] | None = None,
        pool: str = "prefork",
        concurrency: int = 2,
        queues: Sequence[str] = (),
        name: str | None = None,
        loglevel: str = "INFO",
        args: Sequence[str] = ("--without-gossip", "--without-mingle"),
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self.name = name or f"worker-{uuid4().hex[:8]}"
        folder = Path(tempfile.mkdtemp(prefix="celery-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        command = [
            *(*python, "-m", "celery", "-A", module.stem, "worker"),
            *("--hostname", f"{self.name}@%h", "--pool", pool),
            *("--concurrency", str(concurrency), "--loglevel", loglevel),
            *(["--queues", ",".join(queues)] if queues else []),
            *args,
        ]
        # A worker that finds a bytecode cache of the same second and size would run an older file.
        environment = {
            **os.environ,
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(folder),  # a pool that is killed leaves files behind
            **(env or {}),
        }
        self.process = Process(
            command, log=folder / f"{self.name}.log", env=environment, cwd=module.parent
        )
        self._starts = 0

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.running

    def start(self, timeout: float = 60) -> Self:
        """Start it, and return when it says that it is ready."""
        self._starts += 1
        self.process.start()
        eventually(self._is_ready, timeout=timeout, message=f"Celery worker {self.name} is ready")
        return self

    def terminate(self, timeout: float = 30) -> None:
        """SIGTERM: it finishes the tasks that it is running, and ends."""
        self.process.stop(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """SIGKILL for the worker and its pool: what a container's death is."""
        self.process.kill()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def log(self) -> str:
        return self.process.log()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _is_ready(self) -> bool:
        log = self.log()
        if not self.running:
            raise RuntimeError(f"Celery worker {self.name} ended while starting:\n{log[-4000:]}")
        return log.count(" ready.") >= self._starts
