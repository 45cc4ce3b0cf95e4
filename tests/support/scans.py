"""Scans of several ScannerJobs over one pool of connections, one after the other."""

import asyncio
from collections.abc import Sequence
from typing import Any

from scannerjob.ports import SourceError
from scannerjob.sources import Databases, SqlSource
from tests.support.sources import spec

Found = Sequence[dict[str, Any]] | SourceError


def in_turn(url: str, *queries: str, in_cluster: bool = False, **others: Any) -> list[Found]:
    """What each query gives, each of a ScannerJob of its own: its rows, or how it failed.

    As they come one after the other, they are given one and the same connection.
    """

    async def run() -> list[Found]:
        databases = Databases(in_cluster=in_cluster)
        # A pool goes with the last source that uses it.
        sources = [databases.open(url, spec(query, **others)) for query in queries]
        try:
            return [await scan(source) for source in sources]
        finally:
            databases.close()

    async def scan(source: SqlSource) -> Found:
        try:
            rows = await source.scan(10)
        except SourceError as error:
            return error
        return [dict(row.values) for row in rows.rows]

    return asyncio.run(run())


def rows_of(found: Found) -> Sequence[dict[str, Any]]:
    """The rows, of a scan that must not have failed."""
    if isinstance(found, SourceError):
        raise AssertionError(f"it failed: {found}")
    return found


def error_of(found: Found) -> SourceError:
    """The error, of a scan that must have failed."""
    assert isinstance(found, SourceError), f"it was not refused: {found}"
    return found
