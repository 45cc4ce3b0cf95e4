"""What a Celery target is opened with and given, and what its tests watch it by."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from scannerjob.model.facts import Fact, Observation, Send
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.row import Row
from scannerjob.model.spec import ScannerJobSpec, parse_spec
from scannerjob.targets.celery.delivery import boottime

_SECRET = {"urlSecretRef": {"name": "any", "key": "url"}}


def celery_spec(*, deadline: str | None = None, **celery: Any) -> ScannerJobSpec:
    """A spec with these fields of its `celery` part; the Secrets it names play no role."""
    celery = {"broker": _SECRET, "task": "docs.tasks.record", **celery}
    if deadline is not None:
        celery.setdefault("expires", "1h")
    document = {"database": _SECRET, "query": "SELECT 1 AS pdf_id", "celery": celery}
    return parse_spec(document | ({"deadline": deadline} if deadline else {}))


def make_send(
    values: Mapping[str, Any] | None = None,
    *,
    id: str | None = None,  # noqa: A002
    sends: int = 1,
    expires_in: float | None = None,
    time_limit: float | None = None,
) -> Send:
    now = datetime.now(UTC)
    item = Item("[1]", id or str(uuid4()), Phase.CLAIMED, attempt=1, sends=sends, since=now)
    return Send(
        item,
        Row("[1]", dict(values if values is not None else {"pdf_id": 1})),
        now + timedelta(seconds=expires_in) if expires_in is not None else None,
        timedelta(seconds=time_limit) if time_limit is not None else None,
    )


def make_sends(count: int, title: str = "a title") -> list[Send]:
    return [make_send({"pdf_id": number, "title": title}) for number in range(count)]


def ids_of(sends: Sequence[Send]) -> list[str]:
    return [send.item.id for send in sends]


def soon(seconds: float = 30) -> float:
    """A deadline."""
    return boottime() + seconds


def facts(seen: Mapping[str, Observation]) -> set[Fact]:
    return {observation.fact for observation in seen.values()}


def reasons(seen: Mapping[str, Observation]) -> str:
    return " | ".join(sorted({str(observation.reason) for observation in seen.values()}))


@contextlib.asynccontextmanager
async def watched_loop(longest: float) -> AsyncIterator[None]:
    """Fails if the event loop stood still for longer than so many seconds."""
    loop = asyncio.get_running_loop()
    worst = 0.0

    async def tick() -> None:
        nonlocal worst
        while True:
            before = loop.time()
            await asyncio.sleep(0.02)
            worst = max(worst, loop.time() - before)

    ticking = asyncio.create_task(tick())
    yield
    ticking.cancel()
    assert worst < longest, f"the event loop stood still for {worst:.2f} s"


class BlackHole:
    """Accepts connections and never says a word."""

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._connections.append(self._listener.accept()[0])

    def __exit__(self, *_: object) -> None:
        # A listener in accept() keeps its port until it is shut down.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()


class LossyProxy:
    """Passes everything on to a port until it sees `word` from a client: then answers are lost.

    What the client says is still passed on.
    """

    def __init__(self, port: int, word: bytes) -> None:
        self._port = port
        self._word = word
        self._lossy = False

    def __enter__(self) -> str:
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._port))
                for pump in (self._ask, self._answer):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                self._lossy = self._lossy or self._word in data
                server.sendall(data)
        server.close()

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if not self._lossy:
                    client.sendall(data)
        client.close()
