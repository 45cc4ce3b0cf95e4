"""Launches, put together from the ledgers, messages, Jobs, pods and executions that name them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from tests.proof.history import Excuse, Execution, History, Job, Message, Moment, Pod


@dataclass(frozen=True)
class Launch:
    """One launch, and all that was seen of it. It begins with its first message, or its Job.

    `uid` is its ScannerJob; None of one that nobody saw claimed. From `excused` on nothing can be
    said of it.
    """

    id: str
    uid: str | None
    row: str
    begun: float
    messages: Sequence[Message] = ()
    jobs: Sequence[Job] = ()
    pods: Sequence[Pod] = ()
    executions: Sequence[Execution] = ()
    excused: float = inf

    @property
    def finals(self) -> list[Execution]:
        """Its executions but for those that gave themselves back."""
        return [run for run in self.executions if run.outcome != "retried"]

    @property
    def time_limit(self) -> float:
        """How long an execution of it can last."""
        return max((message.time_limit for message in self.messages), default=inf)

    @property
    def expires(self) -> float:
        """After this no worker starts it."""
        return max((message.expires for message in self.messages), default=inf)

    def begin(self) -> Moment:
        """Its begin as a line."""
        return self.messages[0].moment() if self.messages else next(self.jobs[0].moments())

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        yield from (message.moment() for message in self.messages)
        for job in self.jobs:
            yield from job.moments()
        for run in self.executions:
            yield from run.moments()


def launches_of(history: History) -> list[Launch]:
    """All, in the order in which they began."""
    ids = {**history.jobs_of, **history.messages_of}
    return sorted((_launch(history, each) for each in ids), key=lambda launch: launch.begun)


def _launch(history: History, name: str) -> Launch:
    messages = history.messages_of.get(name, [])
    jobs = sorted(history.jobs_of.get(name, ()), key=lambda job: job.created)
    executions = history.executions_of.get(name, [])
    uid = _uid(history, name, jobs)
    row = messages[0].row if messages else jobs[0].row
    begun = messages[0].time if messages else jobs[0].created
    workers = {run.worker for run in executions}
    excuses = (each for each in history.excuses if _is_about(each, name, row, uid, workers))
    excused = min((each.since for each in excuses if begun <= each.since), default=inf)
    pods = history.pods_of.get(name, [])
    return Launch(name, uid, row, begun, messages, jobs, pods, executions, excused)


def _uid(history: History, name: str, jobs: Sequence[Job]) -> str | None:
    claims = history.claims.get(name)
    return next((job.owner for job in jobs if job.owner), claims[0].uid if claims else None)


def _is_about(excuse: Excuse, name: str, row: str, uid: str | None, workers: set[str]) -> bool:
    return (
        excuse.launch in (None, name)
        and excuse.row in (None, row)
        and excuse.uid in (None, uid)
        and (excuse.worker is None or excuse.worker in workers)
    )
