"""What a Celery target is opened with and given, and what its tests watch it by."""

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Observation, Send
from scannerjob.model.ledger import Item, Phase
from scannerjob.model.row import Row
from scannerjob.model.spec import ScannerJobSpec, parse_spec
from scannerjob.targets.celery import Brokers, CeleryTarget
from tests.support.celery_worker import CeleryWorker
from tests.support.processes import Process

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


async def observed(target: CeleryTarget, ids: Collection[str]) -> dict[str, Observation]:
    return dict((await target.observe(ids)).observations)


def told(target: CeleryTarget, ids: Collection[str]) -> dict[str, Observation]:
    """What is observed of these launches, outside of an event loop."""

    async def scenario() -> dict[str, Observation]:
        seen = await observed(target, ids)
        await background_done()
        return seen

    return asyncio.run(scenario())


async def background_done() -> None:
    """Let a look at the queue end: with its event loop it would be cut off, connection and all.

    To be called by what `asyncio.run` runs, since it waits for all tasks but its own.
    """
    await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}))


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


class CuttableProxy:
    """Passes everything on to a port; the connections it has can be cut, or silenced for ever."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._pairs: list[tuple[socket.socket, socket.socket]] = []

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """As a load balancer does with connections that were idle for long."""
        for pair in self._pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def mute(self) -> None:
        """As a firewall does: nothing goes through, and nobody is told."""
        self._pairs = [(client, client) for client, _ in self._pairs]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client = self._listener.accept()[0]
                server = socket.create_connection(("127.0.0.1", self._port))
                self._pairs.append((client, server))
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        pair = {source, sink}
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if any(pair == set(known) for known in self._pairs):
                    sink.sendall(data)
        if any(pair == set(known) for known in self._pairs):
            sink.close()


ACCEPTED, NOT_SENT, UNCERTAIN = {Fact.ACCEPTED}, {Fact.NOT_SENT}, {Fact.UNCERTAIN}


def last_words(url: str, task_id: str) -> list[str]:
    """What a result backend keeps of how this task failed."""

    async def read() -> list[str]:
        brokers = Brokers()
        try:
            return await brokers.results(url).last_words(task_id)
        finally:
            brokers.close()

    return asyncio.run(read())


def opened(
    url: str,
    results: str | None = None,
    spec: ScannerJobSpec | None = None,
    *,
    guard: str | None = None,
) -> CeleryTarget:
    return Brokers().open(url, results, spec or celery_spec(), guard_url=guard)


def launch(target: CeleryTarget, sends: Sequence[Send], seconds: float = 30) -> Any:
    return asyncio.run(target.launch(sends, soon(seconds)))


def at(url: str, place: str) -> str:
    """The same URL, leading elsewhere."""
    return f"redis://{place}/0"


class Worker:
    """A worker that writes down what it runs."""

    def __init__(self, folder: Path, broker: str, results: str | None = None) -> None:
        (folder / "docs.py").write_text(WORKER)
        self._out = folder / "out"
        env = {"BROKER": broker, "OUT": str(self._out)} | ({"RESULTS": results} if results else {})
        self.process = CeleryWorker(folder / "docs.py", env=env)

    def __enter__(self) -> "Worker":
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def ran(self) -> list[dict[str, Any]]:
        if not self._out.exists():
            return []
        return [json.loads(line) for line in self._out.read_text().splitlines()]


WORKER = """
import json, os, time
from celery import Celery

app = Celery("docs", broker=os.environ["BROKER"], backend=os.environ.get("RESULTS"))
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True

if os.environ["BROKER"].startswith("sqla"):
    from kombu.transport.sqlalchemy import Transport
    Transport.polling_interval = 0.05


@app.task(name="docs.tasks.record", bind=True)
def record(self, **kwargs):
    line = json.dumps({"id": self.request.id, "kwargs": kwargs, "limit": self.request.timelimit})
    with open(os.environ["OUT"], "a") as out:
        out.write(line + "\\n")
    if kwargs.get("fail"):
        raise ValueError(kwargs["fail"])
    time.sleep(kwargs.get("sleep", 0))
"""


PUBLISHER = """
import asyncio, json, sys
from scannerjob.targets.celery import Brokers
from tests.support.celery_target import celery_spec, make_send, soon

url, seconds, size, ids = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
sends = [make_send({"pdf_id": 1, "title": "x" * size}, id=each) for each in ids]
target = Brokers().open(url, None, celery_spec())
deadline = soon(seconds)
print("ready", flush=True)
seen = asyncio.run(target.launch(sends, deadline))
print(json.dumps({each: known.fact.value for each, known in seen.items()}), flush=True)
"""


def publisher(
    folder: Path, url: str, sends: Sequence[Send], seconds: float = 30, size: int = 10
) -> Process:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'operator'}"}
    command = [sys.executable, "-c", PUBLISHER, url, str(seconds), str(size), *ids_of(sends)]
    return Process(command, log=folder / "publisher.log", env=env)
