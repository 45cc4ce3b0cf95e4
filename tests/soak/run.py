"""A soak from its begin to its report."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.harness.campaign import progress
from tests.harness.stage import Stage
from tests.soak.growth import FEWEST, Growth, judge
from tests.soak.lane import Lane, counters, is_quiet
from tests.soak.sampling import Figure, Sampler
from tests.soak.scene import Scene, scene
from tests.soak.systems import Status
from tests.soak.trouble import Trouble

_PATIENCE = 300.0
# How long a row stays in the tables after its work, for one more execution to be seen there.
_SEEN_FOR = 20.0


@dataclass(frozen=True)
class Options:
    """How long it lasts, how often it is sampled, and where the samples are written.

    `pace`: by what all times between faults and changes are multiplied.
    """

    minutes: float
    samples: Path
    every: float = 15.0
    pace: float = 1.0


@dataclass(frozen=True)
class Report:
    """What became of each figure, what else was wrong, and how much was done."""

    figures: list[tuple[Figure, Growth]]
    problems: list[str]
    rows: int
    faults: int
    guests: int

    @property
    def sound(self) -> bool:
        """Whether nothing grows and nothing was wrong."""
        return not self.problems and not any(growth.grows for _, growth in self.figures)


def soak(stage: Stage, folder: Path, options: Options) -> Report:
    """Run it; call this in the main thread."""
    with scene(stage, folder) as opened:
        return _Soak(opened, options).run()


@dataclass
class _Duty:
    """Something that is done again and again, so many seconds after it was done."""

    act: Callable[[], None]
    every: float
    due: float


class _Soak:
    def __init__(self, scene: Scene, options: Options) -> None:
        self._scene = scene
        self._options = options
        self._sampler = Sampler(options.samples, scene.servers)
        self._trouble = Trouble(scene, options.pace)

    def run(self) -> Report:
        self._scene.start()
        self._wait_until_all_work()
        progress("every ScannerJob has had a row done: now it is sampled")
        self._go_on()
        progress("no more rows: waiting until all is done")
        settled = self._settle()
        figures = [(each, judge(each.points, each.rule)) for each in self._sampler.figures()]
        return Report(
            figures=figures,
            problems=[*self._problems(), *([] if settled else [self._told()])],
            rows=sum(lane.books.rows for lane in self._all_lanes),
            faults=self._trouble.faults,
            guests=self._scene.guests.invited,
        )

    @property
    def _all_lanes(self) -> list[Lane]:
        return [*self._scene.lanes, self._scene.guests.lane]

    def _wait_until_all_work(self) -> None:
        """The first looks and launches open what stays open: before, nothing is worth sampling."""

        def all_work() -> bool:
            self._supply()
            statuses = self._statuses()
            return all(
                counters(statuses.get(lane.name, {}))["succeeded"] for lane in self._scene.lanes
            )

        if not self._wait(all_work):
            raise RuntimeError(self._told())

    def _go_on(self) -> None:
        duties = self._duties(time.monotonic())
        end = time.monotonic() + 60 * self._options.minutes
        # A machine that is busy with other things samples late.
        while time.monotonic() < end or self._sampler.count <= FEWEST:
            for duty in duties:
                if time.monotonic() >= duty.due:
                    duty.act()
                    duty.due = time.monotonic() + duty.every
            time.sleep(0.1)

    def _duties(self, now: float) -> list[_Duty]:
        trouble, pace = self._trouble, self._options.pace
        seldom = (
            (trouble.change, 20.0),
            (self._scene.guests.invite, 25.0),
            (trouble.rotate, 50.0),
            (trouble.fault, 75.0),
        )
        return [
            _Duty(self._sample, self._options.every, now),
            _Duty(self._supply, 0.5, now),
            _Duty(self._tidy, 5.0, now),
            *(_Duty(act, every * pace, now + every * pace) for act, every in seldom),
        ]

    def _sample(self) -> None:
        for system in self._scene.systems:
            if not system.process.running:
                raise RuntimeError(f"{system.name} has ended:\n{system.process.log()[-4000:]}")
            size = max(len(json.dumps(each)) for each in system.statuses().values())
            self._sampler.sample(system.name, system.process.pid, size)

    def _supply(self) -> None:
        for lane in self._scene.lanes:
            lane.supply()

    def _tidy(self) -> None:
        seen_for = _SEEN_FOR * self._options.pace
        statuses = self._statuses()
        for lane in self._scene.lanes:
            lane.tidy(statuses.get(lane.name, {}), seen_for, self._trouble.touched)
        self._scene.guests.see_off(statuses, seen_for, self._trouble.touched)
        self._scene.kubelet.forget()

    def _settle(self) -> bool:
        """Wait until nothing is left to do, and all of it is booked; whether that came."""
        self._trouble.undo_changes()

        def settled() -> bool:
            self._tidy()
            statuses = self._statuses()
            quiet = all(is_quiet(statuses.get(lane.name, {})) for lane in self._scene.lanes)
            return quiet and not self._scene.guests.present and not self._left()

        return self._wait(settled)

    def _left(self) -> int:
        return sum(lane.unbooked for lane in self._all_lanes)

    def _problems(self) -> Iterator[str]:
        for lane in self._all_lanes:
            yield from lane.books.problems
        statuses = self._statuses()
        for lane in self._scene.lanes:
            yield from lane.counters_wrong(counters(statuses.get(lane.name, {})))
        guests = self._scene.guests
        yield from guests.lane.counters_wrong(guests.counters)
        for system in self._scene.systems:
            log = system.process.log()
            if tracebacks := log.count("Traceback"):
                first = log[: log.index("Traceback") + 6000][-8000:]
                yield (
                    f"{tracebacks} tracebacks are in {system.process.log_file}, as here:\n{first}"
                )

    def _statuses(self) -> Mapping[str, Status]:
        """Of all ScannerJobs: their names are unique."""
        return {k: v for system in self._scene.systems for k, v in system.statuses().items()}

    def _wait(self, condition: Callable[[], bool]) -> bool:
        deadline = time.monotonic() + _PATIENCE
        while not (came := condition()) and time.monotonic() < deadline:
            time.sleep(0.5)
        return came

    def _told(self) -> str:
        """What there is to say where something does not come."""
        left = {each.name: each.unbooked for each in self._all_lanes}
        return f"not done within {_PATIENCE:g} s: {json.dumps({'left': left, **self._statuses()})}"
