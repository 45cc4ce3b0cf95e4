"""Blocking calls beside the event loop, with a deadline that holds even if one never returns."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_Result = TypeVar("_Result")


class Threads:
    """Runs at most `limit` blocking calls at a time, each in a daemon thread of its own.

    Daemon threads, because a pool's are joined at exit: a server that hangs would keep the process
    from ending. A call that hangs keeps its place until it returns; where such calls have taken all
    places, further ones time out before they begin.
    """

    def __init__(self, limit: int) -> None:
        self._places = asyncio.Semaphore(limit)

    async def run(self, call: Callable[[], _Result], seconds: float) -> _Result:
        """The call's result or exception. Raises TimeoutError after so many `seconds`.

        A call that began may take effect even later: what it did is then unknown.
        """
        async with asyncio.timeout(seconds):
            await self._places.acquire()
            return await asyncio.wrap_future(self._start(call))

    def _start(self, call: Callable[[], _Result]) -> Future[_Result]:
        loop = asyncio.get_running_loop()
        future: Future[_Result] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(call())
            except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
                future.set_exception(error)
            # A loop that was closed meanwhile has nobody left who waits for a place.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._places.release)

        threading.Thread(target=work, name="database", daemon=True).start()
        return future
