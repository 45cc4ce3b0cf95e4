"""Looks at databases through the row source, from tests that are not coroutines."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from sqlalchemy import create_engine

from scannerjob.model.plan import PlanEstimate, PlanFinding
from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec, parse_spec
from scannerjob.ports import SourceError
from scannerjob.sources import Databases

_SECRET = {"urlSecretRef": {"name": "some", "key": "url"}}


def spec(query: str, **others: Any) -> ScannerJobSpec:
    """A ScannerJob with this query."""
    celery = {"broker": _SECRET, "task": "work"}
    return parse_spec({"database": _SECRET, "query": query, "celery": celery, **others})


@dataclass(frozen=True)
class Look:
    """What was read, and the warnings and the plan there were afterwards."""

    rows: Rows
    warnings: Sequence[str]
    plan: PlanFinding | None

    @property
    def keys(self) -> list[str]:
        return [row.key for row in self.rows.rows]

    @property
    def values(self) -> list[dict[str, Any]]:
        return [dict(row.values) for row in self.rows.rows]


def estimate(url: str, query: str) -> PlanEstimate:
    """What the database expects of the query."""

    async def run() -> PlanEstimate:
        databases = Databases()
        try:
            return await databases.open(url, spec(query)).estimate()
        finally:
            databases.close()

    return asyncio.run(run())


def look(
    url: str,
    query: str,
    limit: int = 10,
    *,
    keys: Collection[str] = (),
    in_cluster: bool = False,
    **others: Any,
) -> Look:
    """Scan once, look for `keys`, and close all connections."""

    async def run() -> Look:
        databases = Databases(in_cluster=in_cluster)
        try:
            source = databases.open(url, spec(query, **others))
            rows = await source.scan(limit)
            if keys:
                rows = await source.fetch(rows, keys)
            return Look(rows, source.warnings, source.plan)
        finally:
            databases.close()

    return asyncio.run(run())


def failure(url: str, query: str, **others: Any) -> SourceError:
    """The SourceError with which a scan fails."""
    with pytest.raises(SourceError) as failed:
        look(url, query, **others)
    assert failed.value.__cause__ is None
    assert "\n" not in str(failed.value)
    return failed.value


def execute(url: str, *statements: str) -> None:
    """Run these statements, each as it is."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
    engine.dispose()
