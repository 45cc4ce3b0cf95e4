"""What one system has in one scenario: a database, a broker, workers, and who submits the rows."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import scannerjob
from benchmarks import containers
from benchmarks.compare.publishes import RabbitPublishes, RedisPublishes
from benchmarks.compare.run import Run
from benchmarks.compare.systems import SYSTEMS, System
from scannerjob.demo.judge import Execution
from tests.support.celery_worker import CeleryWorker
from tests.support.processes import Process
from tests.support.rabbitmq import RabbitServer
from tests.support.rivals import rivals
from tests.support.servers import PostgresServer, RedisServer
from tests.support.site import Site
from tests.support.waiting import eventually

SLOTS = 10
QUIET = 1.0
_TASKS = Path(__file__).with_name("tasks.py")


@dataclass(frozen=True)
class Scene:
    """What is the same for all systems of a scenario; in seconds."""

    work: float
    interval: float
    late_ack: bool = False
    visibility: float = 3600.0
    rabbit: RabbitServer | None = None


class Stage:
    """A system at work; its workers have SLOTS slots, which is its cap as well if it has one."""

    def __init__(
        self, system: System, scene: Scene, site: Site, redis: RedisServer, broker: str
    ) -> None:
        self.system, self.scene, self.site, self.redis = system, scene, site, redis
        self._broker = broker
        self._killed: float | None = None
        self.publishes: RedisPublishes | RabbitPublishes = (
            RabbitPublishes(scene.rabbit, broker) if scene.rabbit else RedisPublishes(redis)
        )

    def worker(self, slots: int = SLOTS) -> CeleryWorker:
        """A worker, not started yet."""
        return self.site.worker(
            self._broker, work=self.scene.work, concurrency=slots, env=self._env
        )

    @contextmanager
    def fed(self) -> Iterator[None]:
        """Have the rows submitted, by a process that is at it when this is entered."""
        with self._scanner() if self.system.is_ours else self._feeder() as process:
            eventually(lambda: "scanning" in process.log(), timeout=60)
            yield

    def kill(self, worker: CeleryWorker) -> None:
        """Kill a worker as a container is killed."""
        self._killed = containers.kill(worker)

    def kill_children(self) -> None:
        """Kill all processes that are executing something."""
        for pid in {int(run.worker.rpartition("/")[2]) for run in self.running()}:
            os.kill(pid, signal.SIGKILL)
        self._killed = time.time()

    def running(self) -> list[Execution]:
        """The executions that have not ended, and whose process was not killed."""
        return [
            run
            for run in self.site.executions()
            if run.ended is None and (self._killed is None or run.started > self._killed)
        ]

    def wait_until_running(self, rows: int) -> None:
        """Until so many rows are worked on at once."""
        eventually(lambda: len({run.row for run in self.running()}) >= rows, timeout=60)

    def watch(
        self, over: Callable[[], bool], limit: float, kept: CeleryWorker | None = None
    ) -> None:
        """Let it go on until something is true, or for so many seconds at most.

        `kept` is a worker that is started again whenever it ends.
        """
        end = time.monotonic() + limit
        while time.monotonic() < end and not over():
            if kept:
                containers.keep(kept)
            time.sleep(0.1)

    def idle(self) -> bool:
        """Whether all rows are done, and nothing more comes of what was submitted."""
        executions = self.site.executions()
        newest = max((run.ended or run.started for run in executions), default=0.0)
        return (
            not self.missing()
            and not self.running()
            and self.publishes.waiting() == 0
            and time.time() - newest > QUIET
        )

    def missing(self) -> set[int]:
        """The rows that are not done."""
        history = self.site.history((), SLOTS)
        return set(history.rows - history.done)

    def begun_since_kill(self) -> set[int]:
        """The rows of which an execution began after the kill."""
        killed = self._killed or 0.0
        return {run.row for run in self.site.executions() if run.started > killed}

    def run(self, waiting: int | None = None) -> Run:
        """All that happened, and what is waiting now unless it is told."""
        history = self.site.history((), SLOTS)
        return Run(
            system=self.system,
            rows=history.rows,
            done=history.done,
            executions=history.executions,
            publishes=self.publishes.count(),
            waiting=self.publishes.waiting() if waiting is None else waiting,
            killed=self._killed,
        )

    @property
    def _env(self) -> dict[str, str]:
        package = Path(scannerjob.__file__).parents[1]
        return {
            "PYTHONPATH": f"{package}:{rivals()}",
            "SYSTEM": self.system.kind,
            "LOCKS": self.redis.url,
            "LOCK": str(self.system.lock),
            "LATE": "yes" if self.scene.late_ack else "no",
            "VISIBILITY": str(self.scene.visibility),
            "INTERVAL": str(self.scene.interval),
        }

    def _feeder(self) -> Process:
        env = {**os.environ, **self._env, "BROKER": self._broker, "WORK": "0"}
        env["DATABASE"] = self.site.database_url
        log = self.site.folder / "feeder.log"
        return Process([sys.executable, str(_TASKS)], log=log, env=env)

    def _scanner(self) -> Process:
        self.site.put_secret("app-broker", self._broker)
        self.site.put_secret("app-guard", self.redis.url)
        return self.site.scanner(
            self.site.scanner_job(
                interval=f"{self.scene.interval * 1000:.0f}ms",
                concurrency=SLOTS,
                # The others have no backoff either.
                retry={"backoff": "0s"},
                celery__guard={"urlSecretRef": {"name": "app-guard", "key": "url"}},
            )
        )


@contextmanager
def staged(system: System, scene: Scene, postgres: PostgresServer) -> Iterator[Stage]:
    """A stage with a Redis of its own."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisServer())
        broker = scene.rabbit.create_vhost() if scene.rabbit else redis.url
        site = Site(folder, postgres.create_database(), _TASKS.read_text())
        stage = Stage(system, scene, stack.enter_context(closing(site)), redis, broker)
        stack.enter_context(stage.publishes)
        yield stage


def all_at_once(scene: Scene, play: Callable[[Stage], Run]) -> list[Run]:
    """The scenario with all systems side by side: for work that mostly sleeps."""
    with PostgresServer() as postgres, ThreadPoolExecutor(len(SYSTEMS)) as pool:
        return list(pool.map(lambda system: _play(system, scene, postgres, play), SYSTEMS))


def in_turn(scene: Scene, play: Callable[[Stage], Run]) -> list[Run]:
    """The scenario with one system after the other: where each needs the whole machine."""
    with PostgresServer() as postgres:
        return [_play(system, scene, postgres, play) for system in SYSTEMS]


def _play(
    system: System, scene: Scene, postgres: PostgresServer, play: Callable[[Stage], Run]
) -> Run:
    with staged(system, scene, postgres) as stage:
        return play(stage)


def ours(runs: Sequence[Run]) -> Run:
    """The run of ScannerJob."""
    return next(run for run in runs if run.system.is_ours)
