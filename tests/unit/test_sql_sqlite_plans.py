"""What SQLite tells of the cost of each look."""

from __future__ import annotations

import asyncio

import pytest

from scannerjob.model.plan import INDEXED, PLAN_UNKNOWN, PlanEstimate, PlanFinding
from scannerjob.sources.engines import Server
from scannerjob.sources.plans import MANY_ROWS
from scannerjob.sources.sql import SqlSource
from scannerjob.sources.sqlite import SQLite
from tests.support.sources import estimate, execute, look, spec

OPEN = "SELECT id FROM pdf WHERE NOT done ORDER BY at"


def filled(url: str, rows: int) -> str:
    """A table `pdf`: three rows are open, and so many are done."""
    execute(
        url,
        "CREATE TABLE pdf (id INTEGER PRIMARY KEY, done BOOLEAN, at INTEGER, title TEXT)",
        "INSERT INTO pdf VALUES (-1, false, 1, ''), (-2, false, 2, ''), (-3, false, 3, '')",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
        f"LIMIT {rows}) INSERT INTO pdf SELECT i, true, -i, 'x' FROM n",
    )
    return url


@pytest.fixture
def url(sqlite_url: str) -> str:
    return filled(sqlite_url, MANY_ROWS)


@pytest.mark.parametrize(
    "query",
    [
        OPEN,
        "SELECT id FROM pdf WHERE NOT done",
        "SELECT p.id FROM pdf AS p WHERE NOT p.done ORDER BY p.at",
        "SELECT id FROM main.pdf WHERE NOT done",
        "WITH open_ones AS (SELECT * FROM pdf WHERE NOT done) SELECT id FROM open_ones ORDER BY at",
        "SELECT id FROM open_view",
    ],
)
def test_a_table_read_whole_is_named_until_a_partial_index_is_there(url: str, query: str) -> None:
    execute(url, "CREATE VIEW open_view AS SELECT * FROM pdf WHERE NOT done")
    found = look(url, query).plan
    assert found is not None
    assert found.reason == "SequentialScan"
    assert "pdf" in found.message
    execute(url, "CREATE INDEX open_pdf ON pdf (at) WHERE NOT done")
    assert look(url, query).plan == INDEXED


def test_an_index_without_the_condition_is_walked_from_end_to_end(url: str) -> None:
    execute(url, "CREATE INDEX somewhere ON pdf (at)")
    found = look(url, OPEN).plan
    assert found is not None
    assert found.reason == "SequentialScan"


def test_an_index_made_anew_for_each_look_reads_the_table_too(url: str) -> None:
    execute(url, "CREATE TABLE page (pdf INTEGER)", "INSERT INTO page SELECT id FROM pdf")
    found = look(url, "SELECT p.id FROM pdf p, page g WHERE g.pdf = p.at", 50_000).plan
    assert found is not None
    assert found.reason == "SequentialScan"


def test_a_sort_of_many_is_named_until_an_index_gives_the_order(url: str) -> None:
    query = "SELECT id, title FROM pdf ORDER BY at -- oldest first"
    found = look(url, query).plan
    assert found is not None
    assert found.reason == "Sort"
    assert look(url, query + "\nLIMIT 9").plan == INDEXED
    execute(url, "CREATE INDEX in_order ON pdf (at)")
    assert look(url, query).plan == INDEXED


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, title FROM pdf",
        "SELECT id, title FROM pdf ORDER BY id DESC",
        "SELECT id FROM pdf WHERE id > 5 AND title = 'x' ORDER BY id",
        "SELECT id FROM (SELECT 1 AS id UNION SELECT 2) WHERE id < 3",
    ],
)
def test_a_look_that_may_stop_early_is_nothing_to_tell(url: str, query: str) -> None:
    assert look(url, query).plan == INDEXED


def test_whether_a_condition_is_met_by_few_is_seen_when_the_end_was_read(url: str) -> None:
    query = "SELECT id FROM pdf WHERE done"
    assert look(url, query, 10).plan is None
    found = look(url, query, MANY_ROWS + 1).plan
    assert found is not None
    assert found.reason == "SequentialScan"


def test_of_a_small_table_nothing_is_said(sqlite_url: str) -> None:
    filled(sqlite_url, MANY_ROWS - 3)
    assert look(sqlite_url, OPEN).plan == INDEXED
    assert look(sqlite_url, "SELECT id FROM pdf ORDER BY at").plan == INDEXED


def test_a_plan_that_cannot_be_had_costs_no_row(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scannerjob.sources.sqlite._explain", lambda *_: [None])
    found = look(url, OPEN)
    assert found.keys == ["[-1]", "[-2]", "[-3]"]
    assert found.plan == PLAN_UNKNOWN


def test_the_plan_is_looked_at_again_after_ten_minutes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    sort = PlanFinding("Sort", "all of it")
    findings = iter([sort, None, INDEXED])
    monkeypatch.setattr(SQLite, "finding", lambda *_, **__: next(findings))

    async def run() -> None:
        nonlocal now
        server = Server(url, in_cluster=False)
        source = SqlSource(server, spec(OPEN), clock=lambda: now)
        assert source.plan is None
        for seconds, expected in ((0, sort), (599, sort), (1, sort), (599, sort), (1, INDEXED)):
            now += seconds
            await source.scan(1)
            assert source.plan == expected
        server.close()

    asyncio.run(run())


def test_it_reckons_with_no_numbers(url: str) -> None:
    assert estimate(url, OPEN) == PlanEstimate()
