"""What a ScannerJob with nothing to do costs: statements the database counted, and writes."""

import asyncio
import tempfile
from pathlib import Path

import pymysql

from benchmarks.table import Table
from scannerjob.connect import SecretConnector
from scannerjob.engine import Engine
from scannerjob.ports import Ref
from scannerjob.secrets import DirectorySecrets
from scannerjob.stores.sql import SqlStore
from tests.support.servers import MariaDBServer, RedisServer

INTERVAL = 0.5
INTERVALS = 40


def run() -> Table:
    """The engine as it is, on an empty table, watched from the database and from the ledger."""
    with MariaDBServer() as database, RedisServer() as redis, tempfile.TemporaryDirectory() as path:
        url = database.create_database()
        _create_table(database, url)
        selects, writes = asyncio.run(_idle(database, url, redis.url, Path(path)))
    table = Table(
        f"Idle, {INTERVALS} intervals of {INTERVAL:g} s", ["", "SELECTs", "writes of the status"]
    )
    table.rows.append(["ScannerJob", str(selects), str(writes)])
    table.bars.append(("at most one query per interval", selects <= INTERVALS + 1))
    table.bars.append(("no write when nothing changed", writes == 0))
    return table


async def _idle(database: MariaDBServer, url: str, broker: str, directory: Path) -> tuple[int, int]:
    store = SqlStore(f"sqlite:///{directory}/state.db")
    ref = await store.apply(_document())
    connector = SecretConnector(_secrets(directory, url, broker), in_cluster=False)
    engine = Engine(store, connector)
    engine.wake(ref)
    await _settled(store, ref)
    before = _selects(database), await _version(store, ref)
    await asyncio.sleep(INTERVAL * INTERVALS)
    after = _selects(database), await _version(store, ref)
    await engine.close()
    await connector.close()
    return after[0] - before[0], after[1] - before[1]


async def _settled(store: SqlStore, ref: Ref) -> None:
    """Wait for the first look, whose time is written down."""
    async with asyncio.timeout(30):
        while True:
            snapshot = await store.read(ref)
            if snapshot and "lastScanTime" in snapshot.status:
                return
            await asyncio.sleep(0.1)


async def _version(store: SqlStore, ref: Ref) -> int:
    snapshot = await store.read(ref)
    assert snapshot
    return int(snapshot.version)


def _selects(database: MariaDBServer) -> int:
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute("SHOW GLOBAL STATUS LIKE 'Com_select'")
        row = cursor.fetchone()
    assert row
    return int(row[1])


def _create_table(database: MariaDBServer, url: str) -> None:
    name = url.rpartition("/")[2].partition("?")[0]
    with database.connect() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TABLE `{pymysql.converters.escape_string(name)}`.pdf (id int)")


def _secrets(directory: Path, url: str, broker: str) -> DirectorySecrets:
    for name, value in (("db", url), ("broker", broker)):
        (directory / name).mkdir()
        (directory / name / "url").write_text(value)
    return DirectorySecrets(directory)


def _document() -> dict[str, object]:
    return {
        "metadata": {"name": "idle", "namespace": "default"},
        "spec": {
            "database": {"urlSecretRef": {"name": "db", "key": "url"}},
            "query": "SELECT id FROM pdf",
            "interval": f"{INTERVAL * 1000:.0f}ms",
            "celery": {
                "broker": {"urlSecretRef": {"name": "broker", "key": "url"}},
                "task": "tasks.work",
            },
        },
    }
