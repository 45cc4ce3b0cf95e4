"""What was observed of a run, from outside: nothing in it was told by the operator but its ledger.

All times are seconds by one machine's clock, and err to one side, so that an overlap in a history
is one in the world: **what begins is noted when it has begun, or later; what ends before it ends,
or at that moment**. A worker's death is noted before the signal is sent, a fault's begin once
nothing gets through any more, its end before it is lifted, the end of a row's match no later than
that of the execution which did its work. What a watch shows bears the time at which it came, and
all that one list shows bears the same time; it comes late by `Promised.slack` at most.

A row is named by its key as the ledger has it, for example `[7]`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from math import inf
from typing import Any, Literal, TypeVar

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_OUT = ("Claimed", "Launched")


@dataclass(frozen=True, order=True)
class Moment:
    """One line of an excerpt."""

    time: float
    text: str

    def __str__(self) -> str:
        return f"{self.time:12.3f}  {self.text}"


@dataclass(frozen=True)
class Version:
    """A ScannerJob as a watch showed it; `deleted` also while it only waits for its deletion."""

    time: float
    uid: str
    version: str
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    deleted: bool = False

    @property
    def cap(self) -> int:
        """How many launches may be out; none of one that is suspended or deleted."""
        if self.deleted or self.spec.get("suspend"):
            return 0
        return int(self.spec.get("concurrency", 10))

    @property
    def interval(self) -> float:
        """How long it waits before it looks again."""
        return seconds(self.spec.get("interval", "30s"))

    @property
    def attempts(self) -> int:
        """How often a row is tried."""
        return int(self._retry.get("attempts", 3))

    def rest(self, attempt: int) -> float:
        """How long a row rests after this attempt at most, its cooldown included."""
        backoff = seconds(self._retry.get("backoff", "10s")) * 2.0 ** min(attempt - 1, 30)
        backoff = min(backoff, seconds(self._retry.get("maxBackoff", "10m")))
        return backoff + seconds(self.spec.get("cooldown", "0s"))

    @property
    def _retry(self) -> Mapping[str, Any]:
        return self.spec.get("retry") or {}

    @property
    def items(self) -> Sequence[Mapping[str, Any]]:
        """Its ledger."""
        return self.status.get("items") or ()

    @property
    def outstanding(self) -> frozenset[str]:
        """The launches that hold a slot, by its ledger."""
        return frozenset(item["id"] for item in self.items if item["phase"] in _OUT)

    @property
    def counters(self) -> dict[str, int]:
        """How many launches there were, and how they ended."""
        names = ("launched", "succeeded", "failed", "lost")
        return {name: int(self.status.get(name, 0)) for name in names}

    def moment(self) -> Moment:
        """As a line."""
        if self.deleted:
            return Moment(self.time, f"ScannerJob {self.uid} is deleted")
        told = ", ".join(f"{name} {count}" for name, count in self.counters.items())
        active = self.status.get("active", 0)
        what = f"ScannerJob {self.uid} at {self.version}: cap {self.cap}, active {active}, {told}"
        return Moment(self.time, what)


@dataclass(frozen=True)
class Message:
    """A message that the operator gave to a broker, not one that a broker or worker gave again.

    No worker starts it later than `expires`; one that runs it is stopped after `time_limit`.
    """

    time: float
    launch: str
    row: str
    expires: float = inf
    time_limit: float = inf

    def moment(self) -> Moment:
        """As a line."""
        return Moment(self.time, f"message {self.launch} for row {self.row} is published")


@dataclass(frozen=True)
class Job:
    """A Job object, and when the watch showed each step of it; `owner` is its controller's uid.

    `outcome` is its final condition, as of `finished`. `deleted`: the object is gone.
    """

    name: str
    uid: str
    owner: str | None
    launch: str
    row: str
    created: float
    finished: float | None = None
    outcome: Literal["Complete", "Failed"] | None = None
    deleted: float | None = None

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        yield Moment(self.created, f"Job {self.name} ({self.launch}, row {self.row}) is created")
        if self.finished is not None:
            yield Moment(self.finished, f"Job {self.name} is {self.outcome}")
        if self.deleted is not None:
            yield Moment(self.deleted, f"Job {self.name} is gone")


@dataclass(frozen=True)
class Pod:
    """A pod as the API server has it: `ended` once its phase is final or its object is gone."""

    name: str
    launch: str
    created: float
    ended: float | None = None

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        yield Moment(self.created, f"pod {self.name} ({self.launch}) is created")
        if self.ended is not None:
            yield Moment(self.ended, f"pod {self.name} has ended")


@dataclass(frozen=True)
class Execution:
    """A run of a row's work, by its own record; without an end where none was recorded.

    `worker` names the process, as deaths do. `retried`: it gave itself back to the broker, so that
    the next execution belongs to the same launch and is no second one.
    """

    launch: str
    row: str
    worker: str
    started: float
    ended: float | None = None
    outcome: Literal["succeeded", "failed", "retried"] | None = None

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        what = f"of {self.launch} (row {self.row}) by {self.worker}"
        yield Moment(self.started, f"execution {what} starts")
        if self.ended is not None:
            yield Moment(self.ended, f"execution {what} has {self.outcome or 'ended'}")


@dataclass(frozen=True)
class Death:
    """A process of a worker dies; of a whole worker, each of its processes does."""

    worker: str
    time: float


@dataclass(frozen=True)
class Row:
    """A row that matched the query, of one ScannerJob or of each; one that returns is another."""

    row: str
    since: float
    until: float = inf
    uid: str | None = None

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        yield Moment(self.since, f"row {self.row} matches")
        if self.until < inf:
            yield Moment(self.until, f"row {self.row} matches no more")


@dataclass(frozen=True)
class Fault:
    """Something was wrong, for one ScannerJob or for all.

    While a "database", "broker", "guard", "backend" or "api" is, nothing at all gets through to it:
    what fails now and then is of another kind, for example "flaky". "hand" is whatever a person
    does to a ScannerJob or to the world about it, misconfigurations included.
    """

    kind: str
    begin: float
    end: float
    uid: str | None = None

    def moments(self) -> Iterator[Moment]:
        """As lines."""
        yield Moment(self.begin, f"fault begins: {self.kind}")
        yield Moment(self.end, f"fault ends: {self.kind}")


@dataclass(frozen=True)
class Excuse:
    """An exception that the promises make, for the launches which were begun by then.

    It names what it is about: a launch, a row, a worker, or a ScannerJob; one that names none is
    about all. Reasons: "frozen" (a worker, for longer than its lease), "store lost writes",
    "delivered again" (by the broker, without a guard), "ran without its guard" (`on_error="run"`),
    "revoked", "node lost" (a program goes on whose pod was deleted by force), "by hand" (a Job was
    copied or deleted, a row cannot be launched), "ledger lost" and "restored" (a ScannerJob).
    """

    reason: str
    since: float
    launch: str | None = None
    row: str | None = None
    worker: str | None = None
    uid: str | None = None


Witness = Literal["scannerjobs", "jobs", "pods", "messages", "executions"]


@dataclass(frozen=True)
class Gap:
    """A time in which a witness may have missed something for good.

    For example executions, while the database in which they are recorded could not be reached.
    """

    witness: Witness
    begin: float
    end: float


_Record = TypeVar("_Record")


@dataclass(frozen=True)
class History:
    """All that was observed until `end`, from before the first ScannerJob was made.

    Versions are in the order in which the watch had them. The query of a ScannerJob has no LIMIT,
    and the database that is read is the one in which the work is done.
    """

    end: float
    versions: Sequence[Version] = ()
    jobs: Sequence[Job] = ()
    pods: Sequence[Pod] = ()
    messages: Sequence[Message] = ()
    executions: Sequence[Execution] = ()
    deaths: Sequence[Death] = ()
    rows: Sequence[Row] = ()
    faults: Sequence[Fault] = ()
    excuses: Sequence[Excuse] = ()
    gaps: Sequence[Gap] = ()

    @cached_property
    def versions_of(self) -> Mapping[str, list[Version]]:
        """By the ScannerJob's uid."""
        return _grouped((each.uid, each) for each in self.versions)

    @cached_property
    def jobs_of(self) -> Mapping[str, list[Job]]:
        """By launch."""
        return _grouped((each.launch, each) for each in self.jobs)

    @cached_property
    def pods_of(self) -> Mapping[str, list[Pod]]:
        """By launch."""
        return _grouped((each.launch, each) for each in self.pods)

    @cached_property
    def messages_of(self) -> Mapping[str, list[Message]]:
        """By launch, in order of time."""
        ordered = sorted(self.messages, key=lambda each: each.time)
        return _grouped((each.launch, each) for each in ordered)

    @cached_property
    def executions_of(self) -> Mapping[str, list[Execution]]:
        """By launch, in order of time."""
        ordered = sorted(self.executions, key=lambda each: each.started)
        return _grouped((each.launch, each) for each in ordered)

    @cached_property
    def deaths_of(self) -> Mapping[str, list[float]]:
        """The times of death, by worker."""
        return _grouped((each.worker, each.time) for each in self.deaths)

    @cached_property
    def _rows_of(self) -> Mapping[str, list[Row]]:
        ordered = sorted(self.rows, key=lambda each: each.since)
        return _grouped((each.row, each) for each in ordered)

    @cached_property
    def claims(self) -> Mapping[str, list[Version]]:
        """The versions in which each launch holds a slot."""
        return _grouped((launch, each) for each in self.versions for launch in each.outstanding)

    @cached_property
    def accepted(self) -> frozenset[str]:
        """The launches of which a ledger has said that the broker or the API server took them."""
        items = (item for each in self.versions for item in each.items)
        return frozenset(item["id"] for item in items if item["phase"] == "Launched")

    @cached_property
    def sent_again(self) -> frozenset[str]:
        """The launches that were claimed for sending more than once."""
        items = (item for each in self.versions for item in each.items)
        return frozenset(item["id"] for item in items if item.get("sends", 1) > 1)

    def matches(self, uid: str | None, row: str) -> list[Row]:
        """When this row matched the query of this ScannerJob, in order of time."""
        return [each for each in self._rows_of.get(row, ()) if each.uid in (None, uid)]

    def leaves(self, uid: str | None, row: str, after: float) -> float:
        """When it first does not match, from `after` on; at once if nobody watched it."""
        matches = self.matches(uid, row)
        here = next((each for each in matches if each.since <= after < each.until), None)
        return here.until if here else after

    def returns(self, uid: str | None, row: str, after: float) -> float:
        """When it first matches again after it had left at `after`."""
        return min((m.since for m in self.matches(uid, row) if m.since >= after), default=inf)

    def has_gap(self, *witnesses: Witness, begin: float = -inf, end: float = inf) -> bool:
        """Whether one of these witnesses was away for some of this time."""
        return any(
            each.witness in witnesses and each.begin <= end and begin <= each.end
            for each in self.gaps
        )


def seconds(duration: str) -> float:
    """A duration of a spec, for example `1h30m` or `500ms`."""
    parts = re.findall(r"(\d+)(ms|[hms])", duration)
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


def time_of(text: str) -> float:
    """A time of a status, for example `2026-01-31T12:00:00Z`."""
    return datetime.fromisoformat(text).timestamp()


def _grouped(pairs: Iterable[tuple[str, _Record]]) -> Mapping[str, list[_Record]]:
    groups: dict[str, list[_Record]] = defaultdict(list)
    for key, record in pairs:
        groups[key].append(record)
    return dict(groups)
