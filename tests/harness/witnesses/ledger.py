"""Every version of the ledgers that `scannerjob run` keeps, recorded by the database itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any, Self

from sqlalchemy import Boolean, Column, Row, Text

from scannerjob.ports import Ref
from scannerjob.stores.sql import SqlStore
from tests.harness.witnesses.recorded import NOW, Recorded, triggers
from tests.proof.history import Gap, Version

_TABLE = "witness_version"
_COPIED = ("uid", "version", "spec", "status")
_CHANGES = (("INSERT", "NEW", "false"), ("UPDATE", "NEW", "false"), ("DELETE", "OLD", "true"))


class LedgerWitness:
    """Records the ledgers of a state's URL, SQLite or PostgreSQL. Use it as a context manager.

    None of their versions is missed, whether the database was away or not. A file that is replaced
    by another needs another witness.
    """

    def __init__(self, state_url: str) -> None:
        self._url = state_url
        self._versions: list[Version] = []
        self._recorded: Recorded | None = None

    def versions(self) -> list[Version]:
        """In the order in which they were written."""
        return list(self._versions)

    def gaps(self) -> list[Gap]:
        """None: what is written is recorded."""
        return []

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was seen that was written before this was called."""
        assert self._recorded is not None
        self._recorded.wait_caught_up(timeout)

    def __enter__(self) -> Self:
        asyncio.run(_make_tables(self._url))
        texts = (Column(name, Text) for name in _COPIED)
        self._recorded = Recorded(self._url, _TABLE, Column("deleted", Boolean), *texts)
        self._recorded.start(_statements(self._recorded.dialect), self._see)
        return self

    def __exit__(self, *_: object) -> None:
        if self._recorded is not None:
            self._recorded.stop()

    def _see(self, time: float, row: Row[Any]) -> None:
        spec, status = json.loads(row.spec), json.loads(row.status)
        self._versions.append(Version(time, row.uid, row.version, spec, status, row.deleted))


async def _make_tables(url: str) -> None:
    """The first call of a store makes its tables."""
    store = SqlStore(url)
    await store.read(Ref("default", "none"))
    await store.close()


def _statements(dialect: str) -> Iterator[str]:
    for change, row, deleted in _CHANGES:
        copy = _copy(dialect, row, deleted)
        yield from triggers(
            dialect, f"witness_{change.lower()}", f"{change} ON scannerjob_ledger", copy
        )
    # What was there before.
    yield _copy(dialect, "ledger", "false") + " FROM scannerjob_ledger AS ledger"


def _copy(dialect: str, row: str, deleted: str) -> str:
    values = ", ".join(f"{row}.{name}" for name in _COPIED)
    return (
        f"INSERT INTO {_TABLE} (at, deleted, {', '.join(_COPIED)}) "
        f"SELECT {NOW[dialect]}, {deleted}, {values}"
    )
