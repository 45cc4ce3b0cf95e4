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
    interval: float | None = None,
    ignoring: type[Exception] | tuple[type[Exception], ...] = (),
) -> T:
    """Call `predicate` until it returns something true, and return that.

    Between two calls it pauses for `interval` seconds. By default it pauses for twice as long as a
    call took, and 50 ms at least: who waits leaves the processors to those that are waited for.

    An `assert` that fails inside it means "not yet", as does any exception in `ignoring`. After
    `timeout` seconds the failure tells what was awaited and what came last.
    """
    others = ignoring if isinstance(ignoring, tuple) else (ignoring,)
    ignored: tuple[type[Exception], ...] = (AssertionError, *others)
    deadline = time.monotonic() + timeout
    while True:
        asked = time.monotonic()
        try:
            last: object = (result := predicate())
            if result:
                return result
        except ignored as error:
            last = error
        now = time.monotonic()
        if now >= deadline:
            awaited = message or getattr(predicate, "__name__", "the condition")
            raise AssertionError(f"not within {timeout:g} s: {awaited}; last seen: {last!r}")
        time.sleep(max(0.05, 2 * (now - asked)) if interval is None else interval)
