"""A stage for the guard: workers of one app, a store, and a journal that the tasks write.

Messages are published as the operator publishes them. What was executed is told by the journal,
what the guard knows by its store.
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import psutil
from celery import Celery
from redis import RedisError

from scannerjob.worker.records import HEADER, Record, State
from scannerjob.worker.stores import open_store
from tests.support.celery_worker import CeleryWorker
from tests.support.guard_tasks import TASKS
from tests.support.waiting import eventually

# In seconds: of a process's lease, between beats, and of a thread's lease.
QUICK = (3.0, 0.5, 3.0)
# So long that no test sees one lapse.
LONG = (600.0, 1.0, 600.0)


class GuardStage:
    """See the module. Everything that it starts ends with it."""

    def __init__(self, folder: Path, broker: str, results: str, guard: str) -> None:
        self.folder = folder
        self.guard = guard
        self._broker = broker
        self._results = results
        self._ends = ExitStack()
        self._store = open_store(guard)
        (folder / "tasks.py").write_text(TASKS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        self._store.close()

    def worker(
        self,
        *,
        pool: str = "prefork",
        concurrency: int = 2,
        leases: tuple[float, float, float] = QUICK,
        on_error: str = "refuse",
        env: Mapping[str, str] | None = None,
        python: tuple[str, ...] = (sys.executable,),
        **conf: Any,
    ) -> CeleryWorker:
        """A worker with this configuration, started."""
        worker = CeleryWorker(
            self.folder / "tasks.py",
            pool=pool,
            concurrency=concurrency,
            env={**self.environment(leases, on_error, conf), **(env or {})},
            python=python,
        )
        return self._ends.enter_context(worker)

    def environment(
        self, leases: tuple[float, float, float], on_error: str, conf: Mapping[str, Any]
    ) -> dict[str, str]:
        """What the tasks' module reads."""
        return {
            "BROKER": self._broker,
            "RESULTS": self._results,
            "GUARD": self.guard,
            "LEASES": json.dumps(leases),
            "INSTALL": json.dumps({"on_error": on_error}),
            "CONF": json.dumps(conf),
        }

    def send(self, task: str, *, launch: str = "", **options: Any) -> str:
        """Publish a launch, as the operator does; its id."""
        launch = launch or str(uuid4())
        self.celery().send_task(
            f"tasks.{task}", task_id=launch, headers={HEADER: launch}, **options
        )
        return launch

    def send_plain(self, task: str, **options: Any) -> str:
        """Publish a task that the operator knows nothing of; its id."""
        return str(self.celery().send_task(f"tasks.{task}", **options).id)

    def celery(self) -> Celery:
        """An app of the author's own."""
        return Celery(broker=self._broker, backend=self._results, set_as_current=False)

    def release(self) -> None:
        """Let the tasks that wait go on."""
        (self.folder / "release").touch()

    def journal(self, launch: str = "") -> list[dict[str, Any]]:
        """What the tasks wrote; of one id."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        entries = map(json.loads, lines)
        return [each for each in entries if launch in ("", each["id"])]

    def count(self, launch: str) -> Counter[str]:
        """How often each thing is in the journal of one id."""
        return Counter(each["what"] for each in self.journal(launch))

    def pid(self, launch: str) -> int:
        """The process that began it last."""
        return int([each["pid"] for each in self.journal(launch) if each["what"] == "begin"][-1])

    def forked(self, launch: str) -> tuple[psutil.Process, psutil.Process]:
        """The process that executes a task which has forked, and the one that was forked."""
        self.wait_for("fork", launch)
        (entry,) = (each for each in self.journal(launch) if each["what"] == "fork")
        forked = psutil.Process(entry["child"])
        self._ends.callback(_kill, forked)
        return psutil.Process(entry["pid"]), forked

    def wait_for(self, what: str, launch: str, times: int = 1) -> None:
        """Until the journal has it so many times."""
        eventually(
            lambda: self.count(launch)[what] == times,
            timeout=60,
            message=f"{what} of {launch}, {times} times",
        )

    def is_guarded(self, task: str) -> bool:
        """Whether a worker has announced that it guards a task."""
        return self._store.is_guarded(f"tasks.{task}")

    def record(self, launch: str) -> Record | None:
        """What the guard's store knows of a launch."""
        return self._store.read([launch]).records.get(launch)

    def look(self, launch: str) -> tuple[float, Record]:
        """The store's clock, and the record of a launch that has one."""
        reading = self._store.read([launch])
        return reading.now, reading.records[launch]

    def remaining(self, launch: str) -> float:
        """In seconds, by the store's clock: how long the lease of a launch has still to run."""
        now, record = self.look(launch)
        assert record.until is not None
        return record.until - now

    def wait_until(self, launch: str, state: State) -> Record:
        """Until a launch is in this state."""
        eventually(
            lambda: self.certain(launch).state is state,
            timeout=60,
            message=f"{launch} is {state}",
            ignoring=RedisError,
        )
        return self.certain(launch)

    def supersede(self, launch: str) -> Record:
        """Give a launch up, as soon as its lease has lapsed."""
        eventually(lambda: self.remaining(launch) < 0, message="the lease lapses")
        return self._store.supersede([launch])[launch]

    def certain(self, launch: str) -> Record:
        """The record of a launch that has one."""
        record = self.record(launch)
        assert record, f"{launch} has no record"
        return record


def _kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()
