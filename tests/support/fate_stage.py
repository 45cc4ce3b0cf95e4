"""A stage for the scenarios of `tests.support.fates`: four ScannerJobs, one scanner, one worker.

Each ScannerJob has a row to which something happens, its victim. A bystander, added afterwards,
shows that work goes on; what the tasks recorded says how often they were executed.
"""

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from celery import Celery
from kombu.exceptions import OperationalError
from redis import RedisError

from scannerjob.model.ledger import Item, Ledger, Phase, ledger_from_status
from tests.support.celery_worker import CeleryWorker
from tests.support.fate_tasks import TASKS
from tests.support.fates import JOBS, Cell, Scenario
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import Server
from tests.support.site import Site
from tests.support.waiting import eventually


def victim(job: str) -> int:
    """The row to which it happens."""
    return 100 * JOBS.index(job) + 101


def bystander(job: str) -> int:
    """A row that nothing happens to."""
    return victim(job) + 1


class Stage:
    """What a scenario is played on; see the module."""

    def __init__(
        self,
        folder: Path,
        database: str,
        server: Server,
        broker: str,
        results: str,
        scenario: Scenario,
    ) -> None:
        self.server = server
        self.broker = broker
        self.scenario = scenario
        self.site = Site(folder, database, TASKS)
        self._launched: dict[str, Item] = {}
        self._freed: dict[str, datetime] = {}
        self._ends = ExitStack()
        self._scanner: Process | None = None
        self.site.put_secret("app-broker", broker)
        self.keep_results(results)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()
        self.site.close()

    def keep_results(self, url: str) -> None:
        """Have workers and scanners started from now on use this result backend."""
        self.results = url
        self.site.put_secret("app-results", url)

    def worker(
        self,
        happens: str = "nothing",
        *,
        concurrency: int = 6,
        queues: tuple[str, ...] = (),
        **conf: Any,
    ) -> CeleryWorker:
        """A worker with this configuration, started; it ends with the stage.

        `happens` names what tasks of victims do, once they are released, in their first execution.
        """
        env = {"CONF": json.dumps(conf), "HAPPENS": happens}
        worker = self.site.worker(
            self.broker, results=self.results, concurrency=concurrency, queues=queues, env=env
        )
        return self._ends.enter_context(worker)

    def spare_worker(self) -> CeleryWorker:
        """A worker that takes no tasks until `add_worker` is called."""
        return self.worker(queues=("idle",))

    def add_worker(self) -> None:
        """Have the spare worker take tasks, at once: it has been started before."""
        add = self.celery().control.add_consumer
        eventually(
            lambda: add("celery", reply=True, timeout=2),
            message="a worker takes tasks",
            ignoring=(RedisError, OperationalError),
        )

    def scan(self) -> Process:
        """`scannerjob run` with all four ScannerJobs, started; it ends with the stage."""
        files = [
            self.site.scanner_job(
                job,
                query=_query(job),
                celery__task="fates.work",
                **_evidence(job, self.scenario.life),
            )
            for job in JOBS
        ]
        self._scanner = self._ends.enter_context(self.site.scanner(*files))
        return self._scanner

    def launch(self) -> None:
        """Have the victims launched."""
        self._add(*map(victim, JOBS))
        eventually(
            self._note_launched, message="the victims are launched", timeout=60, ignoring=ValueError
        )

    def begin(self) -> None:
        """Have the victims launched, and begun by a worker."""
        self.launch()
        rows = sorted(map(victim, JOBS))
        eventually(lambda: self.site.executed() == rows, message="the victims run", timeout=60)

    def wait_until_acknowledged(self) -> None:
        """Until RabbitMQ has counted a worker's acknowledgement of each victim.

        One that it was about to write when it was killed is lost, and the task delivered again.
        """
        if isinstance(self.server, RabbitServer):
            queue = f"queues/{self.broker.rpartition('/')[2]}/celery"
            eventually(partial(_acknowledged, self.server, queue), timeout=60)

    def release(self) -> None:
        """Let the victims' tasks go on."""
        (self.site.folder / "release").touch()

    def wait_until_done(self) -> None:
        """Until the work of all victims is done."""
        rows = sorted(map(victim, JOBS))
        eventually(lambda: self.site.done() == rows, message="the victims are done", timeout=60)

    def celery(self) -> Celery:
        """An app of the author's own, for what an author does by hand."""
        return Celery(broker=self.broker, backend=self.results, set_as_current=False)

    def states(self) -> set[str]:
        """The states of the victims' first launches, as Celery reads them."""
        app = self.celery()
        return {app.AsyncResult(each).state for each in self.ids()}

    def task_ids(self) -> list[str | None]:
        """The task id of each execution of a victim."""
        victims = set(map(victim, JOBS))
        return [run.task_id for run in self.site.executions() if run.row in victims]

    def ids(self) -> list[str]:
        """The task ids of the victims' first launches."""
        return [item.id for item in self._launched.values()]

    def were_launched_again(self, *jobs: str) -> bool:
        """Whether the victims of these are out, by another launch than their first."""
        return all(not self._holds(job) and self.ledger(job).outstanding for job in jobs)

    def assert_held(self, *jobs: str) -> None:
        """The slots of the victims' first launches are taken; by default in all four."""
        for job in jobs or JOBS:
            assert self._holds(job), f"{job}: {self.ledger(job).items}"

    def judge(self) -> None:
        """See the bystanders done, and the victims come to what the table says of them."""
        self._add(*map(bystander, JOBS))
        eventually(self._all_settled, timeout=90, message="all that can settle")
        for job in JOBS:
            self._judge(job, self.scenario.cell(job))

    def ledger(self, job: str) -> Ledger:
        """The ledger of one of the four."""
        ledger = ledger_from_status(self.site.snapshot(job).status)
        assert ledger is not None
        return ledger

    def _all_settled(self) -> bool:
        ledgers = {job: self.ledger(job) for job in JOBS}
        for job, ledger in ledgers.items():
            if not self._is_held_in(ledger, job):
                self._freed.setdefault(job, datetime.now(UTC))
        done = set(self.site.done())
        for job, ledger in ledgers.items():
            held = self.scenario.cell(job).outcome.held
            assert held or job in self._freed, f"{job} is held"
            assert _counts(ledger) == self._expected_counts(job), job
            assert done & {victim(job), bystander(job)} == self._expected_done(job), job
        return True

    def _judge(self, job: str, cell: Cell) -> None:
        executions = self.site.executed().count(victim(job))
        assert executions == cell.executions, f"{job}: {self.site.executions()}"
        until = self._launched[job].until
        if cell.outcome.held:
            self.assert_held(job)
        elif cell.outcome.at_until:
            assert until, job
            assert until <= self._freed[job], f"{job} is freed before {until}"
        elif until:
            assert self._freed[job] < until, f"{job} waits for {until}"
        if reason := cell.outcome.reason or self.scenario.reason:
            expected = f"default/{job}: row [{victim(job)}]: {reason}"
            again = cell.outcome.counts[0] > 1
            assert (expected in self._log()) == again, f"{expected}: {self._log()}"

    def _expected_counts(self, job: str) -> tuple[int, ...]:
        """Those of the victim, and of a bystander that was launched and succeeded."""
        counts = self.scenario.cell(job).outcome.counts
        return tuple(a + b for a, b in zip(counts, (1, 1, 0, 0), strict=True))

    def _expected_done(self, job: str) -> set[int]:
        done = self.scenario.cell(job).outcome.done
        return {bystander(job), *([victim(job)] if done else [])}

    def _holds(self, job: str) -> bool:
        """Whether the slot of the victim's first launch is taken."""
        return self._is_held_in(self.ledger(job), job)

    def _is_held_in(self, ledger: Ledger, job: str) -> bool:
        return self._launched[job].id in {item.id for item in ledger.outstanding}

    def _note_launched(self) -> bool:
        items = {job: self.ledger(job).outstanding for job in JOBS}
        assert all(item.phase is Phase.LAUNCHED for (item,) in items.values())
        self._launched = {job: item for job, (item,) in items.items()}
        return True

    def _add(self, *rows: int) -> None:
        values = ", ".join(f"({row})" for row in rows)
        self.site.execute(f"INSERT INTO pdf (id) VALUES {values}")

    def _log(self) -> str:
        return self._scanner.log() if self._scanner else ""


def _acknowledged(server: RabbitServer, queue: str) -> bool:
    counted = server.ask("GET", queue).get("message_stats", {})
    return bool(counted.get("ack", 0) >= len(JOBS))


def _counts(ledger: Ledger) -> tuple[int, ...]:
    return (ledger.launched, ledger.succeeded, ledger.failed, ledger.lost)


def _query(job: str) -> str:
    rows = f"{victim(job)} AND {bystander(job)}"
    return f"SELECT id AS pdf_id FROM pdf WHERE done = 0 AND id BETWEEN {rows} ORDER BY id"


def _evidence(job: str, life: str) -> dict[str, Any]:
    """What the operator has to go by, beside the row."""
    secret = {"urlSecretRef": {"name": "app-results", "key": "url"}}
    evidence: dict[str, Any] = {}
    if job in ("results", "both"):
        evidence |= {"celery__resultBackend": secret}
    if job in ("bounded", "both"):
        evidence |= {"celery__expires": life, "deadline": life}
    return evidence
