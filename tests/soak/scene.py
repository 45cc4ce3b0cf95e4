"""All that takes part in a soak: both systems, the lanes of each, and those who do their work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
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
    with ExitStack() as ends:
        own = {kind: _lane(stage, f"operator-{kind}", kind) for kind in _RATES}
        alone = {kind: _lane(stage, f"run-{kind}", kind) for kind in SETTINGS}
        visited = Lane(stage.database_url, "guests", "redis", 0.0)
        cluster = Cluster(stage, folder)
        documents = [lane.document(NAMESPACE) for lane in alone.values()]
        standalone = Standalone(folder, documents)
        lanes: dict[Lane, System] = dict.fromkeys(own.values(), cluster)
        lanes |= dict.fromkeys(alone.values(), standalone)
        workers = [
            ends.enter_context(stage.consuming(setting, broker, lane.name))
            for kind, setting in SETTINGS.items()
            for broker in [stage.new_broker(setting.broker)]
            for lane in (own[kind], alone[kind], visited)
        ]
        credentials = Credentials(stage)
        everywhere = [*lanes, visited]
        kubelet = ends.enter_context(_kubelet(stage, everywhere))
        guests = Guests(cluster, visited, credentials)
        made = Scene(
            stage=stage,
            credentials=credentials,
            cluster=cluster,
            standalone=standalone,
            lanes=lanes,
            guests=guests,
            kubelet=kubelet,
            workers=list(dict.fromkeys(workers)),
        )
        made.rotate("blue")
        ends.callback(standalone.process.stop)
        ends.callback(cluster.process.stop)
        yield made


def _lane(stage: Stage, name: str, kind: Kind) -> Lane:
    return Lane(stage.database_url, name, kind, _RATES[kind])


def _kubelet(stage: Stage, lanes: list[Lane]) -> Kubelet:
    """One whose pods do the work of the lane that they are of."""
    applications = {lane.application.schema: lane.application for lane in lanes}

    def work(pod: Pod) -> None:
        applications[pod.env["TRIAL"]].work(pod)

    def fate(pod: Pod) -> Fate:
        return applications[pod.env["TRIAL"]].fate(pod)

    return Kubelet(stage.plane.kubeconfig(), [NAMESPACE], work=work, fate=fate)
