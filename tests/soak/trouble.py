"""What happens to a soak now and then: faults, which pass, and changes, which people make."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil

from tests.soak.lane import Window
from tests.soak.scene import Scene
from tests.soak.systems import Cluster
from tests.support.celery_worker import CeleryWorker

# Clients and workers take up their work again within so many seconds after a fault.
_AFTERMATH = 5.0
_PAUSE = 10.0
_CHANGES: tuple[Mapping[str, Any], ...] = (
    {"suspend": True},
    {"suspend": False},
    {"concurrency": 2},
    {"concurrency": 6},
)


class Trouble:
    """Makes one thing after the other; `pace` shortens what takes its time."""

    def __init__(self, scene: Scene, pace: float) -> None:
        self.windows: list[Window] = []
        self.faults = 0
        self._scene = scene
        self._pace = pace
        self._rng = random.Random(1)
        self._colours = itertools.cycle(("green", "blue"))
        self._faults = itertools.cycle(
            (self._restart_database, self._pause_redis, self._kill_pool, self._restart_apiserver)
        )
        self._names = [lane.name for lane, each in scene.lanes.items() if isinstance(each, Cluster)]
        self._changes = self._all_changes()

    def touched(self, begin: float, end: float) -> bool:
        """Whether anything was wrong within this time."""
        return any(each.begin <= end and begin <= each.end for each in self.windows)

    def rotate(self) -> None:
        """Put new users and passwords into all Secrets."""
        self._scene.rotate(next(self._colours))

    def fault(self) -> None:
        """Let the next fault begin and end."""
        with self._window():
            next(self._faults)()
        self.faults += 1

    def change(self) -> None:
        """Make the next change to a ScannerJob."""
        self._scene.cluster.change(*next(self._changes))

    def undo_changes(self) -> None:
        """Let all ScannerJobs go on."""
        for name in self._names:
            self._scene.cluster.change(name, {"suspend": False, "concurrency": 4})

    @contextmanager
    def _window(self) -> Iterator[None]:
        begin = time.time()
        try:
            yield
        finally:
            self.windows.append(Window(begin, time.time() + _AFTERMATH))

    def _restart_database(self) -> None:
        self._scene.stage.postgres.restart()

    def _pause_redis(self) -> None:
        redis = self._scene.stage.redis
        redis.pause()
        time.sleep(_PAUSE * self._pace)
        redis.resume()

    def _kill_pool(self) -> None:
        """Kill a process that executes tasks, as the kernel does for want of memory."""
        pool = _pool(self._rng.choice(self._scene.workers))
        if pool:
            self._rng.choice(pool).kill()

    def _restart_apiserver(self) -> None:
        plane = self._scene.stage.plane
        plane.kill_apiserver()
        plane.start_apiserver()

    def _all_changes(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name in itertools.cycle(self._names):
            for spec in _CHANGES:
                yield name, spec


def _pool(worker: CeleryWorker) -> list[psutil.Process]:
    """The forks of a worker, and not the process that beats for it."""
    parent = psutil.Process(worker.pid)
    return [each for each in parent.children() if each.cmdline() == parent.cmdline()]
