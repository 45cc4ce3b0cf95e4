"""The guard's store in this process's memory, with a clock of the test's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from threading import Lock

from scannerjob.worker.records import Execution, Reading, Record, State


class MemoryGuard:
    """A `Store`; `clock` gives seconds, `ended` are the ids that were told of, in that order."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = Lock()
        self._starts = 1
        self.records: dict[str, Record] = {}
        self.announced: dict[str, float] = {}
        self.ended: list[str] = []

    def forget_all(self) -> None:
        """Lose all records, as by FLUSHALL: the server goes on and says nothing of it."""
        with self._lock:
            self.records.clear()
            self.announced.clear()

    def begin_anew(self, records: Mapping[str, Record] | None = None) -> None:
        """Start again with these records, an older state or none, under another identity."""
        with self._lock:
            self._starts += 1
            self.records = dict(records or {})

    def claim(self, execution: Execution, lease: float) -> bool:
        with self._lock:
            if not self._may_go_on(execution):
                return False
            self._run(execution, lease)
            return True

    def renew(self, executions: Sequence[Execution], lease: float) -> set[str]:
        with self._lock:
            held = [each for each in executions if self._may_be_renewed(each)]
            for each in held:
                self._run(each, lease)
            return {each.id for each in executions} - {each.id for each in held}

    def finish(
        self, execution: Execution, state: State, reason: str = "", delay: float = 0.0
    ) -> bool:
        with self._lock:
            until = self._clock() + delay if state is State.RETRYING else None
            end = Record(state, execution.retries, execution.owner, until, reason)
            if not self._may_end(execution, state):
                found = self.records.get(execution.id)
                return found is not None and replace(found, until=until) == end
            self.records[execution.id] = end
            if state is not State.QUEUED:
                self.ended.append(execution.id)
            return True

    def announce(self, tasks: Collection[str], duration: float) -> None:
        with self._lock:
            self.announced.update(dict.fromkeys(tasks, self._clock() + duration))

    def is_guarded(self, task: str) -> bool:
        with self._lock:
            return self.announced.get(task, 0.0) > self._clock()

    def register(self, ids: Sequence[str]) -> Mapping[str, State]:
        with self._lock:
            return {each: self.records.setdefault(each, Record(State.QUEUED)).state for each in ids}

    def read(self, ids: Sequence[str]) -> Reading:
        with self._lock:
            return Reading(f"start {self._starts}", self._clock(), self._known(ids))

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Record]:
        with self._lock:
            for each in ids:
                found = self.records.get(each)
                if found is None:
                    self.records[each] = Record(State.SUPERSEDED)
                elif self._is_idle(found):
                    self.records[each] = replace(
                        found, state=State.SUPERSEDED, until=None, was=found.state
                    )
            return self._known(ids)

    def close(self) -> None:
        pass

    def _known(self, ids: Sequence[str]) -> dict[str, Record]:
        return {each: self.records[each] for each in ids if each in self.records}

    def _run(self, execution: Execution, lease: float) -> None:
        until = self._clock() + lease
        self.records[execution.id] = Record(
            State.RUNNING, execution.retries, execution.owner, until
        )

    def _may_go_on(self, execution: Execution) -> bool:
        found = self.records.get(execution.id)
        if found is None or _waits(found) or _is_run_by(execution, found):
            return True
        begun = found.state in (State.RUNNING, State.RETRYING)
        return begun and found.retries < execution.retries

    def _may_end(self, execution: Execution, state: State) -> bool:
        found = self.records.get(execution.id)
        own = _waits(found) or _is_run_by(execution, found)
        return own or (state is not State.QUEUED and self._may_go_on(execution))

    def _may_be_renewed(self, execution: Execution) -> bool:
        found = self.records.get(execution.id)
        given_back = _waits(found) and found is not None and found.owner == execution.owner
        return self._may_go_on(execution) and not given_back

    def _is_idle(self, record: Record) -> bool:
        return record.state in (State.QUEUED, State.RETRYING) or self._lapsed(record)

    def _lapsed(self, record: Record) -> bool:
        if record.state is not State.RUNNING:
            return False
        return record.until is None or record.until <= self._clock()


def _waits(record: Record | None) -> bool:
    return record is None or record.state is State.QUEUED


def _is_run_by(execution: Execution, record: Record | None) -> bool:
    return record is not None and record.state is State.RUNNING and record.owner == execution.owner
