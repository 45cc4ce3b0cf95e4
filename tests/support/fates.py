"""What becomes of a row when something happens to its Celery task: the table of docs/celery.md.

Each scenario is played by the test that has its name, in four ScannerJobs at once which differ in
what the operator has to go by.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import pytest

REDIS, PERSISTENT, RABBITMQ = "Redis", "Redis (AOF)", "RabbitMQ"
BOTH = (REDIS, RABBITMQ)

JOBS = ("plain", "results", "bounded", "both")
"""With the row alone to go by; with a result backend; with expires and deadline; with both."""


class Outcome(Enum):
    """The row's fate, as the table has it, and what is counted: launched, succeeded, failed, lost.

    A row that is tried again is done by its second launch.
    """

    DONE = ("done", (1, 1, 0, 0))
    DONE_LATE = ("done, free at `until`", (1, 1, 0, 0))
    DONE_HELD = ("done, held", (1, 0, 0, 0))
    HELD = ("held", (1, 0, 0, 0))
    FAILED = ("failed, again", (2, 1, 1, 0))
    UNDONE = ("still matches, again", (2, 2, 0, 0), "StillMatches")
    LOST = ("lost, again at `until`", (2, 1, 0, 1), "Lost")
    UNSTARTED = ("not counted, again at `until`", (2, 1, 0, 1), "NeverStarted")

    def __init__(self, text: str, counts: tuple[int, int, int, int], reason: str = "") -> None:
        self.text = text
        self.counts = counts
        self.reason = reason

    @property
    def held(self) -> bool:
        """Whether the slot is never freed by itself."""
        return self in (Outcome.HELD, Outcome.DONE_HELD)

    @property
    def done(self) -> bool:
        """Whether the row is done in the end."""
        return self is not Outcome.HELD

    @property
    def at_until(self) -> bool:
        """Whether `until` is what frees the slot, and nothing before it."""
        return self in (Outcome.DONE_LATE, Outcome.LOST, Outcome.UNSTARTED)


@dataclass(frozen=True)
class Cell:
    """The fate of a row in one of the four ScannerJobs, and how often its task is executed."""

    outcome: Outcome
    executions: int

    def __str__(self) -> str:
        return f"{self.outcome.text} ({self.executions})"


@dataclass(frozen=True)
class Scenario:
    """What happens, on which brokers it is played, and the row's fate in each of the JOBS.

    `reason` begins what the ledger says of a launch that failed; `life` is what `expires` and
    `deadline` are set to.
    """

    what: str
    brokers: tuple[str, ...]
    plain: Cell
    results: Cell
    bounded: Cell
    both: Cell
    reason: str = ""
    life: str = "8s"

    def cell(self, job: str) -> Cell:
        """What becomes of the row in this one."""
        cell: Cell = getattr(self, job)
        return cell

    def __str__(self) -> str:
        """A row of the table in docs/celery.md."""
        cells = (str(self.cell(job)) for job in JOBS)
        return f"| {' | '.join([self.what, ', '.join(self.brokers), *cells])} |"


def plays(name: str) -> pytest.MarkDecorator:
    """Run a test once for each broker that its scenario is played on."""
    params = [pytest.param((name, broker), id=broker) for broker in SCENARIOS[name].brokers]
    return pytest.mark.parametrize("stage", params, indirect=True)


def _done(executions: int = 1) -> Cell:
    return Cell(Outcome.DONE, executions)


_HELD, _FAILED, _LOST = Cell(Outcome.HELD, 1), Cell(Outcome.FAILED, 2), Cell(Outcome.LOST, 2)
_HELD_UNBEGUN, _LOST_UNBEGUN = Cell(Outcome.HELD, 0), Cell(Outcome.LOST, 1)
_UNSTARTED = Cell(Outcome.UNSTARTED, 1)
_DONE_HELD, _DONE_LATE = Cell(Outcome.DONE_HELD, 1), Cell(Outcome.DONE_LATE, 1)
_ALL_DONE = (_done(),) * 4
_ALL_DONE_TWICE = (_done(2),) * 4

SCENARIOS: Mapping[str, Scenario] = {
    "failure": Scenario(
        "the task raises", (REDIS,),
        _HELD, _FAILED, _LOST, _FAILED, reason="ValueError: no such page",
    ),
    "failure after commit": Scenario(
        "it commits its work, then raises", (REDIS,), *_ALL_DONE, life="1m"
    ),
    "undone": Scenario(
        "it ends well, and its row still matches", (REDIS,),
        _HELD, Cell(Outcome.UNDONE, 2), _LOST, Cell(Outcome.UNDONE, 2),
    ),
    "retry": Scenario(
        "it calls `self.retry`, and succeeds the second time", (REDIS,), *_ALL_DONE_TWICE, life="1m"
    ),
    "retry too late": Scenario(
        "it calls `self.retry` with a countdown that ends after `expires`", (REDIS,),
        _done(2), _done(2), _LOST, Cell(Outcome.UNSTARTED, 2),
    ),
    "soft time limit": Scenario(
        "it exceeds its soft time limit", (REDIS,),
        _HELD, _FAILED, _LOST, _FAILED, reason="SoftTimeLimitExceeded",
    ),
    "hard time limit": Scenario(
        "it exceeds its hard time limit, which `deadline` sets", (REDIS,),
        _HELD, _FAILED, _LOST, _FAILED, reason="TimeLimitExceeded",
    ),
    "ignore": Scenario("it raises `Ignore()`", (REDIS,), _HELD, _HELD, _LOST, _LOST),
    "ignore after commit": Scenario(
        "it commits its work, then raises `Ignore()`", (REDIS,),
        _done(), _DONE_HELD, _done(), _DONE_LATE,
    ),
    "ignore_result": Scenario(
        "it has `ignore_result`, and succeeds", (REDIS,), _done(), _DONE_HELD, _done(), _DONE_LATE
    ),
    "memory error": Scenario(
        "it raises `MemoryError`, which ends the whole worker", (REDIS,),
        _HELD, _FAILED, _LOST, _FAILED, reason="MemoryError",
    ),
    "child killed": Scenario(
        "the pool's process that runs it is killed", (REDIS,),
        _HELD, _FAILED, _LOST, _FAILED, reason="WorkerLostError",
    ),
    "child killed, requeued": Scenario(
        "the same with `acks_late` and `task_reject_on_worker_lost`: delivered again", BOTH,
        *_ALL_DONE_TWICE, life="1m",
    ),
    "worker killed": Scenario(
        "the whole worker is killed: what running out of memory is in a container", BOTH,
        _HELD, _HELD, _LOST, _LOST,
    ),
    "worker killed, late acks": Scenario(
        "the same with `acks_late`: delivered again, on Redis after `visibility_timeout`", BOTH,
        *_ALL_DONE_TWICE, life="1m",
    ),
    "worker killed, delivered late": Scenario(
        "the same, and delivered again only after `until`", (REDIS,),
        _done(2), _done(2), _LOST, _LOST,
    ),
    "warm shutdown": Scenario(
        "the worker gets SIGTERM, and ends its tasks first", (REDIS,), *_ALL_DONE, life="1m"
    ),
    "cold shutdown": Scenario(
        "the worker gets SIGQUIT, and drops its tasks", (REDIS,), _HELD, _HELD, _LOST, _LOST
    ),
    "revoked": Scenario(
        "it is revoked before it starts", (REDIS,),
        _HELD_UNBEGUN, _HELD_UNBEGUN, _LOST_UNBEGUN, _UNSTARTED,
    ),
    "terminated": Scenario(
        "it is revoked with `terminate` while it runs", (REDIS,),
        _HELD, _HELD, _LOST, Cell(Outcome.UNSTARTED, 2),
    ),
    "revoked without workers": Scenario(
        "it is revoked while no worker is there to hear it", (REDIS,), *_ALL_DONE, life="1m"
    ),
    "no worker": Scenario(
        "no worker comes before `expires` has passed", BOTH,
        _done(), _done(), _UNSTARTED, _UNSTARTED,
    ),
    "busy worker": Scenario(
        "a worker has fetched it, but is busy until `expires` has passed", BOTH,
        _done(), _done(), _UNSTARTED, _UNSTARTED,
    ),
    "purged": Scenario(
        "the queue is purged", BOTH,
        _HELD_UNBEGUN, _HELD_UNBEGUN, _LOST_UNBEGUN, _LOST_UNBEGUN,
    ),
    "restart that loses messages": Scenario(
        "the broker restarts without persistence before the task starts", (REDIS,),
        _HELD_UNBEGUN, _HELD_UNBEGUN, _LOST_UNBEGUN, _LOST_UNBEGUN,
    ),
    "restart that keeps messages": Scenario(
        "the broker restarts with persistence before the task starts", (PERSISTENT, RABBITMQ),
        *_ALL_DONE, life="1m",
    ),
    "restart while it runs": Scenario(
        "the broker restarts while the task runs", (REDIS, RABBITMQ), *_ALL_DONE, life="1m"
    ),
    "restart while it runs, late acks": Scenario(
        "the same with `acks_late`", (RABBITMQ,), *_ALL_DONE_TWICE, life="1m"
    ),
    "visibility timeout": Scenario(
        "with `acks_late`, it runs for longer than `visibility_timeout`", (REDIS,),
        *_ALL_DONE_TWICE, life="1m",
    ),
    "result backend down": Scenario(
        "the result backend is down when it ends, with `result_backend_always_retry`", (REDIS,),
        *_ALL_DONE, life="1m",
    ),
    "result given up": Scenario(
        "the result backend is down when it ends, until the worker gives up", (REDIS,),
        _done(), _DONE_HELD, _done(), _DONE_LATE, life="30s",
    ),
    "result expired": Scenario(
        "its result expires before anyone reads it", (REDIS,),
        _done(), _DONE_HELD, _done(), _DONE_LATE, life="15s",
    ),
}  # fmt: skip
