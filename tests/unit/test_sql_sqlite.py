from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError

from scannerjob.model.row import Presence
from scannerjob.ports import ConfigurationError
from scannerjob.sources import Databases, SqlSource
from scannerjob.sources.dialects import Plan
from scannerjob.sources.engines import Server
from scannerjob.sources.records import Result
from scannerjob.sources.sqlite import SQLite
from tests.support.sources import execute, failure, look, spec

_ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT x AS id FROM n"


@pytest.fixture
def path(sqlite_url: str) -> Path:
    return Path(sqlite_url.removeprefix("sqlite:///"))


@pytest.fixture
def counts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each scan of the database asked for."""
    counts: list[int] = []
    read = SQLite.scan

    def counted(self: SQLite, *arguments: Any) -> Result:
        counts.append(arguments[-1])
        return read(self, *arguments)

    monkeypatch.setattr(SQLite, "scan", counted)
    return counts


@pytest.fixture
def url(sqlite_url: str) -> str:
    """A database with a table `pdf`: id 1 to 5, of which 1 is done."""
    execute(
        sqlite_url,
        "CREATE TABLE pdf (id INTEGER PRIMARY KEY, title TEXT, done INTEGER NOT NULL)",
        "INSERT INTO pdf VALUES (1, 'a', 1), (2, 'b', 0), (3, 'c', 0), (4, 'd', 0), (5, 'e', 0)",
    )
    return sqlite_url


def test_rows_come_in_the_querys_order_under_the_first_columns_key(url: str) -> None:
    found = look(url, "SELECT id AS pdf_id, title FROM pdf WHERE NOT done ORDER BY id DESC")
    assert found.keys == ["[5]", "[4]", "[3]", "[2]"]
    assert found.values[0] == {"pdf_id": 5, "title": "e"}
    assert found.rows.complete
    assert found.warnings == ()


def test_what_was_not_read_to_its_end_proves_no_absence(url: str) -> None:
    found = look(url, "SELECT id FROM pdf ORDER BY id", limit=5)
    assert len(found.keys) == 5
    assert not found.rows.complete
    assert found.rows.presence("[9]") is Presence.UNKNOWN


def test_a_result_without_end_is_read_no_further_than_asked(url: str) -> None:
    found = look(url, _ENDLESS, limit=7)
    assert found.keys == [f"[{number}]" for number in range(1, 8)]


def test_an_empty_result_is_complete(url: str) -> None:
    found = look(url, "SELECT id FROM pdf WHERE id > 100", keys=["[1]"])
    assert found.rows.complete
    assert found.rows.presence("[1]") is Presence.ABSENT


def test_the_key_may_be_other_columns(url: str) -> None:
    query = "SELECT title, id, done FROM pdf WHERE id < 3"
    assert look(url, query, key=["done", "id"]).keys == ["[1,1]", "[0,2]"]


def test_an_unknown_key_column_is_named_with_those_there_are(url: str) -> None:
    error = failure(url, "SELECT id, title FROM pdf", key=["ID"])
    assert error.reason == "InvalidKey"
    assert "ID" in str(error)
    assert "id, title" in str(error)


@pytest.mark.parametrize(
    ("columns", "named"),
    [
        ('id, title AS "pdf-title"', "pdf-title"),
        ("count(*)", "count(*)"),
        ("id, title AS id", "id"),
        ("id, '' AS \"\"", "''"),
        ('id, 1 AS "a b"', "a b"),
        ('id, 1 AS "a.b"', "a.b"),
    ],
)
def test_a_column_that_cannot_be_an_argument_is_named(url: str, columns: str, named: str) -> None:
    error = failure(url, f"SELECT {columns} FROM pdf")
    assert error.reason == "InvalidColumn"
    assert named in str(error)
    assert "AS" in str(error)


def test_rows_that_cannot_be_used_are_held_back_alone(url: str) -> None:
    found = look(
        url,
        "SELECT 1 AS k, 'a' AS v UNION ALL SELECT NULL, 'b' UNION ALL SELECT 2, 'c' "
        "UNION ALL SELECT 2, 'd' UNION ALL SELECT 3, 9e999 "
        "UNION ALL SELECT 4, printf('%70000s', 'x') UNION ALL SELECT 5, CAST(x'ff' AS TEXT) "
        "UNION ALL SELECT CAST(x'ff' AS TEXT), 'e' UNION ALL SELECT 6, 'f'",
    )
    assert found.keys == ["[1]", "[2]", "[6]"]
    assert found.rows.held_back == {"[2]", "[3]", "[4]", "[5]"}
    assert found.rows.presence("[4]") is Presence.PRESENT
    null, double, infinite, long, broken, broken_key = found.rows.problems
    assert "row 2" in null
    assert "k is NULL" in null
    assert "[2]" in double
    assert "same key" in double
    assert "column v" in infinite
    assert "68 KiB" in long
    assert "[5]" in broken
    assert "row 8" in broken_key
    assert not found.rows.blocked


def test_it_reads_on_while_rows_are_unusable(url: str) -> None:
    query = f"SELECT CASE WHEN id > 300 THEN id END AS id FROM ({_ENDLESS})"
    found = look(url, query, limit=3)
    assert found.keys[:3] == ["[301]", "[302]", "[303]"]
    assert not found.rows.complete


def test_unusable_rows_are_read_past_at_once_the_next_time(url: str, counts: list[int]) -> None:
    async def run() -> None:
        databases = Databases()
        query = f"SELECT CASE WHEN id > 300 THEN id END AS id FROM ({_ENDLESS})"
        source = databases.open(url, spec(query))
        assert len((await source.scan(3)).rows) >= 3
        counts.clear()
        assert len((await source.scan(3)).rows) >= 3
        databases.close()

    asyncio.run(run())
    assert counts == [303]


def test_ten_thousand_unusable_rows_block_the_scan(url: str) -> None:
    found = look(url, f"SELECT NULL AS id FROM ({_ENDLESS})", limit=3)
    assert found.rows.blocked
    assert len(found.rows.problems) == 10_000
    assert not found.keys


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, 'x:noon' AS t, '%' AS p, '?' AS q FROM pdf WHERE title LIKE '%' ORDER BY id",
        "SELECT id, '%(x)s %s' AS t FROM pdf ORDER BY id -- it's ? :y %",
        "SELECT id FROM pdf ORDER BY id;",
        "SELECT id FROM pdf ORDER BY id ; -- the end",
        "/* first */ SELECT id FROM pdf ORDER BY id /* last */",
        "WITH p AS (SELECT * FROM pdf) SELECT id FROM p ORDER BY id\n-- end",
    ],
)
def test_the_text_is_run_as_it_is(url: str, query: str) -> None:
    found = look(url, query, limit=2, keys=["[4]", "[9]"])
    assert found.keys == ["[1]", "[2]"]
    assert [row.key for row in found.rows.fetched] == ["[4]"]
    assert found.rows.absent == {"[9]"}


def test_a_key_column_may_need_quotes(url: str) -> None:
    query = 'SELECT title, id AS "Group" FROM pdf ORDER BY id'
    found = look(url, query, limit=1, key=["Group"], keys=["[3]", "[9]"])
    assert found.keys == ["[1]"]
    assert [row.key for row in found.rows.fetched] == ["[3]"]
    assert found.rows.absent == {"[9]"}


def test_a_limit_of_its_own_warns_and_hides_absence(url: str) -> None:
    found = look(url, "SELECT id FROM pdf ORDER BY id LIMIT 3", limit=10, keys=["[2]", "[5]"])
    assert found.keys == ["[1]", "[2]", "[3]"]
    assert not found.rows.absence_knowable
    assert found.rows.presence("[5]") is Presence.UNKNOWN
    assert not found.rows.absent
    assert "LIMIT" in found.warnings[0]
    assert "parked" in found.warnings[0]


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("INTEGER", ["0", "-1", "9007199254740993", "9223372036854775807"]),
        ("TEXT", ["'a'", "'a '", "'A'", "''", "'007'", "'9007199254740993'", "'YWI='", "'ü😀'"]),
        ("TEXT", ["'%s'", "':x'", "'?'", "'it''s'", "'\\'", "'a' || char(10) || 'b'"]),
        ("TEXT", [f"'{'9' * 30}'", "'2026-01-01'", "'null'", "'[1]'"]),
        ("TEXT COLLATE NOCASE", ["'a'", "'A'", "'a '"]),
        ("BLOB", ["x''", "x'00ff'", "'text'", "x'74657874'"]),
        ("NUMERIC", ["1", "'a'", "9007199254740993", "x'31'"]),
        ("", ["1", "'1'", "x'31'", "'YWI='", "'a'"]),
    ],
)
def test_keys_of_every_kind_are_found_and_are_missed_when_they_are_gone(
    sqlite_url: str, kind: str, values: list[str]
) -> None:
    rows = ", ".join(f"({place}, {value})" for place, value in enumerate(["'first'", *values]))
    execute(sqlite_url, f"CREATE TABLE t (place, k {kind})", f"INSERT INTO t VALUES {rows}")
    query = "SELECT k FROM t ORDER BY place"
    first, *keys = look(sqlite_url, query, limit=100).keys
    found = look(sqlite_url, query, limit=1, keys=keys)
    assert found.keys == [first]
    assert {row.key for row in found.rows.fetched} == set(keys)
    assert not found.rows.absent
    for number, key in enumerate(keys, start=1):
        execute(sqlite_url, f"DELETE FROM t WHERE place = {number}")
        rest = look(sqlite_url, query, limit=1, keys=keys).rows
        assert rest.presence(key) is Presence.ABSENT
        assert {row.key for row in rest.fetched} == set(keys[number:])


def test_types_that_are_mixed_by_a_union_prove_no_false_absence(sqlite_url: str) -> None:
    execute(
        sqlite_url,
        "CREATE TABLE i (k INTEGER)",
        "CREATE TABLE t (k TEXT)",
        "INSERT INTO i VALUES (1), (2)",
        "INSERT INTO t VALUES ('3'), ('4')",
        "CREATE VIEW v AS SELECT k FROM i UNION ALL SELECT k FROM t",
    )
    for query in (
        "SELECT k FROM i UNION ALL SELECT k FROM t",
        "SELECT k FROM i UNION SELECT k FROM t",
        "SELECT k FROM t UNION SELECT k FROM i",
        "SELECT k FROM v",
        # Here SQLite converts the texts to numbers, but not if it stands in another query.
        "SELECT * FROM v, (SELECT 1 AS x UNION ALL SELECT 2 WHERE 0)",
        "WITH m AS MATERIALIZED (SELECT * FROM v) SELECT k FROM m",
    ):
        keys = look(sqlite_url, query).keys
        rows = look(sqlite_url, query, limit=1, keys=[*keys, "[7]"]).rows
        assert not rows.absent & set(keys)


def test_a_row_found_under_another_key_leaves_open_which_one_it_is(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scannerjob.sources.sql.MAX_ROWS", 3)
    execute(
        sqlite_url,
        "CREATE TABLE t (k TEXT COLLATE NOCASE)",
        "INSERT INTO t VALUES ('first'), ('A'), ('b'), ('x'), ('y')",
    )
    query = "SELECT k FROM t ORDER BY rowid"
    assert look(sqlite_url, query, limit=1, keys=['["a"]']).rows.absent == frozenset()
    assert look(sqlite_url, query, limit=1, keys=['["A"]', '["c"]']).rows.absent == {'["c"]'}


def test_a_key_in_doubt_leaves_no_other_in_doubt(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scannerjob.sources.sql.MAX_ROWS", 3)
    execute(
        sqlite_url,
        "CREATE TABLE t (k TEXT COLLATE NOCASE)",
        "INSERT INTO t VALUES ('first'), ('A'), ('b'), ('x'), ('y'), ('C')",
    )
    gone = {f'["gone {number}"]' for number in range(400)}
    keys = [*gone, '["a"]', '["b"]', '["c"]']
    rows = look(sqlite_url, "SELECT k FROM t ORDER BY rowid", limit=1, keys=keys).rows
    assert rows.absent == gone
    assert [row.key for row in rows.fetched] == ['["b"]']


# Keys of two kinds that cannot be looked up.
_BACKLOGS = [("REAL", "n + 0.5"), ("TEXT", "printf('%0300d', n)")]


@pytest.mark.parametrize(("kind", "value"), _BACKLOGS)
def test_of_keys_that_cannot_be_looked_up_as_many_rows_are_read_as_it_takes(
    sqlite_url: str,
    counts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    value: str,
) -> None:
    numbers = "WITH n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20) SELECT"
    execute(
        sqlite_url, f"CREATE TABLE t (n, k {kind})", f"INSERT INTO t {numbers} n, {value} FROM n"
    )
    query = "SELECT k FROM t ORDER BY n"
    keys = look(sqlite_url, query, limit=100).keys
    counts.clear()

    found = look(sqlite_url, query, limit=2, keys=[keys[0], keys[6]])
    assert counts == [2, 4, 8]
    assert [row.key for row in found.rows.fetched] == [keys[6]]
    assert found.rows.rows == look(sqlite_url, query, limit=2).rows.rows
    assert found.warnings[0].startswith("KeyNotLookedUp")
    assert "(k)" in found.warnings[0]

    # Two were launched, and one of them is done.
    execute(sqlite_url, "DELETE FROM t WHERE n = 1")
    rows = look(sqlite_url, query, limit=2, keys=[keys[0], keys[6]]).rows
    assert rows.presence(keys[0]) is Presence.ABSENT
    assert rows.presence(keys[6]) is Presence.PRESENT

    monkeypatch.setattr("scannerjob.sources.sql.MAX_ROWS", 19)
    rows = look(sqlite_url, query, limit=2, keys=[keys[0], keys[19]]).rows
    assert rows.presence(keys[0]) is Presence.UNKNOWN
    assert rows.presence(keys[19]) is Presence.PRESENT


def test_about_as_many_rows_as_last_time_are_read_for_keys_that_cannot_be_looked_up(
    sqlite_url: str, counts: list[int]
) -> None:
    async def run() -> None:
        databases = Databases()
        source = databases.open(sqlite_url, spec(f"SELECT id + 0.5 AS k FROM ({_ENDLESS})"))
        for _ in range(2):
            rows = await source.fetch(await source.scan(3), ["[0.25]"])
            assert rows.presence("[0.25]") is Presence.UNKNOWN
        databases.close()

    execute(sqlite_url, "CREATE TABLE t (k)")
    asyncio.run(run())
    assert counts[-3:] == [3, 5000, 10_000]


def test_rows_that_cannot_be_read_on_are_a_problem_of_the_keys_alone(sqlite_url: str) -> None:
    execute(sqlite_url, "CREATE TABLE t (k REAL)", "INSERT INTO t VALUES (1.5), (2.5), (3.5)")
    query = (
        "SELECT k, CASE k WHEN 3.5 THEN abs(-9223372036854775808) END AS v FROM t ORDER BY rowid"
    )
    found = look(sqlite_url, query, limit=1, keys=["[3.5]"])
    assert found.keys == ["[1.5]"]
    assert found.rows.presence("[3.5]") is Presence.UNKNOWN
    assert "overflow" in found.rows.problems[0]


def test_nothing_is_said_of_keys_that_can_be_looked_up(url: str) -> None:
    assert look(url, "SELECT id FROM pdf ORDER BY id", limit=1, keys=["[2]", "[9]"]).warnings == ()


def test_a_query_is_planned_again_after_ten_minutes(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    plans = iter([Plan(warnings=("a superuser",)), Plan()])
    monkeypatch.setattr(SQLite, "plan", lambda *_, **__: next(plans))

    async def run() -> None:
        nonlocal now
        server = Server(url, in_cluster=False)
        source = SqlSource(server, spec("SELECT id FROM pdf"), clock=lambda: now)
        for seconds, warnings in ((0, 1), (599, 1), (1, 0), (599, 0)):
            now += seconds
            await source.scan(1)
            assert len(source.warnings) == warnings
        server.close()

    asyncio.run(run())


def test_more_keys_than_fit_into_one_statement(url: str) -> None:
    keys = [f"[{number}]" for number in range(1, 1001)]
    rows = look(url, "SELECT id FROM pdf ORDER BY id", limit=1, keys=keys).rows
    assert sorted(row.key for row in rows.fetched) == ["[1]", "[2]", "[3]", "[4]", "[5]"]
    assert len(rows.absent) == 995


def test_many_keys_of_several_columns(url: str) -> None:
    keys = [f'[{number},"b"]' for number in range(1, 1001)]
    query = "SELECT id, title FROM pdf ORDER BY id"
    rows = look(url, query, limit=1, key=["id", "title"], keys=keys).rows
    assert [row.key for row in rows.fetched] == ['[2,"b"]']
    assert len(rows.absent) == 999


def test_a_missing_file_is_named_and_not_made(path: Path, sqlite_url: str) -> None:
    error = failure(sqlite_url, "SELECT 1 AS id")
    assert error.reason == "DatabaseUnreachable"
    assert str(path) in str(error)
    assert not path.exists()


def test_a_file_that_is_no_database_is_named(path: Path, sqlite_url: str) -> None:
    path.write_text("this is no database at all, however long it is" * 100)
    error = failure(sqlite_url, "SELECT * FROM pdf")
    assert error.reason == "QueryFailed"
    assert str(path) in str(error)


def test_nothing_can_be_written_whatever_the_parser_thinks(url: str, tmp_path: Path) -> None:
    other = tmp_path / "other.sqlite"
    engine = SQLite().engine(make_url(url), {})
    with engine.connect() as connection:
        for statement in ("DELETE FROM pdf", "CREATE TABLE x (y)", f"ATTACH '{other}' AS o"):
            with pytest.raises(DBAPIError, match=r"readonly|not authorized"):
                connection.exec_driver_sql(statement)
    engine.dispose()
    assert not other.exists()
    assert len(look(url, "SELECT id FROM pdf").keys) == 5


def test_a_syntax_error_is_the_databases_own_message(url: str) -> None:
    error = failure(url, "SELECT id FROM pdf WHERE WHERE")
    assert error.reason == "QueryFailed"
    assert "WHERE" in str(error)


def test_a_query_that_takes_too_long_ends(url: str) -> None:
    error = failure(url, f"SELECT max(id) AS id FROM ({_ENDLESS})", queryTimeout="300ms")
    assert error.reason == "QueryTimeout"


def test_a_database_locked_by_a_writer_is_waited_for_no_longer_than_that(
    path: Path, url: str
) -> None:
    with sqlite3.connect(path, isolation_level=None) as writer:
        writer.execute("BEGIN EXCLUSIVE")
        error = failure(url, "SELECT id FROM pdf", queryTimeout="300ms")
        writer.execute("ROLLBACK")
    assert "locked" in str(error)
    assert look(url, "SELECT id FROM pdf").rows.complete


def test_sqlite_is_refused_in_a_cluster(url: str) -> None:
    with pytest.raises(ConfigurationError):
        Databases(in_cluster=True).open(url, spec("SELECT 1 AS id"))


def test_the_hash_tells_query_key_and_database_apart(url: str) -> None:
    databases = Databases()

    def hash_of(url: str, query: str, **others: object) -> str:
        return databases.open(url, spec(query, **others)).query_hash

    base = hash_of(url, "SELECT 1 AS id")
    assert base == hash_of(url, "SELECT 1 AS id", interval="5s", concurrency=3)
    assert hash_of("postgresql://a:b@db/x", "SELECT 1") == hash_of(
        "postgres://db:5432/x", "SELECT 1"
    )
    others = {
        hash_of(url, "SELECT 1 AS id "),
        hash_of(url, "SELECT 1 AS id", key=["id"]),
        hash_of(url + "2", "SELECT 1 AS id"),
    }
    assert len(others | {base}) == 4
    databases.close()


def test_a_wide_table(sqlite_url: str) -> None:
    execute(
        sqlite_url,
        "CREATE TABLE w (i INTEGER, big INTEGER, r REAL, t TEXT, b BLOB, d DATE, f BOOLEAN, n)",
        "INSERT INTO w VALUES"
        " (1, 9223372036854775807, 0.5, 'ü', x'00ff', '2026-01-31', TRUE, NULL)",
    )
    [values] = look(sqlite_url, "SELECT * FROM w").values
    assert values == {
        "i": 1,
        "big": "9223372036854775807",
        "r": 0.5,
        "t": "ü",
        "b": "AP8=",
        "d": "2026-01-31",
        "f": 1,
        "n": None,
    }
