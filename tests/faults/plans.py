"""The plans: what goes wrong in a trial, when, and for how long. Pure data.

A plan is named `FAMILY/VARIANT/SETTING/NUMBER`, and follows from its name alone: the number is the
seed of its times. So the list of all plans is the same everywhere, and each can be run again.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from typing import Any

from tests.harness.setting import Setting

Options = Mapping[str, float | str | bool]

_JOBS = Setting(target="job", proxied=True)
# Without a guard nobody tells of a task that failed: its launch would be held for good.
_NEVER = 10**6
_REDIS = Setting(guard=False, fails_every=_NEVER, proxied=True)
_GUARDED = Setting(proxied=True)
_RABBIT = Setting(broker="rabbitmq", guard=False, fails_every=_NEVER, proxied=True)
_GUARDED_RABBIT = Setting(broker="rabbitmq", proxied=True)
_GUARDED_SQL = Setting(broker="sql", proxied=True)

SETTINGS: Mapping[str, Setting] = {
    "jobs": _JOBS,
    "jobs-two": replace(_JOBS, replicas=2),
    "jobs-elected": replace(_JOBS, replicas=2, election=True),
    "redis": _REDIS,
    "redis-two": replace(_REDIS, replicas=2),
    "guarded": _GUARDED,
    "guarded-two": replace(_GUARDED, replicas=2),
    "guarded-elected": replace(_GUARDED, replicas=2, election=True),
    "rabbit": _RABBIT,
    "guarded-rabbit": _GUARDED_RABBIT,
    "guarded-rabbit-two": replace(_GUARDED_RABBIT, replicas=2),
    "guarded-sql-two": replace(_GUARDED_SQL, replicas=2),
    "alone-redis": replace(_REDIS, way="standalone"),
    "alone-guarded": replace(_GUARDED, way="standalone"),
    "alone-guarded-two": replace(_GUARDED, way="standalone", replicas=2),
    "alone-rabbit": replace(_RABBIT, way="standalone"),
    "alone-guarded-rabbit": replace(_GUARDED_RABBIT, way="standalone"),
}


@dataclass(frozen=True)
class Step:
    """One thing that goes wrong: `act` names how, in `acts.ACTS`, and `options` are the details.

    It begins `wait` seconds after so many launches were made (`after`), and is healed after `lasts`
    seconds, or as soon as it has done its harm.
    """

    act: str
    options: Options
    after: int
    wait: float
    lasts: float


@dataclass(frozen=True)
class Plan:
    """What goes wrong in one trial. `recovery`: within which time after that all is asked again.

    `patience`: how long all may take to be done. `quiet`: how long it is watched after that.
    """

    name: str
    setting: Setting
    steps: Sequence[Step]
    recovery: float
    patience: float
    quiet: float

    @property
    def family(self) -> str:
        """What kind of thing goes wrong."""
        return self.name.partition("/")[0]


@dataclass(frozen=True)
class Variant:
    """A way to go wrong, and the settings in which it can.

    `lasts`: for at least and at most so many seconds. `recovery`: what comes on top of that until
    all is asked again: rests grow with the time that something is away. `numbers`: how many plans
    there are of it, for each setting. `fails`: many rows fail once, so that there are rests to be
    kept.
    """

    act: str
    options: Options
    settings: Sequence[str]
    lasts: tuple[float, float] = (2.0, 5.0)
    recovery: float = 8.0
    numbers: int = 2
    spec: Mapping[str, Any] = field(default_factory=dict)
    fails: bool = False


_OF_JOBS = ("jobs", "jobs-two", "jobs-elected")
_OF_CELERY = ("redis-two", "guarded-two", "rabbit")
_IN_CLUSTER = (*_OF_JOBS, *_OF_CELERY)
_OF_TWO = ("jobs-two", "jobs-elected", "redis-two", "guarded-two")
_ALONE = ("alone-redis", "alone-guarded", "alone-guarded-two", "alone-guarded-rabbit")
_DATABASES = ("jobs-two", "redis-two", "guarded", "rabbit", "alone-redis", "alone-guarded-two")
_SQL = "guarded-sql-two"
_SERVERS = ("redis-two", "guarded-two", "rabbit", "guarded-rabbit-two", "alone-redis")
_BROKERS = (*_SERVERS, _SQL)
_GUARDS = ("guarded-two", "guarded-rabbit-two", "alone-guarded", _SQL)
_CLOCKS = (
    "jobs-two",
    "jobs-elected",
    "redis-two",
    "guarded-two",
    "guarded-rabbit",
    "alone-guarded",
)
_FREEZES = ("jobs", *_OF_TWO, "guarded-rabbit-two", "alone-guarded-two", "alone-redis")
_OF_SOME = ("jobs-two", "redis-two", "guarded")

# Longer than a replica lags in these plans.
_COOLDOWN = {"cooldown": "6s"}
# Slower than what the operator waits for an answer of the API server.
_TOO_SLOW = 11.0

_STATUS_WRITES: Options = {"method": "PUT", "path": "/scannerjobs/[^/]+/status$"}
_CREATES: Options = {"method": "POST", "path": "/jobs$"}
_ANY: Options = {"method": "", "path": "/(scannerjobs|jobs|pods)"}

_WATCH = {
    "silent": Variant("watch-silent", {}, _IN_CLUSTER),
    "one-silent": Variant("watch-silent", {"one": True}, _OF_TWO, (3.0, 6.0)),
    "late": Variant("watch-late", {"seconds": 2.0}, _IN_CLUSTER, (3.0, 6.0)),
    "one-late": Variant("watch-late", {"one": True, "seconds": 3.0}, _OF_TWO, (4.0, 7.0)),
    "too-old": Variant("watch-ended", {"code": 410}, _IN_CLUSTER),
    "in-error": Variant("watch-ended", {"code": 500}, _IN_CLUSTER),
    "closed": Variant("watch-ended", {}, _IN_CLUSTER),
    "missed": Variant("watch-missed", {}, _IN_CLUSTER, (2.0, 4.0)),
    "one-missed": Variant("watch-missed", {"one": True}, _OF_TWO, (2.0, 4.0)),
    "refused": Variant("watch-refused", {"status": 410}, _OF_JOBS, (2.0, 4.0)),
    "back-in-time": Variant("watch-back-in-time", {}, _IN_CLUSTER, (3.0, 5.0)),
    "one-back-in-time": Variant(
        "watch-back-in-time", {"one": True, "late": 1.5}, _OF_TWO, (3.0, 5.0)
    ),
}
_LATE = (12.0, 13.0)
# So long that what was read before it began cannot be what is acted on.
_LONGER = (14.0, 16.0)
_API = {
    "status-reply-lost": Variant("api-reply-lost", _STATUS_WRITES, _IN_CLUSTER),
    "status-request-lost": Variant("api-request-lost", _STATUS_WRITES, _IN_CLUSTER),
    "status-late": Variant(
        "api-late", {**_STATUS_WRITES, "before": _TOO_SLOW}, _OF_SOME, _LATE, 14.0
    ),
    "status-answered-late": Variant(
        "api-late", {**_STATUS_WRITES, "after": _TOO_SLOW}, _OF_SOME, _LATE, 14.0
    ),
    "create-reply-lost": Variant("api-reply-lost", _CREATES, _OF_JOBS, numbers=4),
    "create-request-lost": Variant("api-request-lost", _CREATES, _OF_JOBS),
    "create-late": Variant("api-late", {**_CREATES, "before": _TOO_SLOW}, _OF_JOBS, _LATE, 14.0),
    "any-reply-lost": Variant("api-reply-lost", _ANY, _IN_CLUSTER),
    "slow": Variant("api-slow", {"before": 0.3, "after": 0.3}, _IN_CLUSTER),
    "too-many-requests": Variant("api-refuses", {"status": 429, "retry_after": 1}, _IN_CLUSTER),
    "internal-errors": Variant("api-refuses", {"status": 500}, _IN_CLUSTER),
    "unavailable": Variant("api-refuses", {"status": 503}, _IN_CLUSTER),
    "half-fail": Variant("api-flaky", {"status": 500, "share": 0.5}, _IN_CLUSTER),
    "unknown-token": Variant("api-refuses", {"status": 401}, _OF_SOME),
    "conflicts": Variant("api-conflicts", {}, _IN_CLUSTER),
    "other-writer": Variant("other-writer", {"every": 0.05}, _IN_CLUSTER, (3.0, 6.0)),
    "down": Variant("api-down", {}, _IN_CLUSTER),
    "down-for-long": Variant("api-down", {}, _OF_SOME, _LONGER, 14.0, numbers=1),
    "silent": Variant("api-silent", {}, _IN_CLUSTER, (3.0, 6.0), 14.0),
    "one-cut-off": Variant("api-silent", {"one": True}, _OF_TWO, (5.0, 8.0), 14.0),
}
_ROWS: Options = {"part": "database", "pattern": "FETCH|SELECT id", "size": 200}
_DATABASE = {
    "refuses": Variant("down", {"part": "database"}, _DATABASES),
    "refuses-for-long": Variant("down", {"part": "database"}, _OF_SOME, _LONGER, 14.0, numbers=1),
    "silent": Variant("silent", {"part": "database"}, _DATABASES, (3.0, 6.0), 10.0),
    "silent-for-long": Variant("silent", {"part": "database"}, _OF_SOME, _LONGER, 14.0, numbers=1),
    "slow": Variant("slow", {"part": "database", "seconds": 0.2}, _DATABASES),
    "too-slow": Variant("slow", {"part": "database", "seconds": 2.5}, _DATABASES, (5.0, 8.0), 12.0),
    "cut": Variant("cut", _ROWS, _DATABASES),
    "reset": Variant("reset", {"part": "database"}, _DATABASES, (1.0, 2.0)),
    "replica": Variant(
        "replica", {"lag": 1.0}, _DATABASES, (4.0, 6.0), 10.0, numbers=3, spec=_COOLDOWN
    ),
    "stuck-replica": Variant(
        "replica", {"lag": 0.0, "stuck": True}, _DATABASES, (2.0, 3.0), 10.0, spec=_COOLDOWN
    ),
}
_PUBLISHED: Options = {"part": "broker", "pattern": "trial.work", "size": 0, "times": 2}
_BROKER = {
    "refuses": Variant("down", {"part": "broker"}, _BROKERS),
    "silent": Variant("silent", {"part": "broker"}, _BROKERS, (3.0, 6.0), 14.0),
    "slow": Variant("slow", {"part": "broker", "seconds": 0.2}, _BROKERS),
    "reply-lost": Variant("cut", _PUBLISHED, _BROKERS, numbers=3),
    "reset": Variant("reset", {"part": "broker"}, _BROKERS, (1.0, 2.0)),
    "restarts": Variant("restart", {"part": "broker"}, _SERVERS, (1.0, 2.0), 10.0),
    "forgets": Variant("flush", {"part": "broker"}, ("redis", "guarded"), (1.0, 2.0), 40.0),
}
_CHANGED: Options = {"part": "guard", "pattern": "EVAL", "size": 0, "times": 2}
_GUARD = {
    "refuses": Variant("down", {"part": "guard"}, _GUARDS),
    "refuses-for-long": Variant("down", {"part": "guard"}, _GUARDS, _LONGER, 14.0, numbers=1),
    "silent": Variant("silent", {"part": "guard"}, _GUARDS, (3.0, 6.0), 14.0),
    "slow": Variant("slow", {"part": "guard", "seconds": 0.2}, _GUARDS),
    "reply-lost": Variant("cut", _CHANGED, _GUARDS, numbers=4),
    "reset": Variant("reset", {"part": "guard"}, _GUARDS, (1.0, 2.0)),
    "restarts": Variant("restart", {"part": "guard"}, ("guarded-rabbit-two",), (1.0, 2.0), 10.0),
}
_CLOCK = {
    "ahead": Variant("clock", {"hours": 3.0}, _CLOCKS, fails=True),
    "behind": Variant("clock", {"hours": -3.0}, _CLOCKS, fails=True),
    "days-ahead": Variant("clock", {"hours": 60.0}, _CLOCKS, fails=True),
    "jumps": Variant("clock-jumps", {"hours": 2.0}, _CLOCKS, fails=True),
    "one-ahead": Variant("clock", {"hours": 1.0, "one": True}, _OF_TWO, fails=True),
    "one-behind": Variant("clock", {"hours": -1.0, "one": True}, _OF_TWO, fails=True),
    "stays-ahead": Variant("clock", {"hours": 3.0, "stays": True}, _CLOCKS, fails=True),
    "stays-behind": Variant("clock", {"hours": -3.0, "stays": True}, _CLOCKS, fails=True),
}
_FROZEN = {
    "beyond-lease": Variant("freeze", {}, _FREEZES, (4.5, 7.0)),
    "short": Variant("freeze", {}, _FREEZES, (0.5, 2.0)),
    "again-and-again": Variant("freezes", {"seconds": 0.6}, _FREEZES, (4.0, 6.0)),
    "beyond-send": Variant("freeze", {}, _OF_TWO, (32.0, 34.0), numbers=1),
}
_STATE = {
    "disk-full": Variant("disk-full", {}, _ALONE, numbers=3),
    "locked": Variant("state-locked", {}, _ALONE, (2.0, 6.0), numbers=3),
    "locked-for-long": Variant("state-locked", {}, _ALONE, (11.0, 12.0), 14.0, numbers=1),
    "locked-for-moments": Variant("state-flickers", {}, _ALONE, (3.0, 5.0)),
}
_KILLED = {"once": Variant("kill", {}, (*_FREEZES, "rabbit"), (0.5, 2.0), numbers=1)}

FAMILIES: Mapping[str, Mapping[str, Variant]] = {
    "watch": _WATCH,
    "api": _API,
    "database": _DATABASE,
    "broker": _BROKER,
    "guard": _GUARD,
    "clock": _CLOCK,
    "freeze": _FROZEN,
    "state": _STATE,
    "killed": _KILLED,
}

# A query that gets no answer has failed soon, so that a trial is brief.
_IMPATIENT = {"queryTimeout": "2s"}
# How long it takes until all is done, in seconds: with nothing held, and where something may be.
_LONG, _BRIEF = 90.0, 20.0
# How long the first plan of each kind is watched when all is done: nothing is to be written then.
_WATCHED = 8.0
_PAIRS = 140
# What is late, and what might take it for lost.
_CHOSEN_PAIRS = (
    ("api/create-late", "clock/ahead"),
    ("api/create-late", "clock/one-ahead"),
    ("api/create-late", "freeze/beyond-lease"),
    ("api/status-late", "clock/ahead"),
    ("broker/silent", "clock/days-ahead"),
    ("broker/silent", "clock/one-ahead"),
)
# What would be no second thing that goes wrong: they last for longer than the other.
_NOT_PAIRED = (
    "beyond-send",
    "locked-for-long",
    "down-for-long",
    "refuses-for-long",
    "silent-for-long",
    "status-late",
    "status-answered-late",
    "create-late",
)


@cache
def plans() -> Mapping[str, Plan]:
    """All plans, by name."""
    found = {plan.name: plan for plan in (*_singles(), *_pairs())}
    return dict(sorted(found.items(), key=lambda each: _order(each[0])))


def _order(name: str) -> float:
    """Families mixed, so that a part of the list is a sample of it."""
    return random.Random(name).random()


def _singles() -> Iterator[Plan]:
    for family, variants in FAMILIES.items():
        for name, variant in variants.items():
            for setting, number in product(variant.settings, range(1, variant.numbers + 1)):
                yield _plan(f"{family}/{name}/{setting}/{number}", setting, [variant])


def _pairs() -> Iterator[Plan]:
    """Two things that go wrong, the second while the first does or soon after."""
    chance = random.Random("pairs")
    known = [
        (family, name, variant)
        for family, variants in FAMILIES.items()
        for name, variant in variants.items()
        if name not in _NOT_PAIRED
    ]
    pairs = [
        (f"{one[0]}-{one[1]}+{other[0]}-{other[1]}", setting, [one[2], other[2]])
        for one, other in product(known, known)
        if one[0] != other[0]
        # Which was added later: the pairs of all others stay the same.
        for setting in sorted({*one[2].settings} & {*other[2].settings} - {_SQL})
    ]
    for name, setting, variants in chance.sample(pairs, _PAIRS):
        yield _plan(f"pair/{name}/{setting}/1", setting, variants)
    for first, second in _CHOSEN_PAIRS:
        variants = [_variant(first), _variant(second)]
        name = f"{first}+{second}".replace("/", "-")
        for setting in sorted({*variants[0].settings} & {*variants[1].settings}):
            yield _plan(f"pair/{name}/{setting}/1", setting, variants, upon=True)


def _variant(name: str) -> Variant:
    family, _, variant = name.partition("/")
    return FAMILIES[family][variant]


def _plan(name: str, setting: str, variants: Sequence[Variant], *, upon: bool = False) -> Plan:
    chance = random.Random(name)
    steps = [_step(variant, chance) for variant in variants]
    if upon or (len(steps) > 1 and chance.random() < 0.5):
        steps[1] = _upon(steps[0], steps[1], chance)
    recovery = max(variant.recovery for variant in variants) + max(s.lasts for s in steps) / 2
    spec = {name: value for variant in variants for name, value in variant.spec.items()}
    base = SETTINGS[setting]
    if any(variant.fails for variant in variants) and base.fails_every < _NEVER:
        base = replace(base, fails_every=2)
    return Plan(
        name=name,
        setting=replace(base, spec={**_IMPATIENT, **spec}),
        steps=tuple(steps),
        recovery=round(recovery, 1),
        patience=_BRIEF if _may_hold(base, variants) else _LONG,
        quiet=_WATCHED if name.endswith("/1") else 1.0,
    )


def _may_hold(setting: Setting, variants: Sequence[Variant]) -> bool:
    """Whether a launch may be held for good, since nobody can know what became of its message."""
    celery = setting.target == "celery" and not setting.guard
    return celery and (setting.broker == "rabbitmq" or any(v.act == "flush" for v in variants))


def _upon(first: Step, second: Step, chance: random.Random) -> Step:
    """The second, while the first lasts."""
    wait = round(chance.uniform(0, 2), 3)
    return replace(second, after=first.after, wait=wait, lasts=max(first.lasts, second.lasts))


def _step(variant: Variant, chance: random.Random) -> Step:
    options = {**variant.options, "seed": chance.randrange(10**6)}
    return Step(
        act=variant.act,
        options=options,
        after=chance.randint(1, 14),
        wait=round(chance.uniform(0, 0.3), 3),
        lasts=round(chance.uniform(*variant.lasts), 2),
    )
