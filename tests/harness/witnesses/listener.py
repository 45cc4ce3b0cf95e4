"""Listening to what a broker tells of the messages it is given."""

from __future__ import annotations

import abc
import contextlib
import socket
import threading
import time
from collections.abc import Generator
from typing import Self

from tests.proof.history import Gap, Message
from tests.support.waiting import eventually

_RETRY = 0.05


class Listener(abc.ABC):
    """Listens in a thread, and anew whenever it is cut off. Use it as a context manager."""

    failures: tuple[type[Exception], ...] = (OSError,)
    """What being cut off looks like."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._gaps: list[Gap] = []
        self._heard: float | None = None
        self._socket: socket.socket | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @abc.abstractmethod
    def _hear(self) -> Generator[None, None, None]:
        """Begin to listen to `_socket`; yields as soon as it does, and after all that is heard."""

    def messages(self) -> list[Message]:
        """What the operator published, in the order in which it was heard."""
        return list(self._messages)

    def gaps(self) -> list[Gap]:
        """When it was cut off: from the last thing it heard until it listened again."""
        return list(self._gaps)

    def __enter__(self) -> Self:
        self._thread.start()
        eventually(lambda: self._heard, timeout=60, message="it listens")
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        # An error means that it was cut off already.
        with contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_RETRY):
            with contextlib.suppress(*self.failures), contextlib.closing(self._hear()) as hearing:
                self._listen(hearing)

    def _listen(self, hearing: Generator[None, None, None]) -> None:
        next(hearing)
        if self._heard is not None:
            self._gaps.append(Gap("messages", self._heard, time.time()))
        self._heard = time.time()
        while not self._stopped.is_set():
            next(hearing)
            self._heard = time.time()
