"""Calls to the API server that go wrong."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from itertools import count
from typing import Any

from tests.faults.acts.common import (
    FLAKY,
    Options,
    Over,
    by_whom,
    chance_of,
    not_yet,
    repeated,
)
from tests.faults.acts.watches import end_watches
from tests.harness.trial import NAME, Trial
from tests.support.api import ApiError
from tests.support.faults import Answer, Delay, Fault, LoseReply, LoseRequest, Request, Rule, Stall

_MERGE = "application/merge-patch+json"


@contextmanager
def _some_calls(trial: Trial, options: Options, fault: Fault, after: float = 0.0) -> Iterator[Over]:
    """The fault, for a few of the next calls; all is over so many seconds `after` the last one."""
    chance, by = chance_of(options), by_whom(trial, options)
    left_alone, times = chance.randint(0, 3), chance.randint(1, 3)
    passed: list[Request] = []

    def takes(request: Request) -> bool:
        if request.watch or "dryRun" in request.query or not by(request):
            return False
        if len(passed) < left_alone:
            passed.append(request)
            return False
        return True

    method = options.get("method") or None
    rule = trial.api.add(fault, method=method, path=options["path"], when=takes, times=times)

    def over() -> bool:
        return len(rule.hits) == times and time.time() > rule.hits[-1].time + after

    with trial.fault(FLAKY):
        yield over
        trial.api.remove(rule)


def api_reply_lost(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Some calls are done, and their answers get lost."""
    return _some_calls(trial, options, LoseReply())


def api_request_lost(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Some calls never arrive."""
    return _some_calls(trial, options, LoseRequest())


def api_late(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Some calls arrive, or are answered, when nobody waits for them any more."""
    before, after = options.get("before", 0.0), options.get("after", 0.0)
    return _some_calls(trial, options, Delay(before, after), before + after + 0.5)


@contextmanager
def _all_calls(
    trial: Trial,
    options: Options,
    fault: Fault,
    *,
    method: str | None = None,
    path: str = "",
) -> Iterator[Over]:
    by = by_whom(trial, options)
    rule = trial.api.add(
        fault, method=method, path=path, when=lambda request: not request.watch and by(request)
    )
    with trial.fault(FLAKY):
        yield not_yet
        trial.api.remove(rule)


def api_slow(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """All calls take long."""
    return _all_calls(trial, options, Delay(options["before"], options["after"]))


def api_conflicts(trial: Trial, options: Options) -> AbstractContextManager[Over]:
    """Somebody else was always quicker."""
    return _all_calls(trial, options, Answer(409), method="PUT", path="/status$")


@contextmanager
def api_refuses(trial: Trial, options: Options) -> Iterator[Over]:
    """The API server refuses everything, watches too."""
    retry_after = int(options["retry_after"]) if "retry_after" in options else None
    rule = trial.api.add(Answer(int(options["status"]), retry_after=retry_after))
    end_watches(trial, lambda request: True)
    with trial.fault("api"):
        yield not_yet
    trial.api.remove(rule)


@contextmanager
def api_flaky(trial: Trial, options: Options) -> Iterator[Over]:
    """The API server refuses some of what it is asked."""
    chance = chance_of(options)
    rule = trial.api.add(
        Answer(int(options["status"])), when=lambda request: chance.random() < options["share"]
    )
    with trial.fault(FLAKY):
        yield not_yet
        trial.api.remove(rule)


@contextmanager
def api_down(trial: Trial, options: Options) -> Iterator[Over]:
    """The API server refuses connections, and has cut all."""
    trial.api.down()
    with trial.fault("api"):
        yield not_yet
    trial.api.up()


@contextmanager
def api_silent(trial: Trial, options: Options) -> Iterator[Over]:
    """The API server accepts, and says nothing; watches neither."""
    by = by_whom(trial, options)
    rules: list[Rule] = [
        trial.api.add(Stall(), when=lambda request: request.watch and by(request)),
        trial.api.add(LoseRequest(math.inf), when=by),
    ]
    with trial.fault(FLAKY if options.get("one") else "api"):
        yield not_yet
    trial.api.remove(*rules)
    end_watches(trial, by)


@contextmanager
def other_writer(trial: Trial, options: Options) -> Iterator[Over]:
    """Somebody writes the ScannerJob all the time, so that most writes of a status are lost."""
    path = f"/apis/scannerjob.dev/v1alpha1/namespaces/{trial.name}/scannerjobs/{NAME}"
    numbers = count()

    def write() -> None:
        with suppress(ApiError):
            trial.stage.api.request("PATCH", path, _annotated(next(numbers)), content=_MERGE)

    with trial.fault(FLAKY), repeated(write, options["every"]):
        yield not_yet


def _annotated(number: int) -> dict[str, Any]:
    return {"metadata": {"annotations": {"example.com/number": str(number)}}}
