"""One hung broker among ten: how long launches through the other nine take, beside it and without.

One engine runs ten ScannerJobs, and each round gives a row to every one. A launch has taken until
Redis, by its own clock, was given the message: half an interval, if nothing else takes any time.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

import psycopg
import redis

from benchmarks.table import Table, percentile
from scannerjob.connect import SecretConnector
from scannerjob.engine import Engine
from scannerjob.ports import Ref
from scannerjob.secrets import DirectorySecrets
from scannerjob.stores.memory import MemoryStore
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually

HEALTHY = 9
BLOCKS = 2
ROUNDS = 50
INTERVAL = 0.5
PATIENCE = 60.0
SLOWER, LATER, AT_MOST = 1.2, 0.05, 1.0


def run() -> Table:
    """All ten healthy and one of them hung, in turn."""
    alone: list[float] = []
    beside: list[float] = []
    with _stage() as stage:
        for _ in range(BLOCKS):
            for samples, hung in ((alone, False), (beside, True)):
                samples.extend(asyncio.run(stage.block(hung=hung)))
    return _table(alone, beside)


@contextmanager
def _stage() -> Iterator["_Stage"]:
    with (
        PostgresServer() as postgres,
        RedisServer() as healthy,
        RedisServer() as tenth,
        _arrivals(healthy) as arrivals,
        tempfile.TemporaryDirectory() as directory,
    ):
        yield _Stage(postgres, healthy, tenth, arrivals, Path(directory))


class _Stage:
    """Ten ScannerJobs on one table: nine on databases of one Redis, the tenth on another Redis."""

    def __init__(
        self,
        postgres: PostgresServer,
        healthy: RedisServer,
        tenth: RedisServer,
        arrivals: Mapping[int, list[float]],
        directory: Path,
    ) -> None:
        url = postgres.create_database()
        self._tenth = tenth
        self._arrivals = arrivals
        self._database = psycopg.connect(url.replace("+psycopg", ""), autocommit=True)
        self._database.execute("CREATE TABLE pdf (id serial PRIMARY KEY, job int)")
        brokers = [*(healthy.database_url(number) for number in range(HEALTHY)), tenth.url]
        secrets = {"db": url} | {f"broker-{n}": broker for n, broker in enumerate(brokers)}
        for name, value in secrets.items():
            (directory / name).mkdir(exist_ok=True)
            (directory / name / "url").write_text(value)
        self._secrets = DirectorySecrets(directory)

    async def block(self, *, hung: bool) -> list[float]:
        """The seconds from row to message, of nine ScannerJobs in some rounds."""
        store = MemoryStore()
        refs = [await store.apply(_document(number)) for number in range(HEALTHY + 1)]
        async with self._engine(store, refs):
            await self._round()  # connects
            if hung:
                self._tenth.pause()
            latencies = [each for _ in range(ROUNDS) for each in await self._round()]
            assert (await _launched(store, refs[-1]) < ROUNDS / 2) == hung
            self._tenth.resume()
        return latencies

    @asynccontextmanager
    async def _engine(self, store: MemoryStore, refs: Sequence[Ref]) -> AsyncIterator[None]:
        connector = SecretConnector(self._secrets, in_cluster=False)
        engine = Engine(store, connector)
        for ref in refs:
            engine.wake(ref)
        yield
        await engine.close()
        await connector.close()

    async def _round(self) -> list[float]:
        expected = [count + 1 for count in self._counts()]
        self._database.execute(f"INSERT INTO pdf (job) SELECT generate_series(0, {HEALTHY})")
        inserted = time.time()
        await asyncio.to_thread(eventually, lambda: self._counts() == expected, PATIENCE)
        self._database.execute("DELETE FROM pdf")
        await asyncio.sleep(random.uniform(0, INTERVAL))
        return [self._arrivals[number][-1] - inserted for number in range(HEALTHY)]

    def _counts(self) -> list[int]:
        return [len(self._arrivals[number]) for number in range(HEALTHY)]


@contextmanager
def _arrivals(server: RedisServer) -> Iterator[Mapping[int, list[float]]]:
    """When a message was put into each of its databases, as Redis tells a monitor."""
    seen: dict[int, list[float]] = defaultdict(list)
    with (
        redis.Redis.from_url(server.url, socket_timeout=None) as client,
        client.monitor() as monitor,
    ):

        def watch() -> None:
            for command in monitor.listen():
                if command["command"].startswith("LPUSH"):
                    seen[command["db"]].append(command["time"])
                elif command["command"] == "ECHO done":
                    return

        watching = threading.Thread(target=watch)
        watching.start()
        try:
            yield seen
        finally:
            client.echo("done")
            watching.join()


async def _launched(store: MemoryStore, ref: Ref) -> int:
    snapshot = await store.read(ref)
    assert snapshot
    return int(snapshot.status["launched"])


def _table(alone: Sequence[float], beside: Sequence[float]) -> Table:
    header = ["the tenth broker", "launches", "p50, ms", "p95, ms", "max, ms"]
    title = f"From row to message through {HEALTHY} healthy brokers, interval {INTERVAL:g} s"
    table = Table(title, header)
    for name, samples in (("healthy", alone), ("hung", beside)):
        figures = (median(samples), percentile(samples, 0.95), max(samples))
        table.rows.append([name, str(len(samples)), *(f"{each * 1000:.0f}" for each in figures)])
    p95, p95_beside = percentile(alone, 0.95), percentile(beside, 0.95)
    table.bars += [
        (
            f"p95 beside the one that hangs is {p95_beside * 1000:.0f} ms, without {p95 * 1000:.0f}"
            f" (bar: {SLOWER:g} times, and {LATER * 1000:.0f} ms)",
            p95_beside <= SLOWER * p95 + LATER,
        ),
        (
            f"the slowest beside it took {(max(beside) - max(alone)) * 1000:+.0f} ms "
            f"(bar: {AT_MOST:g} s more)",
            max(beside) - max(alone) < AT_MOST,
        ),
    ]
    return table


def _document(number: int) -> dict[str, object]:
    return {
        "metadata": {"name": f"scan-{number}", "namespace": "default"},
        "spec": {
            "database": {"urlSecretRef": {"name": "db", "key": "url"}},
            "query": f"SELECT id FROM pdf WHERE job = {number}",
            "interval": f"{INTERVAL * 1000:.0f}ms",
            "concurrency": 10,
            "celery": {
                "broker": {"urlSecretRef": {"name": f"broker-{number}", "key": "url"}},
                "task": "tasks.work",
            },
        },
    }
