"""The status tells how things are, and is then left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from math import inf
from typing import Any

from tests.proof.history import Version, time_of
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "status equals reality"
# `lastScanTime` alone is written every five minutes at most.
_SCAN_NOTED = 290.0
# So often a condition may change by the clock alone: Stalled, WorkersMissing and the like.
_BY_THE_CLOCK = 6
_COUNTED = {"waiting": "Waiting", "parked": "Parked", "cooling": "Cooling"}


def check(run: Run) -> Iterator[Violation]:
    """Within two intervals of the last change the status equals reality, and then it is quiet.

    `active` is the number of launches that are out, the other numbers are those of its items, and
    where nothing may be held for good it is ready; nothing more is written but `lastScanTime` now
    and then, and what time alone brings about.
    """
    for uid, versions in run.history.versions_of.items():
        due = run.settled_by(uid)
        if due < inf:
            before = [each for each in versions if each.time <= due]
            yield from _active(run, uid, before[-1], due)
            yield from _counts(uid, before[-1])
            yield from _ready(run, uid, before[-1])
            yield from _noise(run, uid, before, [each for each in versions if each.time > due])


def _active(run: Run, uid: str, told: Version, due: float) -> Iterator[Violation]:
    launches = run.launches_of[uid]
    surely = [each for each in launches if run.may_end[each.id] > due]
    settle = 2 * told.interval + run.promised.slack
    perhaps = [each for each in launches if run.must_end[each.id] > due - settle]
    held = sum(_may_be_held(run, uid, item, due) for item in told.items)
    active = int(told.status.get("active", 0))
    if not len(surely) <= active <= len(perhaps) + held:
        out = surely if active < len(surely) else perhaps
        sentence = f"{uid} says that {active} are out; there are {len(out)}"
        yield violation(PROMISE, sentence, [told.moment(), *(each.begin() for each in out)])


def _counts(uid: str, told: Version) -> Iterator[Violation]:
    for field, phase in _COUNTED.items():
        there = sum(item["phase"] == phase for item in told.items)
        said = told.status.get(field, there)
        if said != there:
            sentence = f"{uid} says that {said} are {field}; there are {there}"
            yield violation(PROMISE, sentence, [told.moment()])


def _ready(run: Run, uid: str, told: Version) -> Iterator[Violation]:
    conditions = told.status.get("conditions") or ()
    ready = next((each for each in conditions if each["type"] == "Ready"), None)
    may_launch = run.promised.sends_again and not told.spec.get("suspend")
    if may_launch and ready is not None and ready["status"] != "True":
        sentence = f"{uid} says that it is not ready: {ready.get('reason')}"
        yield violation(PROMISE, sentence, [told.moment()])


def _may_be_held(run: Run, uid: str, item: Mapping[str, Any], due: float) -> bool:
    """Whether a claim of which nobody saw a message may keep its slot.

    For good where it cannot be sent again. A guard has no record of what was never sent: of one
    whose row has left, that its record is missing takes as long to find out as a lapse.
    """
    if not run.is_claim_in_doubt(item):
        return False
    if not run.promised.sends_again:
        return True
    left = run.history.leaves(uid, item["key"], run.history.claims[item["id"]][0].time)
    return run.promised.guard and left <= due < run.disturbed_until(uid) + run.promised.lapse


def _noise(run: Run, uid: str, before: list[Version], later: list[Version]) -> Iterator[Violation]:
    noted = max((b.time for a, b in pairwise(before) if _scan(a) != _scan(b)), default=None)
    by_the_clock = 0
    for previous, version in pairwise([before[-1], *later]):
        if _told(previous) == _told(version):
            too_soon = noted is not None and version.time - noted < _SCAN_NOTED
            if too_soon or _scan(previous) == _scan(version):
                yield _unneeded(uid, previous, version)
        elif _ledger(previous) != _ledger(version):
            if not _had_a_timer(run, uid, previous, version):
                yield _unneeded(uid, previous, version)
        else:
            by_the_clock += 1
            if by_the_clock == _BY_THE_CLOCK + 1:
                yield _unneeded(uid, previous, version)
        noted = version.time if _scan(previous) != _scan(version) else noted


def _had_a_timer(run: Run, uid: str, previous: Version, version: Version) -> bool:
    """Whether time alone may have changed the ledger: a rest, a life, or a doubt was over."""
    resting = any(
        item["phase"] == "Claimed" or ("until" in item and time_of(item["until"]) <= version.time)
        for item in previous.items
    )
    return resting or any(_in_doubt(run, each, version) for each in run.launches_of[uid])


def _in_doubt(run: Run, launch: Launch, version: Version) -> bool:
    known = run.must_end[launch.id] + 2 * version.interval + run.promised.slack
    return run.may_end[launch.id] <= version.time < known


def _unneeded(uid: str, previous: Version, version: Version) -> Violation:
    sentence = f"{uid} is written although nothing has happened"
    return violation(PROMISE, sentence, [previous.moment(), version.moment()])


def _scan(version: Version) -> Any:
    return version.status.get("lastScanTime")


def _told(version: Version) -> dict[str, Any]:
    return {**version.status, "lastScanTime": None}


def _ledger(version: Version) -> tuple[Any, Any]:
    return version.items, version.counters
