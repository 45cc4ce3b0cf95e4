"""Databases, brokers and the guard's store that go wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.acts.common import FLAKY, Options, Over, chance_of, not_yet, repeated
from tests.harness.trial import Trial
from tests.proof.history import Excuse
from tests.support.replica import PostgresReplica
from tests.support.tcpproxy import TcpProxy


def _proxy(trial: Trial, options: Options) -> TcpProxy:
    proxy: TcpProxy = getattr(trial, options["part"])
    return proxy


@contextmanager
def down(trial: Trial, options: Options) -> Iterator[Over]:
    """It refuses connections, and has cut all."""
    proxy = _proxy(trial, options)
    proxy.down()
    with trial.fault(options["part"]):
        yield not_yet
    proxy.restore()


@contextmanager
def silent(trial: Trial, options: Options) -> Iterator[Over]:
    """Nothing passes either way; what was said arrives later."""
    proxy = _proxy(trial, options)
    proxy.black_hole()
    with trial.fault(options["part"]):
        yield not_yet
    proxy.restore()


@contextmanager
def slow(trial: Trial, options: Options) -> Iterator[Over]:
    """Whatever is said takes long."""
    proxy = _proxy(trial, options)
    proxy.slow(options["seconds"])
    with trial.fault(FLAKY):
        yield not_yet
        proxy.restore()


@contextmanager
def cut(trial: Trial, options: Options) -> Iterator[Over]:
    """Connections end in the midst of an answer, or where one should come."""
    proxy, chance = _proxy(trial, options), chance_of(options)
    times = int(options["times"]) if "times" in options else None
    rule = proxy.cut(
        options["pattern"].encode(),
        after=int(options["size"]),
        skip=chance.randint(0, 3),
        times=times,
    )
    with trial.fault(FLAKY):
        yield lambda: rule.hits == times
        trial.cuts = (trial.cuts or 0) + rule.hits
        proxy.restore()


@contextmanager
def reset(trial: Trial, options: Options) -> Iterator[Over]:
    """All connections are cut again and again."""
    proxy, chance = _proxy(trial, options), chance_of(options)
    with trial.fault(FLAKY), repeated(proxy.cut_all, chance.uniform(0.1, 0.4)):
        yield not_yet


@contextmanager
def replica(trial: Trial, options: Options) -> Iterator[Over]:
    """The database fails over to a replica that lags behind, and back."""
    with PostgresReplica(trial.stage.postgres, options["lag"]) as follower:
        follower.wait_caught_up()
        if options.get("stuck"):
            follower.pause_replay()
        with trial.fault(FLAKY):
            trial.database.switch("127.0.0.1", follower.port)
            yield not_yet
            trial.database.switch("127.0.0.1", trial.stage.postgres.port)


@contextmanager
def restart(trial: Trial, options: Options) -> Iterator[Over]:
    """A broker, or the guard's store, is killed and started again, and has lost nothing."""
    on_redis = options["part"] == "guard" or trial.setting.broker == "redis"
    server = trial.stage.redis if on_redis else trial.stage.rabbitmq
    if not trial.setting.guard:
        trial.excuses.append(Excuse("delivered again", time.time()))
    with trial.fault(FLAKY):
        server.kill()
        try:
            yield not_yet
        finally:
            server.start()
    if not trial.setting.guard:
        trial.excuses.append(Excuse("delivered again", time.time()))


@contextmanager
def flush(trial: Trial, options: Options) -> Iterator[Over]:
    """The store loses all it has."""
    with trial.fault(FLAKY):
        trial.stage.redis.flush()
        trial.excuses.append(Excuse("store lost writes", time.time()))
        yield not_yet
