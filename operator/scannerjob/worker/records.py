"""What a guard's store keeps of each launch, and how that may change; the same for every store.

One record per launch. Only those who may change it do, in one atomic step each, and every time in
it is the store's own: neither a worker's clock nor the operator's is trusted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

# In seconds. A lease is renewed three times before it can lapse.
LEASE, BEAT = 15.0, 5.0
# Where a thread renews it: one call in C may hold all threads of its process for longer than LEASE.
THREAD_LEASE = 60.0
# How long a record is kept after its last change, and after its last reading by the operator.
RETENTION = 24 * 60 * 60.0
# How long it is believed that a worker guards a task, since it has said so.
ANNOUNCED = 180.0
# The header that tells a launch of the operator from any other task: it holds the launch's id.
HEADER = "scannerjob"


class State(StrEnum):
    """How a launch is, as far as workers and the operator told."""

    QUEUED = "queued"  # it was sent, or is about to be
    RUNNING = "running"  # an execution holds it, as long as its lease is renewed
    RETRYING = "retrying"  # an execution has ended and asked Celery for another one, later
    DONE = "done"
    FAILED = "failed"
    SUPERSEDED = "superseded"  # given up by the operator: whatever still comes of it does nothing


@dataclass(frozen=True, slots=True)
class Execution:
    """One execution of a launch: `retries` is Celery's count, `owner` a random token of its own."""

    id: str
    retries: int
    owner: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is kept of one launch.

    `until`, in seconds by the store's clock, is when the lease of one that is running lapses, or
    when one that is retrying is to be begun again. `reason` says why it failed. `was` is what one
    that is superseded was before; None if there was no record.
    """

    state: State
    retries: int = 0
    owner: str = ""
    until: float | None = None
    reason: str = ""
    was: State | None = None


# What stands there and cannot be read, nobody but its writer can tell: it may run, and is held. No
# lease of it lapses.
UNREADABLE = Record(State.RUNNING, reason="its record in the guard's store cannot be read")


@dataclass(frozen=True)
class Reading:
    """What a store told at one moment: `now`, by its own clock, and the records that it has.

    `identity` changes whenever writes may have been lost: another server, or the same one begun
    anew.
    """

    identity: str
    now: float
    records: Mapping[str, Record]


class Store(Protocol):
    """Where the records are. Every method is one atomic step for each launch it is about.

    Raises whatever the client of the server raises where it cannot be asked; whether a change took
    place is not known then, and every method may be called again with the same arguments: the
    outcome is the same. May be used by many threads.
    """

    # For workers.

    def claim(self, execution: Execution, lease: float) -> bool:
        """Begin this execution; False if it must not run.

        It may where there is no record, or one that is QUEUED; where one is RUNNING with fewer
        retries, or with the same owner; and where one is RETRYING with fewer retries. The record is
        RUNNING then, for `lease` seconds. A lease that has lapsed is not taken over: its worker may
        have done the work before it died, which only who reads the rows can tell.
        """
        ...

    def renew(self, executions: Sequence[Execution], lease: float) -> set[str]:
        """Let these go on for `lease` seconds from now; the ids of those that have lost theirs.

        One that is QUEUED, or gone, is written anew: the store has forgotten it, and nobody else
        has begun it since. So is one that is RUNNING or RETRYING with fewer retries: it has
        forgotten that this one began. In any other state, or under another owner, it is lost; so is
        one that is QUEUED because this execution has given it back.
        """
        ...

    def finish(
        self, execution: Execution, state: State, reason: str = "", delay: float = 0.0
    ) -> bool:
        """End this execution as DONE, FAILED or RETRYING (in `delay` seconds); tell who listens.

        Or as QUEUED: its message goes back to the broker, and is to be executed as if for the first
        time.

        False, and nothing changes, if it does not hold its launch: the record is RUNNING or
        RETRYING under another owner, with no fewer retries, or it has ended, unless it is what this
        would write. A record that is gone is written.
        """
        ...

    def announce(self, tasks: Collection[str], duration: float) -> None:
        """Have it known that a worker guards the tasks of these names.

        For `duration` seconds, or for half of that if it was announced before.
        """
        ...

    # For the operator.

    def is_guarded(self, task: str) -> bool:
        """Whether a worker has announced that it guards the task of this name, and it holds yet."""
        ...

    def register(self, ids: Sequence[str]) -> Mapping[str, State]:
        """Have a record of these, QUEUED if there is none; gives their states."""
        ...

    def read(self, ids: Sequence[str]) -> Reading:
        """What is known of these, and have it kept for RETENTION from now on."""
        ...

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Record]:
        """Give these up, where nothing runs; what their records are now.

        One that is gone, QUEUED, RETRYING, or RUNNING with a lease that has lapsed becomes
        SUPERSEDED. All others stay as they are.
        """
        ...

    def close(self) -> None:
        """Drop all connections. Never raises."""
        ...
