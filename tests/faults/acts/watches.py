"""Watches that go wrong: those of the informer, which shows an operator ScannerJobs and Jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from tests.faults.acts.common import FLAKY, Options, Over, Takes, by_whom, not_yet, repeated
from tests.harness.trial import Trial
from tests.support.faults import Answer, EndWatch, Fault, Lag, LoseRequest, Stale, Stall


def _informs(by: Takes) -> Takes:
    return lambda request: request.user_agent.startswith("kopf") and by(request)


def _watches(by: Takes) -> Takes:
    informs = _informs(by)
    return lambda request: request.watch and informs(request)


def end_watches(trial: Trial, by: Takes, code: float | None = None) -> None:
    """End those that are open, and no later ones."""
    code_or_none = None if code is None else int(code)
    trial.api.remove(trial.api.add(EndWatch(code_or_none), when=_watches(by)))


@contextmanager
def _watch_fault(trial: Trial, options: Options, fault: Fault) -> Iterator[Over]:
    by = by_whom(trial, options)
    rule = trial.api.add(fault, when=_watches(by))
    with trial.fault(FLAKY):
        yield not_yet
        trial.api.remove(rule)
        end_watches(trial, by)


def watch_silent(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Watches stay open and say nothing; then they end, and are begun anew."""
    return _watch_fault(trial, options, Stall())


def watch_late(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Watches show the past."""
    return _watch_fault(trial, options, Lag(options["seconds"]))


@contextmanager
def watch_ended(trial: Trial, options: Options) -> Iterator[Over]:
    """Watches end again and again, with an error or without."""
    by = by_whom(trial, options)
    with (
        trial.fault(FLAKY),
        repeated(lambda: end_watches(trial, by, options.get("code"))),
    ):
        yield not_yet


@contextmanager
def watch_missed(trial: Trial, options: Options) -> Iterator[Over]:
    """Watches end, and for a while neither lists nor watches are had: what happens is missed."""
    by = by_whom(trial, options)
    rule = trial.api.add(LoseRequest(), when=_informs(by))
    end_watches(trial, by)
    with trial.fault(FLAKY):
        yield not_yet
        trial.api.remove(rule)


@contextmanager
def watch_refused(trial: Trial, options: Options) -> Iterator[Over]:
    """Watches end, and new ones are refused."""
    by = by_whom(trial, options)
    rule = trial.api.add(Answer(int(options["status"])), when=_watches(by))
    end_watches(trial, by)
    with trial.fault(FLAKY):
        yield not_yet
        trial.api.remove(rule)


@contextmanager
def watch_back_in_time(trial: Trial, options: Options) -> Iterator[Over]:
    """Lists are older than what was known, and watches go on from there, perhaps late."""
    by = by_whom(trial, options)
    rules = [trial.api.add(Stale(), when=_informs(by))]
    if late := options.get("late"):
        rules.append(trial.api.add(Lag(late), when=_watches(by)))
    with trial.fault(FLAKY):
        with repeated(lambda: end_watches(trial, by, 410), every=1.5):
            yield not_yet
        trial.api.remove(*rules)
        end_watches(trial, by, 410)
