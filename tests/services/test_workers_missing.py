"""What a status says of workers that are not there, on a real database and real brokers."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from scannerjob.clock import boottime
from scannerjob.connect import SecretConnector
from scannerjob.model.conditions import find
from scannerjob.ports import Ref
from scannerjob.scan import Scanner
from scannerjob.secrets import DirectorySecrets
from scannerjob.stores.memory import MemoryStore
from tests.support.site import Site


class _Clock:
    """This machine's, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta(0)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def boottime(self) -> float:
        return boottime() + self.ahead.total_seconds()


class _Cycles:
    """One ScannerJob whose cycles the test runs."""

    def __init__(self, site: Site) -> None:
        self.clock = _Clock()
        self._site = site
        self._store = MemoryStore()
        self._connector = SecretConnector(DirectorySecrets(site.secrets), in_cluster=False)
        self._ref = Ref("default", "pages")
        self._scanner = Scanner(self._ref, self._store, self._connector, self.clock)

    async def apply(self, **changes: Any) -> None:
        file = self._site.scanner_job(concurrency=2, **changes)
        await self._store.apply(yaml.safe_load(file.read_text()))

    async def until(self, status: str, reason: str) -> str:
        """Run cycles until `WorkersMissing` says this; gives its message."""
        async with asyncio.timeout(60):
            while True:
                await self._scanner.cycle()
                said = await self._said()
                if (said.get("status"), said.get("reason")) == (status, reason):
                    return str(said["message"])
                await asyncio.sleep(0.2)

    async def _said(self) -> Mapping[str, Any]:
        snapshot = await self._store.read(self._ref)
        assert snapshot
        return find(snapshot.status, "WorkersMissing")

    async def close(self) -> None:
        await self._connector.close()


@pytest.fixture
def site(tmp_path: Path, sqlite_url: str) -> Iterator[Site]:
    with closing(Site(tmp_path, sqlite_url)) as site:
        yield site


def test_a_queue_to_which_nobody_listens_is_named_until_somebody_does(
    site: Site, amqp_url: str
) -> None:
    site.put_secret("app-broker", amqp_url)
    worker = site.worker(amqp_url)

    async def scenario() -> None:
        cycles = _Cycles(site)
        await cycles.apply()
        await cycles.until("False", "WorkersSeen")  # nothing is launched
        site.add_rows(1, 3)
        cycles.clock.ahead += timedelta(minutes=1)  # the next look at the rows is due
        await cycles.until("False", "WorkersSeen")
        cycles.clock.ahead += timedelta(minutes=2)
        message = await cycles.until("True", "NoConsumer")
        assert "no worker seen on celery since " in message

        with worker:
            await cycles.until("False", "WorkersSeen")
        await cycles.close()

    asyncio.run(scenario())


def test_it_is_said_no_more_once_nothing_is_launched(site: Site, redis_url: str) -> None:
    site.put_secret("app-broker", redis_url)
    site.add_rows(1, 1)

    async def scenario() -> None:
        cycles = _Cycles(site)
        await cycles.apply()
        cycles.clock.ahead += timedelta(minutes=1)
        await cycles._scanner.cycle()
        cycles.clock.ahead += timedelta(minutes=30)
        await cycles.until("True", "NothingTaken")

        site.execute("UPDATE pdf SET done = 1")
        cycles.clock.ahead += timedelta(minutes=1)
        await cycles.until("False", "WorkersSeen")
        await cycles.close()

    asyncio.run(scenario())
