"""Waiting for something that another process does."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(
    predicate: Callable[[], T],
    timeout: float = 30,
    message: str = "",
    *,
    interval: float = 0.05,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Call `predicate` until it returns something true, and return that.

    An `assert` that fails inside it means "not yet", as does any exception in `ignoring`. After
    `timeout` seconds the failure tells what was awaited and what came last.
    """
    others = ignoring if isinstance(ignoring, tuple) else (ignoring,)
    ignored: tuple[type[Exception], ...] = (AssertionError, *others)
    deadline = time.monotonic() + timeout
    while True:
        try:
            last: object = (result := predicate())
            if result:
                return result
        except ignored as error:
            last = error
        if time.monotonic() >= deadline:
            awaited = message or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"not within {timeout:g} s: {awaited}; last seen: {last!r}")
        time.sleep(interval)
