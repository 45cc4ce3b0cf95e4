"""What a guard's store may do with one record: the rules of `scannerjob.worker.records`, in full.

Each takes the record as it is (None if there is none) and gives it as it is to be; None where the
change is refused. A subclass breaks one rule.
"""

from __future__ import annotations

from scannerjob.worker.records import LEASE, Execution, Record, State

# Those after which nothing of a launch runs, or will.
ENDED = frozenset({State.DONE, State.FAILED, State.SUPERSEDED})


class Rules:
    """The rules as they are."""

    def claim(self, record: Record | None, execution: Execution, now: float) -> Record | None:
        """Begin this execution."""
        if record is None or record.state is State.QUEUED or self.goes_on(record, execution, now):
            return self.leased(execution, now)
        return None

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        """Whether this execution follows the one that the record is of."""
        if record.state is State.RUNNING:
            return record.owner == execution.owner or record.retries < execution.retries
        return record.state is State.RETRYING and record.retries < execution.retries

    def renew(self, record: Record | None, execution: Execution, now: float) -> Record | None:
        """Let it go on; None if it has lost its launch."""
        return self.leased(execution, now) if self.may_write(record, execution) else None

    def finish(
        self, record: Record | None, execution: Execution, state: State, now: float
    ) -> Record | None:
        """End it."""
        until = now if state is State.RETRYING else None
        ended = Record(state, execution.retries, execution.owner, until)
        return ended if self.may_write(record, execution) else None

    def may_write(self, record: Record | None, execution: Execution) -> bool:
        """Whether the record is this execution's, or what the store had before it lost that."""
        if record is None or record.state is State.QUEUED:
            return True
        if record.state not in (State.RUNNING, State.RETRYING):
            return False
        return self.owns(record, execution) or record.retries < execution.retries

    def supersede(self, record: Record | None, now: float) -> Record:
        """Give the launch up where nothing runs."""
        if record is None:
            return Record(State.SUPERSEDED)
        if record.state in ENDED or self.is_live(record, now):
            return record
        return Record(State.SUPERSEDED, was=record.state)

    def register(self, record: Record | None) -> Record:
        """Have a record."""
        return record or Record(State.QUEUED)

    def owns(self, record: Record, execution: Execution) -> bool:
        return record.state is State.RUNNING and record.owner == execution.owner

    def is_live(self, record: Record, now: float) -> bool:
        until = record.until if record.until is not None else now
        return record.state is State.RUNNING and until > now

    def leased(self, execution: Execution, now: float) -> Record:
        return Record(State.RUNNING, execution.retries, execution.owner, now + LEASE)


class Takeover(Rules):
    """A lease that has lapsed may be taken over by another delivery."""

    def goes_on(self, record: Record, execution: Execution, now: float) -> bool:
        lapsed = record.state is State.RUNNING and not self.is_live(record, now)
        taken = lapsed and record.retries == execution.retries
        return taken or super().goes_on(record, execution, now)
