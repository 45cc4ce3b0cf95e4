from __future__ import annotations

import pytest

from scannerjob.ports import SourceError
from scannerjob.sources.parse import parse

DIALECTS = ["postgres", "mysql", "sqlite"]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM t",
        "select id from t -- all; of it",
        "SELECT id FROM t; -- really\n",
        "SELECT id FROM t ; ;",
        "/* ; */ SELECT ';' AS id, '--' AS x",
        "WITH a AS (SELECT 1 AS id) SELECT id FROM a",
        "(SELECT 1 AS id) UNION ALL (SELECT 2)",
        "SELECT id FROM t WHERE note = 'for update' AND x = (SELECT max(y) FROM u LIMIT 1)",
        "SELECT id FROM t JOIN (SELECT y FROM u LIMIT 1) v ON v.y = t.y",
    ],
)
def test_one_select_is_accepted_as_it_is(dialect: str, text: str) -> None:
    statement = parse(text, dialect)
    assert statement.text == text
    assert not statement.limited
    assert ";" not in statement.body.replace("/* ; */", "").replace("';'", "").replace("; of", "")


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "SELECT"),
        (";", "SELECT"),
        ("-- nothing", "SELECT"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT 1; DROP TABLE t;", "one statement"),
        ("SELECT FROM WHERE ; DELETE FROM t", "one statement"),
        ("UPDATE t SET a = 1", "SELECT"),
        ("DELETE FROM t", "SELECT"),
        ("INSERT INTO t VALUES (1)", "SELECT"),
        ("DROP TABLE t", "SELECT"),
        ("EXPLAIN SELECT 1", "SELECT"),
        ("SET x = 1", "SELECT"),
        ("COMMIT", "SELECT"),
        ("CALL p()", "SELECT"),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", "only read"),
        ("WITH x AS (SELECT 1) DELETE FROM t", "only read"),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", "only read"),
        ("SELECT * INTO u FROM t", "INTO"),
        ("SELECT * FROM t FOR UPDATE", "lock"),
        ("SELECT * FROM (SELECT * FROM t FOR UPDATE) u", "lock"),
    ],
)
def test_what_does_more_than_read_is_refused(dialect: str, text: str, why: str) -> None:
    with pytest.raises(SourceError, match=why) as refused:
        parse(text, dialect)
    assert refused.value.reason == "QueryRefused"
    assert "spec.query" in str(refused.value)


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("postgres", "SELECT * FROM t FOR NO KEY UPDATE SKIP LOCKED"),
        ("postgres", "SELECT * FROM t FOR SHARE"),
        ("mysql", "SELECT * FROM t LOCK IN SHARE MODE"),
        ("mysql", "SELECT a FROM t INTO OUTFILE '/tmp/x'"),
        ("mysql", "SELECT a INTO @x FROM t"),
        ("sqlite", "ATTACH 'x.db' AS x"),
        ("sqlite", "PRAGMA journal_mode = DELETE"),
    ],
)
def test_each_dialects_own_ways_to_do_more_are_refused(dialect: str, text: str) -> None:
    with pytest.raises(SourceError) as refused:
        parse(text, dialect)
    assert refused.value.reason == "QueryRefused"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "text",
    [
        "SELECT id FROM t LIMIT 5",
        "SELECT id FROM t ORDER BY id LIMIT 5 OFFSET 2;",
        "(SELECT id FROM t LIMIT 5) UNION ALL SELECT 1",
        "SELECT 1 AS id UNION ALL SELECT id FROM t LIMIT 5",
        "SELECT * FROM (SELECT id FROM t LIMIT 5) s WHERE id > 3",
        "SELECT * FROM (SELECT * FROM (SELECT id FROM t LIMIT 5) a) b",
        "WITH a AS (SELECT id FROM t LIMIT 5) SELECT * FROM a",
        "WITH a AS (SELECT id FROM t LIMIT 5), b AS (SELECT * FROM a) SELECT * FROM b",
    ],
)
def test_a_query_that_limits_its_own_rows_is_known(dialect: str, text: str) -> None:
    assert parse(text, dialect).limited


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("postgres", "SELECT id FROM t FETCH FIRST 5 ROWS ONLY"),
        ("postgres", "SELECT id FROM t OFFSET 5"),
        ("mysql", "SELECT id FROM t LIMIT 2, 5"),
        # Not understood: then a word that may limit it is enough.
        ("postgres", "SELECT id FROM t WHERE a ~~~~> b LIMIT ((5"),
    ],
)
def test_other_forms_of_a_limit_are_known(dialect: str, text: str) -> None:
    assert parse(text, dialect).limited


def test_what_the_parser_does_not_understand_is_left_to_the_database() -> None:
    statement = parse("SELECT id FROM t WHERE ((( a", "postgres")
    assert not statement.limited
    assert parse("SELECT 'no end", "postgres").limited
