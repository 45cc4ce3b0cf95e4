"""Blocking clients beside the event loop: one thread for each server, replaced when it hangs."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from scannerjob.clock import boottime

# Each abandoned thread hangs in a call to the network, which has a timeout of its own wherever the
# client knows one. Where it does not, this many may hang before no more are started.
_MAX_ABANDONED = 4


class Client(Protocol):
    """What a lane's thread works with."""

    def close(self) -> None:
        """Drop the connection, if there is one. Never raises."""
        ...


_Client = TypeVar("_Client", bound=Client)
_Result = TypeVar("_Result")


class _Call:
    """One call that waits for the thread, or is run by it."""

    def __init__(self, work: Callable[[Any], Any]) -> None:
        self.work = work
        self.answer: Future[Any] = Future()
        self.given_up = False

    @property
    def hangs(self) -> bool:
        """Whether it still runs although nobody waits for it."""
        return self.given_up and not self.answer.done()


_Calls = SimpleQueue[_Call | None]


class _Thread(threading.Thread):
    """Takes calls until it is told to stop, or is abandoned and comes back from where it hung.

    A daemon thread: the process must be able to end while a server hangs.
    """

    def __init__(self, name: str, calls: _Calls, connect: Callable[[], Client]) -> None:
        super().__init__(name=name, daemon=True)
        self._calls = calls
        self._connect = connect
        self._client: Client | None = None
        self.current: _Call | None = None
        self.abandoned = False

    def run(self) -> None:
        while not self.abandoned and self._take_call():
            pass
        self._disconnect()

    # While it waits for the next call, this thread must not refer to the last one: that would keep
    # alive the lane whose end it waits for.
    def _take_call(self) -> bool:
        call = self._calls.get()
        if call is None:
            return False
        # A call that nobody waits for any more is not begun.
        if call.answer.set_running_or_notify_cancel():
            self.current = call
            self._answer(call)
            self.current = None
        return True

    def _answer(self, call: _Call) -> None:
        try:
            self._client = self._client or self._connect()
            call.answer.set_result(call.work(self._client))
        except Exception as error:  # noqa: BLE001 - it is raised where it is awaited
            self._disconnect()
            call.answer.set_exception(error)

    def _disconnect(self) -> None:
        if self._client:
            self._client.close()
        self._client = None


class Lane(Generic[_Client]):
    """Runs calls to one server, one after another, each with a deadline that holds if it hangs.

    A thread owns the client, which `connect` makes; one whose call failed is closed and made anew.
    When a call outlives its deadline its thread is abandoned where it hangs, and a new one takes
    the calls that wait behind it. The thread ends with the last reference to its lane.
    """

    def __init__(self, name: str, connect: Callable[[], _Client]) -> None:
        self._name = name
        self._connect = connect
        self._calls: _Calls = SimpleQueue()
        self._thread: _Thread | None = None
        self._abandoned: list[_Thread] = []
        weakref.finalize(self, self._calls.put, None)

    async def run(self, work: Callable[[_Client], _Result], deadline: float) -> _Result:
        """The result of `work`, or its exception. Raises TimeoutError at `deadline` (boottime).

        A call that timed out may go on in its abandoned thread, and keeps alive what it refers to:
        `work` must see to it that it does no harm there.
        """
        remaining = deadline - boottime()
        if remaining <= 0:
            raise TimeoutError
        call = _Call(work)
        if self._thread is None or not self._thread.is_alive():
            self._start()
        self._calls.put(call)
        try:
            async with asyncio.timeout(remaining):
                result: _Result = await asyncio.wrap_future(call.answer)
                return result
        finally:
            call.answer.cancel()
            call.given_up = True
            self._replace_stuck_thread()

    def close(self) -> None:
        """End the thread once it has taken the calls before this one."""
        self._calls.put(None)

    def _start(self) -> None:
        self._thread = _Thread(self._name, self._calls, self._connect)
        self._thread.start()

    def _replace_stuck_thread(self) -> None:
        current = self._thread.current if self._thread else None
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        if current and current.hangs and len(self._abandoned) < _MAX_ABANDONED:
            self._abandon()

    def _abandon(self) -> None:
        if self._thread:
            self._thread.abandoned = True
            self._abandoned.append(self._thread)
        self._start()
