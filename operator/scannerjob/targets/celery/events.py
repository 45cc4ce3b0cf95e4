"""Hints that a task has ended: reasons to look sooner at what is out, never evidence of its fate.

Workers tell of each task that ends, if they run with `-E` or have the guard. Where they do not,
where nobody hears it, or where it is not true, a look at the interval finds all the same.
"""

from __future__ import annotations

import logging
import random
import threading
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Protocol
from weakref import WeakValueDictionary

from scannerjob.clock import boottime
from scannerjob.peers import Backoff
from scannerjob.targets.celery.endpoint import Endpoint

log = logging.getLogger(__name__)

# A connection that has held for so many seconds was not one that fails each time.
_HELD = 30.0


class EventStream(Protocol):
    """A connection over which events come, made and used by one thread."""

    def subscribe(self) -> None:
        """Connect, and have events sent from now on."""
        ...

    def receive(self) -> Sequence[str]:
        """The ids of tasks that ended, within about a second: often none.

        Raises if the server is silent.
        """
        ...

    def close(self) -> None:
        """Drop the connection, and what the broker keeps for it. Never raises."""
        ...


class Watch:
    """The launches of one ScannerJob that are out, and whether to look at them before it is time.

    `wake` is called, in the listener's thread, when there is a hint.
    """

    def __init__(self, listener: Listener, wake: Callable[[], None]) -> None:
        self._listener = listener
        self._wake = wake
        self._ids: frozenset[str] = frozenset()
        self._lock = threading.Lock()
        # What ended before this was made was not heard.
        self._hinted = True

    def expect(self, ids: Collection[str]) -> None:
        """Have these noticed, too; to be called before they are launched."""
        self._notice(self._ids.union(ids))

    def take(self, ids: Collection[str]) -> bool:
        """Whether there was a hint; `ids` is all that is out.

        To be called before anything is read: what ends after this is a new hint.
        """
        self._notice(frozenset(ids))
        with self._lock:
            hinted, self._hinted = self._hinted, False
        return hinted

    def hint(self) -> None:
        """Some of them may have ended. Called from any thread; many count as one."""
        with self._lock:
            known, self._hinted = self._hinted, True
        if not known:
            self._wake()

    def _notice(self, ids: frozenset[str]) -> None:
        self._listener.notice(self, self._ids, ids)
        self._ids = ids


class Listener:
    """Hears the events of one broker or guard, for all ScannerJobs that use it.

    Its thread begins with the first launch that is out, and ends with the last `Watch`. `silent`
    has the servers of which people were told that they cannot be heard.
    """

    def __init__(
        self, endpoint: Endpoint, connect: Callable[[], EventStream], silent: set[str]
    ) -> None:
        self._endpoint = endpoint
        self._connect = connect
        self._silent = silent
        self._watches: WeakValueDictionary[str, Watch] = WeakValueDictionary()
        self._ear: _Ear | None = None

    def watch(self, wake: Callable[[], None]) -> Watch:
        """For one ScannerJob, of which nothing is out yet."""
        return Watch(self, wake)

    def notice(self, watch: Watch, before: frozenset[str], after: frozenset[str]) -> None:
        """Of this `watch` these are out now."""
        for each in before - after:
            self._watches.pop(each, None)
        for each in after - before:
            self._watches[each] = watch
        if after:
            self._listen()

    def close(self) -> None:
        """End the thread and its connection, within seconds."""
        if self._ear:
            self._ear.stop()
        self._ear = None

    def _listen(self) -> None:
        if self._ear is not None:
            return
        ear = _Ear(self._endpoint, self._connect, self._silent, self._watches)
        # Where there are no threads left, hints are missed, and no launch.
        with suppress(RuntimeError):
            ear.start()
            self._ear = ear
            weakref.finalize(self, ear.stop)


class _Ear(threading.Thread):
    """Listens until it is told to stop. It must refer to no `Watch` while it waits."""

    def __init__(
        self,
        endpoint: Endpoint,
        connect: Callable[[], EventStream],
        silent: set[str],
        watches: WeakValueDictionary[str, Watch],
    ) -> None:
        super().__init__(name=f"events of {endpoint}", daemon=True)
        self._endpoint = endpoint
        self._connect = connect
        self._silent = silent
        self._watches = watches
        self._stopped = threading.Event()
        self._backoff = Backoff()

    def stop(self) -> None:
        """End, as soon as the call to the network that is under way returns."""
        self._stopped.set()

    def run(self) -> None:
        while not self._stopped.is_set():
            began, failure = boottime(), None
            try:
                self._listen()
            except Exception as error:  # noqa: BLE001 - whatever a client raises, only hints are missed
                failure = error
            if boottime() - began > _HELD:
                self._backoff.worked()
                self._silent.discard(str(self._endpoint))
            if failure:
                self._rest(failure)

    def _listen(self) -> None:
        stream = self._connect()
        try:
            stream.subscribe()
            self._hint_all()
            while not self._stopped.is_set():
                self._hint(stream.receive())
        finally:
            stream.close()

    def _rest(self, failure: Exception) -> None:
        log.log(
            logging.DEBUG if str(self._endpoint) in self._silent else logging.WARNING,
            "%s; until its events are heard, ended tasks are noticed at the interval",
            self._endpoint.describe(failure),
        )
        self._silent.add(str(self._endpoint))
        self._stopped.wait(random.uniform(1.0, self._backoff.failed(boottime())))

    def _hint_all(self) -> None:
        """What ended before this connection was not heard."""
        for reference in self._watches.valuerefs():
            if watch := reference():
                watch.hint()

    def _hint(self, ids: Iterable[str]) -> None:
        for each in ids:
            if watch := self._watches.get(each):
                watch.hint()
