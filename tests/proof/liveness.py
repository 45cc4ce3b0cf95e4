"""A row that matches is launched once there is a slot for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf

from tests.proof.history import Row, Version
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "liveness"


@dataclass(frozen=True)
class Span:
    """A time in which one slot was free all along."""

    begin: float
    end: float


def check(run: Run) -> Iterator[Violation]:
    """Once the faults have stopped, a row that matches is launched within three intervals.

    That is: within three intervals in which a slot was free all along. A row whose launch is over
    and that still matches is launched again, after its rest and while it has attempts left; so all
    rows are done by the end.
    """
    for uid, versions in run.history.versions_of.items():
        if run.is_excused(uid) or run.history.has_gap("messages", "jobs", "scannerjobs"):
            continue
        free = _free(run, uid, versions)
        for row in run.history.rows:
            if row.uid in (None, uid):
                yield from _neglected(run, uid, row, versions, free)


def _neglected(
    run: Run, uid: str, row: Row, versions: list[Version], free: list[Span]
) -> Iterator[Violation]:
    for begin, end, last in _idle(run, uid, row, versions):
        for span in free:
            since, until = max(begin, span.begin), min(end, span.end)
            if until <= since:
                continue
            patience = 3 * _longest_interval(versions, since, until) + run.promised.slack
            if until - since > patience:
                moments = [next(row.moments()), *(last.moments() if last else ())]
                told = [each.moment() for each in versions if each.time <= since + patience][-1:]
                sentence = (
                    f"row {row.row} is not launched for {until - since:.1f} s from {since:.3f} on, "
                    f"and a slot is free"
                )
                yield violation(PROMISE, sentence, [*moments, *told])
                return


def _idle(
    run: Run, uid: str, row: Row, versions: list[Version]
) -> Iterator[tuple[float, float, Launch | None]]:
    """The times in which this row should be launched, but is not, and its launch before each."""
    launches = run.rows.get((uid, row.row), [])
    if any(each.row == row.row for each in run.history.excuses):
        return
    since = row.since
    for position, launch in enumerate([*launches, None]):
        end = min(row.until, run.history.end, launch.begun if launch else inf)
        if end > since and not _is_held(run, uid, row):
            yield since, end, launches[position - 1] if position else None
        if launch:
            version, attempt = _version_at(versions, launch.begun), position + 1
            # Its end is noticed within two intervals, and times are rounded up to the second.
            rest = version.rest(attempt) + 2 * version.interval + 1.0
            over = run.must_end[launch.id] + rest if attempt < version.attempts else inf
            since = max(since, over)


def _is_held(run: Run, uid: str, row: Row) -> bool:
    """Whether a claim of it is held, since nobody knows whether it was sent."""
    if run.promised.sends_again:
        return False
    items = (item for version in run.history.versions_of[uid] for item in version.items)
    return any(item["key"] == row.row and run.is_claim_in_doubt(item) for item in items)


def _version_at(versions: list[Version], time: float) -> Version:
    before = [each for each in versions if each.time <= time]
    return before[-1] if before else versions[0]


def _longest_interval(versions: list[Version], since: float, until: float) -> float:
    before = [each.interval for each in versions if each.time <= since][-1:]
    return max([*before, *(each.interval for each in versions if since < each.time <= until)])


def _free(run: Run, uid: str, versions: list[Version]) -> list[Span]:
    """When, after all faults, one and the same slot was free beyond doubt.

    A slot is taken from a claim on, until the operator can know that its launch is over.
    """
    calm, end, slots = run.calm_since(uid), run.history.end, _Slots()
    for time, change in sorted([*_caps(versions), *_taken(run, uid, versions)]):
        if time < end:
            slots.change(time, change)
    slots.change(end, -len(slots.free))
    spans = [Span(max(span.begin, calm), span.end) for span in slots.spans]
    least = 3 * min(each.interval for each in versions)
    return [span for span in spans if span.end - span.begin > least]


class _Slots:
    """Since when each slot has been free, and when it was before that.

    A claim takes the one that was free for longest: where launches end all the time, some slot is
    free at any moment, though each is soon taken again.
    """

    def __init__(self) -> None:
        self.free: deque[float] = deque()
        self.spans: list[Span] = []
        self._owed = 0

    def change(self, time: float, change: int) -> None:
        for _ in range(abs(change)):
            if change > 0:
                self._give(time)
            else:
                self._take(time)

    def _give(self, time: float) -> None:
        if self._owed > 0:
            self._owed -= 1
        else:
            self.free.append(time)

    def _take(self, time: float) -> None:
        if self.free:
            self.spans.append(Span(self.free.popleft(), time))
        else:
            self._owed += 1


def _caps(versions: list[Version]) -> Iterator[tuple[float, int]]:
    cap = 0
    for version in versions:
        if version.cap != cap:
            yield version.time, version.cap - cap
            cap = version.cap


def _taken(run: Run, uid: str, versions: list[Version]) -> Iterator[tuple[float, int]]:
    """When slots are taken and given back: by launches that were seen, and by claims alone."""
    for launch in run.launches_of[uid]:
        claims = run.history.claims.get(launch.id)
        begin = min(launch.begun, claims[0].time if claims else inf)
        yield begin, -1
        yield max(begin, run.must_end[launch.id]), +1
    for claim in run.unseen(uid):
        held = run.history.claims[claim]
        later = (each.time for each in versions if each.time > held[-1].time)
        yield held[0].time, -1
        yield next(later, inf), +1
