"""How things go wrong: each act of a plan's steps, done to the parts of a running trial.

An act is a context manager: what goes wrong does so within it, and is noted for the judge. What it
gives says whether it has done all its harm, so that it may end before its time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from tests.harness.operators import Operator
from tests.harness.trial import Trial
from tests.support.faults import Request
from tests.support.processes import has_port

Options = Mapping[str, Any]
Over = Callable[[], bool]
Act = Callable[[Trial, Options], AbstractContextManager[Over]]
Takes = Callable[[Request], bool]

# What fails now and then, and tells nothing of whether the rest gets through.
FLAKY = "flaky"
# How often something is done again that goes wrong again and again.
AGAIN = 0.7


def not_yet() -> bool:
    """It lasts as long as it was planned to."""
    return False


def chance_of(options: Options) -> random.Random:
    """What decides the details of an act."""
    return random.Random(options["seed"])


def meant(trial: Trial, options: Options) -> list[Operator]:
    """The operators that something happens to: all of them, or one of two."""
    if not options.get("one"):
        return trial.operators
    return [chance_of(options).choice(trial.operators)]


def by_whom(trial: Trial, options: Options) -> Takes:
    """Whether a request is by one of the operators that are meant."""
    if not options.get("one"):
        return lambda request: True
    pids = [each.child.pid for each in meant(trial, options) if each.child]
    return lambda request: any(has_port(pid, request.port) for pid in pids)


@contextmanager
def repeated(action: Callable[[], None], every: float = AGAIN) -> Iterator[None]:
    """Do something again and again, at once for the first time."""
    ended = threading.Event()

    def repeat() -> None:
        action()
        while not ended.wait(every):
            action()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
