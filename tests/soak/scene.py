"""All that takes part in a soak: both systems, the lanes of each, and those who do their work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.harness.setting import Setting
from tests.harness.stage import Stage
from tests.soak.credentials import Credentials
from tests.soak.guests import Guests
from tests.soak.lane import Kind, Lane
from tests.soak.systems import NAMESPACE, Cluster, Standalone, System
from tests.support.celery_worker import CeleryWorker
from tests.support.kubelet import Kubelet
from tests.support.pods import Fate, Pod

GUESTS = "guests"
# Rows a second.
_RATES: Mapping[Kind, float] = {"redis": 0.7, "rabbitmq": 0.7, "job": 0.3}
SETTINGS: Mapping[Kind, Setting] = {
    "redis": Setting(broker="redis", guard=True),
    "rabbitmq": Setting(broker="rabbitmq", guard=False),
}


@dataclass
class Scene:
    """See the module."""

    stage: Stage
    credentials: Credentials
    cluster: Cluster
    standalone: Standalone
    lanes: Mapping[Lane, System]
    guests: Guests
    kubelet: Kubelet
    workers: list[CeleryWorker]

    @property
    def systems(self) -> tuple[System, System]:
        """The processes that are watched."""
        return self.cluster, self.standalone

    @property
    def servers(self) -> Mapping[int, str]:
        """What is on each port."""
        stage = self.stage
        return {
            stage.postgres.port: "database",
            stage.redis.port: "Redis",
            stage.rabbitmq.port: "RabbitMQ",
            stage.plane.port: "API server",
        }

    def rotate(self, user: str) -> None:
        """Let all Secrets have this user's URLs, with passwords that they never had."""
        urls = self.credentials.renew(user)
        for system in self.systems:
            for secret, url in urls.items():
                system.put_secret(secret, url)

    def start(self) -> None:
        """Start both systems; the rows may come."""
        for lane, system in self.lanes.items():
            if isinstance(system, Cluster):
                system.create(lane.document(NAMESPACE))
        for system in self.systems:
            system.process.start()
        for lane in self.lanes:
            lane.begin()


@contextmanager
def scene(stage: Stage, folder: Path) -> Iterator[Scene]:
    """Everything but the systems is started."""
    own = [Lane(stage.database_url, f"operator-{kind}", kind, _RATES[kind]) for kind in _RATES]
    alone = [Lane(stage.database_url, f"run-{kind}", kind, _RATES[kind]) for kind in SETTINGS]
    visited = Lane(stage.database_url, GUESTS, "redis", 0.0)
    credentials = Credentials(stage)
    cluster = Cluster(stage, folder)
    standalone = Standalone(folder, [lane.document(NAMESPACE) for lane in alone])
    lanes: dict[Lane, System] = dict.fromkeys(own, cluster)
    lanes |= dict.fromkeys(alone, standalone)
    with ExitStack() as ends:
        workers = [ends.enter_context(each) for each in _consuming(stage, [*lanes, visited])]
        made = Scene(
            stage=stage,
            credentials=credentials,
            cluster=cluster,
            standalone=standalone,
            lanes=lanes,
            guests=Guests(cluster, visited, credentials),
            kubelet=ends.enter_context(_kubelet(stage, [*lanes, visited])),
            workers=list(dict.fromkeys(workers)),
        )
        made.rotate("blue")
        for system in made.systems:
            ends.callback(system.process.stop)
        yield made


def _consuming(
    stage: Stage, lanes: Sequence[Lane]
) -> Iterator[AbstractContextManager[CeleryWorker]]:
    """For each lane, workers of the kinds that it may need: guests are of all kinds."""
    for kind, setting in SETTINGS.items():
        broker = stage.new_broker(setting.broker)
        for lane in lanes:
            if lane.kind == kind or lane.name == GUESTS:
                yield stage.consuming(setting, broker, lane.name)


def _kubelet(stage: Stage, lanes: Sequence[Lane]) -> Kubelet:
    """One whose pods do the work of the lane that they are of."""
    applications = {lane.application.schema: lane.application for lane in lanes}

    def work(pod: Pod) -> None:
        applications[pod.env["TRIAL"]].work(pod)

    def fate(pod: Pod) -> Fate:
        return applications[pod.env["TRIAL"]].fate(pod)

    return Kubelet(stage.plane.kubeconfig(), [NAMESPACE], work=work, fate=fate)
