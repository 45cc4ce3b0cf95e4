"""What may be believed of a guard's store: no single reading proves that a worker is dead.

After an outage of the store all leases have lapsed, after a jump of its clock they seem to, after a
restart records are missing or old. Those who still run write theirs back with their next beat, so
it takes a while of undisturbed reading until what is not written back is known to be over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.celery.failures import failed
from scannerjob.worker.records import BEAT, LEASE, Reading, Record, State

# How long a store must have been read without a gap, in seconds.
STEADY = 2 * LEASE
# The same lapsed lease is seen again after this: whoever still runs has renewed it by then.
SEEN_AGAIN = BEAT + 1.0

_TOLD = {
    State.QUEUED: Observation(Fact.ACCEPTED),
    State.RUNNING: Observation(Fact.RUNNING),
    State.RETRYING: Observation(Fact.STARTED),
    State.DONE: Observation(Fact.SUCCEEDED),
}
_SILENT = Observation(Fact.SILENT, "its worker's lease has lapsed")
_FORGOTTEN = Observation(Fact.FORGOTTEN, "the guard's store has no record of it any more")


@dataclass(frozen=True, slots=True)
class Moment:
    """When a reading was made: `at` by our clock (when it began), `now` by the store's."""

    at: float
    now: float

    def after(self, earlier: Moment) -> float:
        """Seconds that passed for certain.

        By both clocks: a reading may hang for a while before it is made, and the store's clock may
        jump.
        """
        return min(self.at - earlier.at, self.now - earlier.now)

    def is_near(self, other: Moment) -> bool:
        """Whether there was no gap between two readings: by either clock, it was not long."""
        return max(abs(self.at - other.at), abs(self.now - other.now)) <= LEASE


@dataclass(frozen=True, slots=True)
class Series:
    """Readings without a gap of a store that stayed the same: the first one and the last."""

    identity: str
    first: Moment
    last: Moment

    @property
    def is_steady(self) -> bool:
        """Whether it is long enough for everyone who runs to have renewed his lease."""
        return self.last.after(self.first) >= STEADY


@dataclass(frozen=True, slots=True)
class Sight:
    """No record, or one whose lease has lapsed: seen like this in every reading since `first`."""

    record: Record | None
    first: Moment


class Lapses:
    """The readings of one guard's store, whoever made them.

    All who read the store share one of these and each has a `view` of its own. Not for use by
    several threads.
    """

    def __init__(self) -> None:
        self.series: Series | None = None

    def view(self) -> View:
        """For one reader and the launches that it asks about."""
        return View(self)

    def failed(self) -> None:
        """A reading failed: whatever was seen before it does not count any more."""
        self.series = None

    def note(self, identity: str, moment: Moment) -> Series:
        """Add a reading; gives the series that it belongs to."""
        series = self.series
        if series and series.identity == identity and moment.is_near(series.last):
            self.series = Series(identity, series.first, max(series.last, moment, key=_at))
        else:
            self.series = Series(identity, moment, moment)
        return self.series


class View:
    """What one reader knows of the launches that it asks about."""

    def __init__(self, lapses: Lapses) -> None:
        self._lapses = lapses
        self.sights: dict[str, Sight] = {}

    def note(self, reading: Reading, ids: Collection[str], at: float) -> Mapping[str, Observation]:
        """What is known now of these launches, of which `reading` was just made.

        `at` is when it began, in seconds by CLOCK_BOOTTIME. Nothing is said of a launch without a
        record until it has been missing for `STEADY`. Launches not among `ids` are forgotten.
        """
        moment = Moment(at, reading.now)
        series = self._lapses.note(reading.identity, moment)
        found = {each: reading.records.get(each) for each in ids}
        self.sights = {
            each: self._sight(each, record, series, moment)
            for each, record in found.items()
            if record is None or _has_lapsed(record, reading.now)
        }
        told = {each: self._told(each, record, series) for each, record in found.items()}
        return {each: observation for each, observation in told.items() if observation}

    def is_unclear(self, launch: str) -> bool:
        """Whether its record is missing, and whoever holds it may yet write it again.

        It is not to be superseded then: it may run.
        """
        sight, series = self.sights.get(launch), self._lapses.series
        if sight is None or sight.record is not None:
            return False
        return series is None or not _is_missing(sight, series)

    def _sight(self, launch: str, record: Record | None, series: Series, moment: Moment) -> Sight:
        """The sight that this one continues, or a new one."""
        before = self.sights.get(launch)
        same = before and before.record == record and before.first.at >= series.first.at
        return before if before and same else Sight(record, moment)

    def _told(self, launch: str, record: Record | None, series: Series) -> Observation | None:
        sight = self.sights.get(launch)
        seen_for = series.last.after(sight.first) if sight else 0.0
        if record is None:
            return _FORGOTTEN if sight and _is_missing(sight, series) else None
        if sight and series.is_steady and seen_for >= SEEN_AGAIN:
            return _SILENT
        return observation(record)


def _at(moment: Moment) -> float:
    return moment.at


def _is_missing(sight: Sight, series: Series) -> bool:
    return sight.first.at >= series.first.at and series.last.after(sight.first) >= STEADY


def _has_lapsed(record: Record, now: float) -> bool:
    return record.state is State.RUNNING and record.until is not None and record.until <= now


def observation(record: Record) -> Observation:
    """What a record says by itself."""
    if record.state is State.FAILED:
        return failed(record.reason)
    if record.state is State.SUPERSEDED:
        ran = record.was in (State.RUNNING, State.RETRYING)
        return Observation(Fact.LAPSED, "its worker died") if ran else Observation(Fact.SUPERSEDED)
    return _TOLD[record.state]
