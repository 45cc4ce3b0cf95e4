"""What happens to the operators themselves, to their clocks and to their disk."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.faults.acts.common import Options, Over, chance_of, meant, not_yet, repeated
from tests.harness.trial import Trial


@contextmanager
def clock(trial: Trial, options: Options) -> Iterator[Over]:
    """The wall clock of operators is hours off; afterwards it is right again, or stays so."""
    operators = meant(trial, options)
    with trial.fault("clock"):
        for operator in operators:
            operator.set_clock(options["hours"] * 3600)
        yield not_yet
        for operator in operators if not options.get("stays") else ():
            operator.set_clock(0)


@contextmanager
def clock_jumps(trial: Trial, options: Options) -> Iterator[Over]:
    """The wall clock of operators jumps to and fro."""
    chance = chance_of(options)

    def jump() -> None:
        for operator in meant(trial, options):
            operator.set_clock(chance.uniform(-1, 1) * options["hours"] * 3600)

    with trial.fault("clock"):
        with repeated(jump, every=0.4):
            yield not_yet
        for operator in meant(trial, options):
            operator.set_clock(0)


@contextmanager
def freeze(trial: Trial, options: Options) -> Iterator[Over]:
    """An operator's process is stopped for a while, and then goes on as if nothing had happened."""
    operator = chance_of(options).choice(trial.operators)
    with trial.fault("frozen"):
        operator.pause()
        yield not_yet
        operator.resume()


@contextmanager
def freezes(trial: Trial, options: Options) -> Iterator[Over]:
    """An operator's process stops and goes on again and again."""
    operator = chance_of(options).choice(trial.operators)

    def turn() -> None:
        if operator.frozen:
            operator.resume()
        else:
            operator.pause()

    with trial.fault("frozen"):
        with repeated(turn, options["seconds"]):
            yield not_yet
        operator.resume()


@contextmanager
def kill(trial: Trial, options: Options) -> Iterator[Over]:
    """An operator's process is killed, and started again after a while."""
    operator = chance_of(options).choice(trial.operators)
    with trial.fault("killed"):
        operator.kill()
        yield not_yet
        operator.start()


@contextmanager
def disk_full(trial: Trial, options: Options) -> Iterator[Over]:
    """No file of the operators can grow: the ledger's, and that of their log."""
    size = chance_of(options).choice([0, _state_file(trial).stat().st_size])
    with trial.fault("state"):
        for operator in trial.operators:
            operator.limit_file_size(size)
        yield not_yet
        for operator in trial.operators:
            operator.limit_file_size(-1)


@contextmanager
def state_locked(trial: Trial, options: Options) -> Iterator[Over]:
    """Somebody else has the ledger's file to themselves."""
    with trial.fault("state"), _locked(trial):
        yield not_yet


@contextmanager
def state_flickers(trial: Trial, options: Options) -> Iterator[Over]:
    """Somebody else has the ledger's file to themselves again and again."""

    def lock() -> None:
        with _locked(trial):
            time.sleep(0.3)

    with trial.fault("state"), repeated(lock, every=0.1):
        yield not_yet


@contextmanager
def _locked(trial: Trial) -> Iterator[None]:
    with ExitStack() as ends:
        connection = sqlite3.connect(_state_file(trial), timeout=10, isolation_level=None)
        ends.callback(connection.close)
        connection.execute("BEGIN EXCLUSIVE")
        ends.callback(connection.execute, "ROLLBACK")
        yield


def _state_file(trial: Trial) -> Path:
    return Path(trial.state.removeprefix("sqlite:///"))
