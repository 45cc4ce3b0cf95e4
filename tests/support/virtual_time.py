"""An event loop whose time goes on by itself, at once, when there is nothing to do but wait."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class _Jumping(selectors.SelectSelector):
    """Waits for no file: it moves the time on instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            if timeout is None:
                raise RuntimeError("nothing is left that could end the wait")
            self.now += max(0.0, timeout)
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is virtual: an hour of `asyncio.sleep` takes no time, and none passes otherwise."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def freeze(self, seconds: float) -> None:
        """Let time pass in which the process does nothing, as if it were stopped."""
        self._jumping.now += seconds


def run_virtually(main: Coroutine[Any, Any, _Result]) -> _Result:
    """`asyncio.run` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def now() -> float:
    """The time of the running loop."""
    return asyncio.get_running_loop().time()


def freeze(seconds: float) -> None:
    """See VirtualLoop, for the running one."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.freeze(seconds)
