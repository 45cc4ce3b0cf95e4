"""What is to be killed, and where: it follows from a seed alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from tests.crash.points import POINTS, SUPERSEDED, Point
from tests.harness.setting import Broker, Setting, Target, Way

# A process that has not come to its point by then is killed where it is; and how long one lives
# that dies at random, at most. In seconds.
_PATIENCE, _LATEST = 3.0, 1.8
# A Lease whose holder was killed is free only after four seconds.
_PATIENCE_ELECTED, _LATEST_ELECTED = 9.0, 8.0
# A claim is in doubt for five seconds.
_PATIENCE_SUPERSEDED = 12.0
_NAMED = 0.65


@dataclass(frozen=True)
class Life:
    """How one process dies: at a point, after so many passes, or so long after its start."""

    point: str | None
    passes: int
    after: float
    seed: int

    @property
    def name(self) -> str:
        """The point's, or that there was none."""
        return self.point or "at random"


@dataclass(frozen=True)
class Plan:
    """A setting, how many processes are killed, and how each of a replica dies, in turn."""

    seed: int
    setting: Setting
    kills: int

    def lives(self, replica: int) -> Iterator[Life]:
        """Without end."""
        rng = random.Random(f"{self.seed}/{replica}")
        elected = self.setting.election
        patience = _PATIENCE_ELECTED if elected else _PATIENCE
        latest = _LATEST_ELECTED if elected else _LATEST
        points = sorted(name for name, each in POINTS.items() if _is_on_the_way(each, self.setting))
        while True:
            point = rng.choice(points) if rng.random() < _NAMED else None
            if point == SUPERSEDED:
                yield from _superseding(rng)
                continue
            after = patience if point else rng.uniform(0.02, latest)
            yield Life(point, rng.choice((0, 0, 0, 1, 1, 2, 4, 8)), after, rng.randrange(2**32))


def _superseding(rng: random.Random) -> Iterator[Life]:
    """One that leaves a claim in doubt, and the next, which gives it up as its row has left."""
    for point in ("after the claim", SUPERSEDED):
        yield Life(point, 0, _PATIENCE_SUPERSEDED, rng.randrange(2**32))


def plan(seed: int, target: Target, kills: int = 30) -> Plan:
    """The plan of this number; numbers that follow one another go through all settings."""
    settings = _SETTINGS[target]
    setting = settings[seed % len(settings)]
    # A third, where each death is followed by four seconds without a leader.
    return Plan(seed, setting, kills // 3 if setting.election else kills)


def _celery(replicas: int, way: Way, election: bool, broker: Broker, guard: bool) -> Setting:
    return Setting(
        way=way,
        broker=broker,
        guard=guard,
        replicas=replicas,
        election=election,
        # Nobody tells of a failure but the guard.
        fails_every=7 if guard else 0,
        spec=_bounded() if broker != "redis" and not guard else {},
    )


def _bounded() -> dict[str, Any]:
    """Without a guard nothing but time tells that a message in doubt was never sent."""
    return {"deadline": "5s", "celery": {"expires": "10s"}}


_WAYS: tuple[tuple[Way, bool], ...] = (
    ("operator", False),
    ("standalone", False),
    ("operator", True),
)
_BROKERS: tuple[Broker, ...] = ("redis", "rabbitmq", "sql")
_SETTINGS: Mapping[Target, Sequence[Setting]] = {
    "celery": [
        _celery(replicas, way, election, broker, guard)
        for replicas, (way, election), guard, broker in product(
            (1, 2), _WAYS, (True, False), _BROKERS
        )
    ],
    "job": [
        Setting(target="job", replicas=replicas, election=election)
        for replicas, election in product((1, 2), (False, True))
    ],
}


def _is_on_the_way(point: Point, setting: Setting) -> bool:
    module = point.call
    absent = {
        "stores.kubernetes": setting.way == "standalone",
        "stores.sql": setting.way == "operator",
        "controller.lease": not setting.election,
        "targets.job": setting.target == "celery",
        "targets.celery": setting.target == "job",
        "redis_broker": setting.broker != "redis",
        "amqp_broker": setting.broker != "rabbitmq",
        "sql_broker": setting.broker != "sql",
        "_register": not setting.guard or setting.broker == "redis",
        ".supersede": not setting.guard,
    }
    return not any(part in module and gone for part, gone in absent.items())
