from __future__ import annotations

import asyncio
import gc
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from psycopg.adapt import Loader
from sqlalchemy import make_url

from scannerjob.model.row import Presence, Rows
from scannerjob.ports import SourceError
from scannerjob.sources import Databases, SqlSource
from tests.support.ports import free_port
from tests.support.servers import DatabaseServer, MariaDBServer, PostgresServer
from tests.support.sources import execute, failure, look, spec
from tests.support.waiting import eventually

CANARY = "c4nary-s3cret"


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(f"{request.param}_server")
    return found


@pytest.fixture
def url(server: DatabaseServer) -> str:
    """A database with a table `pdf`: id 1 to 5, of which 1 is done."""
    url = server.create_database()
    execute(
        url,
        "CREATE TABLE pdf (id INTEGER PRIMARY KEY, title VARCHAR(20), done BOOLEAN NOT NULL)",
        "INSERT INTO pdf VALUES (1, 'a', true), (2, 'b', false), (3, 'c', false), "
        "(4, 'd', false), (5, 'e', false)",
    )
    return url


# The rows and their order


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id AS pdf_id, title FROM pdf WHERE NOT done ORDER BY title DESC",
        "SELECT id AS pdf_id, title FROM pdf WHERE NOT done ORDER BY title DESC; -- newest first",
        "SELECT id AS pdf_id, title FROM pdf WHERE NOT done ORDER BY id DESC -- it's all",
        "WITH open AS (SELECT * FROM pdf WHERE NOT done) "
        "SELECT id AS pdf_id, title FROM open ORDER BY title DESC",
        "(SELECT id AS pdf_id, title FROM pdf WHERE id > 3) UNION ALL "
        "(SELECT id, title FROM pdf WHERE id IN (2, 3)) ORDER BY title DESC",
    ],
)
def test_the_first_rows_come_in_the_querys_order(url: str, query: str) -> None:
    found = look(url, query, limit=3)
    assert found.keys == ["[5]", "[4]", "[3]"]
    assert found.values[0] == {"pdf_id": 5, "title": "e"}
    assert not found.rows.complete
    whole = look(url, query, limit=5)
    assert whole.keys == ["[5]", "[4]", "[3]", "[2]"]
    assert whole.rows.complete


@pytest.mark.parametrize("limit", [2, 3, 10])
def test_a_limit_of_the_query_is_kept_with_its_order(url: str, limit: int) -> None:
    query = "SELECT id FROM pdf ORDER BY title DESC LIMIT 3"
    found = look(url, query, limit=limit, keys=["[1]"])
    assert found.keys == ["[5]", "[4]", "[3]"][:limit]
    assert found.rows.presence("[1]") is Presence.UNKNOWN
    assert "LIMIT" in found.warnings[0]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id, 'x:noon' AS t, '%' AS p, '?' AS q FROM pdf WHERE title LIKE '%' ORDER BY id",
        "SELECT id, '%(x)s %s %%' AS t FROM pdf ORDER BY id -- what? :y 100%",
        "SELECT id FROM pdf WHERE id % 7 < 7 ORDER BY id ; ",
        "/* 50% */ SELECT id FROM pdf ORDER BY id /* ':' */",
    ],
)
def test_the_text_is_run_as_it_is(url: str, query: str) -> None:
    found = look(url, query, limit=2, keys=["[4]", "[9]"])
    assert found.keys == ["[1]", "[2]"]
    [row] = found.rows.fetched
    assert row.key == "[4]"
    if "t" in row.values:
        assert row.values == {**found.values[0], "id": 4}
    assert found.rows.absent == {"[9]"}


def test_percent_signs_reach_the_database_once(url: str) -> None:
    found = look(url, "SELECT id, '%(x)s %s %%' AS t FROM pdf ORDER BY id", 1, keys=["[2]"])
    assert found.values[0]["t"] == found.rows.fetched[0].values["t"] == "%(x)s %s %%"


def test_a_key_column_may_need_quotes(server: DatabaseServer, url: str) -> None:
    quote = '"' if isinstance(server, PostgresServer) else "`"
    query = f"SELECT title, id AS {quote}Group{quote} FROM pdf ORDER BY id"
    found = look(url, query, limit=1, key=["Group"], keys=["[3]", "[9]"])
    assert found.keys == ["[1]"]
    assert [row.key for row in found.rows.fetched] == ["[3]"]
    assert found.rows.absent == {"[9]"}
    assert failure(url, query, key=["group"]).reason == "InvalidKey"


def test_keys_of_several_columns(url: str) -> None:
    keys = [f'[{number},"b"]' for number in range(1, 500)]
    found = look(url, "SELECT * FROM pdf ORDER BY id", 1, key=["id", "title"], keys=keys)
    assert found.keys == ['[1,"a"]']
    assert [row.key for row in found.rows.fetched] == ['[2,"b"]']
    assert len(found.rows.absent) == 498


def test_an_empty_result_is_complete(url: str) -> None:
    found = look(url, "SELECT id FROM pdf WHERE id > 100", keys=["[1]"])
    assert found.rows.complete
    assert found.rows.presence("[1]") is Presence.ABSENT


def test_rows_that_cannot_be_used_are_held_back_alone(url: str) -> None:
    found = look(
        url,
        "SELECT NULLIF(id, 2) AS k, CASE WHEN id = 3 THEN repeat('x', 70000) END AS v FROM pdf "
        "UNION ALL SELECT 4, NULL",
        limit=6,
    )
    assert found.keys == ["[1]", "[4]", "[5]"]
    assert found.rows.held_back == {"[3]", "[4]"}
    assert len(found.rows.problems) == 3
    assert found.rows.complete


def test_ten_thousand_unusable_rows_block_the_scan(url: str) -> None:
    endless = (
        "SELECT CASE WHEN a.id < 0 THEN 1 END AS k FROM pdf a, pdf b, pdf c, pdf d, pdf e, pdf f"
    )
    found = look(url, endless, limit=1)
    assert found.rows.blocked
    assert len(found.rows.problems) == 10_000


@pytest.mark.parametrize(("columns", "named"), [("1 + 1", "column '"), ("id, 2 AS id", "'id'")])
def test_a_column_that_cannot_be_an_argument_is_named(url: str, columns: str, named: str) -> None:
    error = failure(url, f"SELECT {columns} FROM pdf")
    assert error.reason == "InvalidColumn"
    assert named in str(error)


# How much is read: by what the server counted


def test_postgresql_reads_no_more_rows_than_asked(postgres_url: str) -> None:
    execute(
        postgres_url,
        "CREATE TABLE pdf (id integer PRIMARY KEY, title text)",
        "INSERT INTO pdf SELECT i, 'x' FROM generate_series(1, 20000) i",
        "ANALYZE pdf",
    )
    for query in ("SELECT id FROM pdf WHERE title = 'x'", "SELECT id FROM pdf ORDER BY id"):
        assert len(look(postgres_url, query, limit=50).keys) == 50
    counted = "SELECT seq_tup_read + idx_tup_fetch AS n FROM pg_stat_user_tables"

    def read() -> int:
        return int(str(look(postgres_url, counted).values[0]["n"]))

    assert eventually(read) <= 200


def test_mariadb_reads_no_more_rows_than_asked(
    mariadb_server: MariaDBServer, mariadb_url: str
) -> None:
    execute(
        mariadb_url,
        "CREATE TABLE pdf (id integer PRIMARY KEY, title varchar(9))",
        "INSERT INTO pdf SELECT seq, 'x' FROM seq_1_to_20000",
    )

    def counted() -> int:
        with mariadb_server.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT SUM(variable_value) FROM information_schema.global_status WHERE"
                " variable_name IN ('INNODB_ROWS_READ', 'ROWS_SENT')"
            )
            [row] = cursor.fetchall()
            return int(row[0])

    before = counted()
    for query in ("SELECT id FROM pdf WHERE title = 'x'", "SELECT id FROM pdf ORDER BY id"):
        assert len(look(mariadb_url, query, limit=50).keys) == 50
    assert 100 <= counted() - before <= 400


@pytest.mark.parametrize(
    ("name", "table"),
    [("postgres", "generate_series(1, 1000000) AS s(seq)"), ("mariadb", "seq_1_to_1000000")],
)
@pytest.mark.parametrize("rest", ["", " ORDER BY seq", " ORDER BY seq LIMIT 100000"])
def test_memory_stays_flat_with_a_million_rows(
    request: pytest.FixtureRequest, name: str, table: str, rest: str
) -> None:
    url = request.getfixturevalue(f"{name}_url")
    query = f"SELECT seq, repeat('x', 1000) AS title FROM {table}"
    look(url, query, limit=10)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = look(url, query + rest, limit=100, queryTimeout="60s")
    assert found.keys == [f"[{number}]" for number in range(1, 101)]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_an_unindexed_order_is_asked_for_with_a_limit(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    execute(
        postgres_url,
        "CREATE TABLE pdf (id integer PRIMARY KEY, at integer, title text)",
        "INSERT INTO pdf SELECT i, -i, repeat('x', 99) FROM generate_series(1, 100000) i",
        "ANALYZE pdf",
    )
    query = "SELECT id, title FROM pdf ORDER BY at -- oldest"

    def spilled() -> int:
        eventually(lambda: _connections(postgres_server, postgres_url) == 0)
        counted = "SELECT temp_files FROM pg_stat_database WHERE datname = current_database()"
        return int(str(look(postgres_url, counted).values[0]["temp_files"]))

    before = spilled()
    found = look(postgres_url, query, limit=3)
    assert found.keys == ["[100000]", "[99999]", "[99998]"]
    assert spilled() == before
    # To sort all of them takes a file: the query itself does.
    execute(postgres_url, query)
    assert spilled() > before


# Only reading


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1 AS id; DELETE FROM pdf",
        "UPDATE pdf SET done = true",
        "WITH gone AS (DELETE FROM pdf RETURNING *) SELECT * FROM gone",
        "SELECT id FROM pdf FOR UPDATE",
    ],
)
def test_what_does_more_than_read_is_refused(url: str, query: str) -> None:
    assert failure(url, query).reason == "QueryRefused"
    assert len(look(url, "SELECT id FROM pdf").keys) == 5


def test_the_database_refuses_what_the_parser_lets_through(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    for check in ("_check_words", "_check_tree"):
        monkeypatch.setattr(f"scannerjob.sources.parse.{check}", lambda _: None)
    for query in (
        "UPDATE pdf SET done = true",
        "DELETE FROM pdf RETURNING id",
        "SELECT 1 AS id; COMMIT; DELETE FROM pdf",
        "SELECT 1 AS id; DELETE FROM pdf",
        "WITH gone AS (DELETE FROM pdf RETURNING *) SELECT * FROM gone",
    ):
        assert failure(url, query).reason == "QueryFailed"
    rows = look(url, "SELECT id FROM pdf WHERE NOT done").keys
    assert len(rows) == 4


def test_a_connection_that_is_closed_leaves_no_class_of_its_own(postgres_url: str) -> None:
    query = "SELECT now() AS id"
    look(postgres_url, query)
    loaders = Loader.__subclasses__()
    for _ in range(3):
        look(postgres_url, query)
    gc.collect()
    assert Loader.__subclasses__() == loaders


def test_a_function_that_writes_is_refused_by_postgresql(postgres_url: str) -> None:
    execute(postgres_url, "CREATE SEQUENCE s")
    error = failure(postgres_url, "SELECT nextval('s') AS id")
    assert error.reason == "QueryFailed"
    assert "read-only" in str(error)


def test_a_superuser_is_refused_in_a_cluster_and_warned_of_elsewhere(
    postgres_server: PostgresServer,
) -> None:
    admin = make_url(postgres_server.create_database()).set(
        username=postgres_server.admin_name, password=postgres_server.admin_password
    )
    url = admin.render_as_string(hide_password=False)
    assert "can act as postgres" in look(url, "SELECT 1 AS id").warnings[0]
    error = failure(url, "SELECT 1 AS id", in_cluster=True)
    assert error.reason == "SuperuserRefused"
    assert postgres_server.admin_password not in str(error)
    own = postgres_server.create_database()
    assert look(own, "SELECT 1 AS id", in_cluster=True).warnings == ()


# Keys that are looked up


POSTGRES_KEYS = [
    ("smallint", ["1", "-32768"]),
    ("bigint", ["9007199254740993", "-9223372036854775808", "0"]),
    ("numeric", ["1.10", "2.000", "1e30", "0", "-0.5", "'NaN'", "'Infinity'"]),
    ("numeric(10,2)", ["1.1", "0", "99999999.99"]),
    ("text", ["''", "'A'", "'a '", "'it''s'", "'%s'", "'%(x)s'", "':x'", r"'\'", "'ü日😀'"]),
    ("text", ["'1'", "'true'", "'null'", "'2026-01-01'", "'\"'", "E'a\\nb'", "'{a}'"]),
    ("varchar(20)", ["'a'", "'a  '"]),
    ("char(5)", ["'a'", "'ab cd'", "''"]),
    ("name", ["'a'", "'b c'"]),
    ("boolean", ["true"]),
    ("uuid", ["'0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11'", "'00000000-0000-0000-0000-000000000000'"]),
    ("date", ["'2026-01-31'", "'infinity'", "'-infinity'", "'0044-03-15 BC'", "'20000-01-01'"]),
    ("timestamp", ["'2026-01-31 12:00'", "'2026-01-31 12:00:00.000001'", "'infinity'"]),
    ("timestamptz", ["'2026-10-25 02:30+02'", "'2026-10-25 02:30+01'", "'2026-01-01 00:00:00.1Z'"]),
    ("bytea", [r"'\x'", r"'\x00ff'", r"'\x5c78'", "'aGk='"]),
    ("oid", ["1", "4294967295"]),
    ("mood", ["'happy'", "'so so'"]),
    ("short", ["'a'", "'b'"]),
]
MARIADB_KEYS = [
    ("TINYINT", ["1", "-128"]),
    ("BIGINT", ["9007199254740993", "-9223372036854775808", "0"]),
    ("BIGINT UNSIGNED", ["18446744073709551615", "9007199254740993", "9007199254740995"]),
    ("DECIMAL(30,4)", ["1.1", "0", "99999999999999999999999999.9999", "0.1"]),
    ("DECIMAL(30,0)", ["999999999999999999999999999999", "12345678901234567890123456789"]),
    ("VARCHAR(50)", ["''", "'b '", "'it''s'", "'%s'", "'%(x)s'", "':x'", r"'\\'", "'ü日😀'"]),
    ("VARCHAR(50)", ["'1'", "'1.0'", "'true'", "'2026-01-01'", "'\"'", "'c\\nd'", "' e'"]),
    ("VARCHAR(50) COLLATE utf8mb4_bin", ["'a'", "'A'"]),
    ("VARCHAR(50) CHARACTER SET latin1", ["'é'", "'ß'", "'€'"]),
    ("CHAR(5)", ["'a'", "'ab cd'"]),
    ("TEXT", ["'a'", "'b'"]),
    ("VARBINARY(20)", ["''", "x'00ff'", "x'61'", "x'6120'", "'aGk='"]),
    ("BINARY(4)", ["x'61'", "x'00'", "x'ffffffff'"]),
    ("BLOB", ["x'00ff'", "x'27'", "x'5c'"]),
    ("DATE", ["'2026-01-31'", "'0001-01-01'"]),
    ("DATETIME", ["'2026-01-31 12:00'", "'2026-03-29 02:30:00'"]),
    ("DATETIME(6)", ["'2026-01-31 12:00'", "'2026-01-31 12:00:00.000001'"]),
    ("ENUM('first', 'x', '1', 'so so')", ["'x'", "'1'", "'so so'"]),
    ("SET('first', 'x', 'y')", ["'x'", "'x,y'", "''"]),
    ("BOOLEAN", ["true"]),
    ("UUID", ["'0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11'"]),
    ("INET6", ["'::1'", "'::2'"]),
    ("JSON", ["'{\"a\": 1}'", "'[1]'"]),
]
FIRST = {
    "numeric": "'77'",
    "boolean": "false",
    "uuid": "'ffffffff-0000-0000-0000-000000000000'",
    "date": "'1999-01-01'",
    "timestamp": "'1999-01-01'",
    "timestamptz": "'1999-01-01'",
    "bytea": "'zz'",
    "mood": "'sad'",
    "short": "'zz'",
    "UUID": "'ffffffff-0000-0000-0000-000000000000'",
    "INET6": "'::99'",
    "DATE": "'1999-01-01'",
    "DATETIME": "'1999-01-01'",
    "DATETIME(6)": "'1999-01-01'",
    "BOOLEAN": "false",
    "JSON": "'77'",
}


def _first(kind: str) -> str:
    if kind.startswith(("ENUM", "SET")):
        return "'first'"
    return FIRST.get(kind, "77")


def _check_round_trip(url: str, kind: str, values: list[str]) -> None:
    """These keys are found while they are there, and known to be absent when they are not."""
    rows = ", ".join(f"({place}, {value})" for place, value in enumerate([_first(kind), *values]))
    execute(
        url, f"CREATE TABLE t (place integer PRIMARY KEY, k {kind})", f"INSERT INTO t VALUES {rows}"
    )
    query = "SELECT k, '100%' AS note FROM t ORDER BY place"
    _, *keys = look(url, query, limit=100).keys
    assert len(set(keys)) == len(values)
    rows_then = look(url, query, limit=1, keys=keys).rows
    assert {row.key for row in rows_then.fetched} == set(keys)
    assert not rows_then.absent
    execute(url, f"DELETE FROM t WHERE place BETWEEN 1 AND {len(values) - 1}")
    rows_now = look(url, query, limit=1, keys=keys).rows
    assert {row.key for row in rows_now.fetched} == {keys[-1]}
    assert rows_now.absent == set(keys[:-1])


@pytest.mark.parametrize(("kind", "values"), POSTGRES_KEYS)
def test_keys_of_every_kind_on_postgresql(postgres_url: str, kind: str, values: list[str]) -> None:
    execute(
        postgres_url,
        "CREATE TYPE mood AS ENUM ('sad', 'happy', 'so so')",
        "CREATE DOMAIN short AS varchar(5)",
    )
    _check_round_trip(postgres_url, kind, values)


@pytest.mark.parametrize(("kind", "values"), MARIADB_KEYS)
def test_keys_of_every_kind_on_mariadb(mariadb_url: str, kind: str, values: list[str]) -> None:
    _check_round_trip(mariadb_url, kind, values)


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("postgres", "real", ["0.1", "0.2"]),
        ("postgres", "double precision", ["0.1", "0.2"]),
        ("postgres", "interval", ["'1 month'", "'30 days'", "'31 days'"]),
        ("postgres", "time", ["'12:00'", "'13:00'"]),
        ("postgres", "jsonb", ["'\"1\"'", "'\"2\"'"]),
        ("postgres", "integer[]", ["'{1}'", "'{2}'"]),
        ("postgres", "inet", ["'10.0.0.1'", "'10.0.0.0/8'"]),
        ("mariadb", "FLOAT", ["0.1", "0.2"]),
        ("mariadb", "DOUBLE", ["0.1", "0.2"]),
        ("mariadb", "TIME", ["'12:00'", "'13:00'"]),
        ("mariadb", "BIT(8)", ["1", "2"]),
        ("mariadb", "TIMESTAMP", ["'2026-01-31 12:00'", "'2026-01-31 13:00'"]),
        ("mariadb", "YEAR", ["2026", "2027"]),
    ],
)
def test_of_other_keys_absence_is_never_known_by_a_look_up(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: str,
    values: list[str],
) -> None:
    url = request.getfixturevalue(f"{name}_url")
    rows = ", ".join(f"({place}, {value})" for place, value in enumerate(values))
    execute(url, f"CREATE TABLE t (place integer, k {kind})", f"INSERT INTO t VALUES {rows}")
    query = "SELECT k FROM t ORDER BY place"
    keys = look(url, query).keys
    execute(url, f"DELETE FROM t WHERE place = {len(values) - 1}")
    execute(url, f"INSERT INTO t VALUES (9, {values[0]})")
    read_on = look(url, query, limit=1, keys=keys[1:])
    assert read_on.rows.absent == {keys[-1]}
    assert read_on.warnings[0].startswith("KeyNotLookedUp")
    monkeypatch.setattr("scannerjob.sources.sql.MAX_ROWS", 1)
    assert not look(url, query, limit=1, keys=keys[1:]).rows.absent


@pytest.mark.parametrize(("kind", "value"), [("real", "n + 0.5"), ("text", "repeat('x', 299 + n)")])
def test_rows_whose_keys_cannot_be_looked_up_give_their_slots_back(
    postgres_url: str, kind: str, value: str
) -> None:
    """A backlog of 20 rows, two at a time; the newest first, so that those launched move back."""
    query = "SELECT k, 0 AS done FROM t ORDER BY n DESC"
    execute(postgres_url, f"CREATE TABLE t (n integer, k {kind})")
    execute(postgres_url, f"INSERT INTO t SELECT n, {value} FROM generate_series(1, 2) n")
    launched = look(postgres_url, query, limit=2).keys
    execute(postgres_url, f"INSERT INTO t SELECT n, {value} FROM generate_series(3, 20) n")
    for presence in ([Presence.PRESENT, Presence.PRESENT], [Presence.PRESENT, Presence.ABSENT]):
        found = look(postgres_url, query, limit=2, keys=launched)
        assert [found.rows.presence(key) for key in launched] == presence
        assert not found.rows.complete
        assert found.warnings[0].startswith("KeyNotLookedUp")
        execute(postgres_url, "DELETE FROM t WHERE n = 1")


def test_a_moment_is_the_same_key_in_every_zone(postgres_url: str) -> None:
    query = "SELECT timestamptz '2026-07-01 12:00+02' AS k"
    keys = set()
    for zone in ("UTC", "Europe/Berlin", "America/New_York"):
        execute(postgres_url, f"ALTER ROLE app SET timezone = '{zone}'")
        keys |= set(look(postgres_url, query).keys)
    execute(postgres_url, "ALTER ROLE app RESET timezone")
    assert keys == {'["2026-07-01T10:00:00+00:00"]'}


def test_a_date_style_of_the_role_changes_nothing(postgres_url: str) -> None:
    execute(postgres_url, "ALTER ROLE app SET datestyle = 'German'")
    query = "SELECT timestamptz '2026-07-01 12:00Z' AS k, date '2026-07-02' AS d"
    [values] = look(postgres_url, query).values
    execute(postgres_url, "ALTER ROLE app RESET datestyle")
    assert values == {"k": "2026-07-01T12:00:00+00:00", "d": "2026-07-02"}


def test_a_case_insensitive_collation_does_not_mix_keys_up(
    mariadb_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute(
        mariadb_url,
        "CREATE TABLE t (k VARCHAR(9) COLLATE utf8mb4_general_ci)",
        "INSERT INTO t VALUES ('0'), ('A'), ('b'), ('c ')",
    )
    keys = ['["a"]', '["b"]', '["c"]', '["d"]']
    rows = look(mariadb_url, "SELECT k FROM t", limit=1, keys=keys).rows
    assert [row.key for row in rows.fetched] == ['["b"]']
    assert rows.absent == {'["a"]', '["c"]', '["d"]'}
    monkeypatch.setattr("scannerjob.sources.sql.MAX_ROWS", 3)
    rows = look(mariadb_url, "SELECT k FROM t", limit=1, keys=keys).rows
    assert [row.key for row in rows.fetched] == ['["b"]']
    assert rows.absent == {'["d"]'}


def test_a_key_of_another_type_is_an_unknown_one_and_no_error(postgres_url: str) -> None:
    execute(postgres_url, "CREATE TYPE mood AS ENUM ('sad', 'happy')")
    query = "SELECT k FROM unnest('{sad,happy}'::mood[]) AS k"
    rows = look(postgres_url, query, limit=1, keys=['["gone"]', '["happy"]']).rows
    # The whole result was read to find out.
    assert [row.key for row in rows.fetched] == ['["happy"]']
    assert rows.absent == {'["gone"]'}
    assert "2 keys" in rows.problems[0]


# Values of every type


def test_a_wide_table_on_postgresql(postgres_url: str) -> None:
    query = r"""SELECT 1::smallint AS i2, 2 AS i4, 9223372036854775807 AS i8, 1.50 AS num,
        0.5::real AS f4, 1e100::float8 AS f8, 'ü' AS txt, 'a'::char(3) AS chr, '\x00ff'::bytea AS b,
        true AS yes, date '2026-01-31' AS d, time '12:30' AS t, timetz '12:30+02' AS ttz,
        time '24:00' AS midnight, timestamp '2026-01-31 12:00' AS ts,
        timestamptz 'infinity' AS never, timestamptz '2026-01-31 12:00+01' AS tstz,
        interval '1 day 1 second' AS iv,
        '0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11'::uuid AS u, '{"a": [1, 2.5]}'::json AS j,
        '{"a": null}'::jsonb AS jb, '{1,2}'::int[] AS arr, '{{a},{b}}'::text[] AS arr2,
        '10.0.0.0/8'::cidr AS net, '10.0.0.1'::inet AS ip, '[1,5)'::int4range AS rng,
        b'101' AS bits, 'a b'::tsvector AS tsv, '<a/>'::xml AS x, '(1,2)'::point AS pt,
        '1.50'::money AS mon, row(1, 'a') AS rec, NULL AS nothing,
        '08:00:2b:01:02:03'::macaddr AS mac, 'NaN'::numeric AS nan,
        '{2026-01-31}'::date[] AS dates, '{[1,2)}'::int4multirange AS multi
    """
    [values] = look(postgres_url, query).values
    assert values == {
        "i2": 1,
        "i4": 2,
        "i8": "9223372036854775807",
        "num": "1.50",
        "f4": 0.5,
        "f8": 1e100,
        "txt": "ü",
        "chr": "a  ",
        "b": "AP8=",
        "yes": True,
        "d": "2026-01-31",
        "t": "12:30:00",
        "ttz": "12:30:00+02:00",
        "midnight": "24:00:00",
        "ts": "2026-01-31T12:00:00",
        "never": "infinity",
        "tstz": "2026-01-31T11:00:00+00:00",
        "iv": 86401.0,
        "u": "0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11",
        "j": {"a": [1, 2.5]},
        "jb": {"a": None},
        "arr": [1, 2],
        "arr2": [["a"], ["b"]],
        "net": "10.0.0.0/8",
        "ip": "10.0.0.1",
        "rng": "[1, 5)",
        "bits": "101",
        "tsv": "'a' 'b'",
        "x": "<a/>",
        "pt": "(1,2)",
        "mon": values["mon"],
        "rec": ["1", "a"],
        "nothing": None,
        "mac": "08:00:2b:01:02:03",
        "nan": "NaN",
        "dates": ["2026-01-31"],
        "multi": "{[1, 2)}",
    }
    assert "1.50" in str(values["mon"])


def test_a_wide_table_on_mariadb(mariadb_url: str) -> None:
    execute(
        mariadb_url,
        "CREATE TABLE w (i1 TINYINT, i8 BIGINT UNSIGNED, num DECIMAL(9,2), f4 FLOAT, f8 DOUBLE,"
        " txt TEXT, chr CHAR(3), bin BINARY(2), b BLOB, yes BOOLEAN, d DATE, t TIME,"
        " dt DATETIME(3), ts TIMESTAMP NULL, y YEAR, e ENUM('a', 'b'), s SET('a', 'b'),"
        " bits BIT(3), j JSON, u UUID, ip INET6, pt POINT, nothing INT)",
        "INSERT INTO w VALUES (1, 18446744073709551615, 1.5, 0.5, 1e100, 'ü', 'a', x'00ff',"
        " x'00ff', TRUE, '2026-01-31', '-25:00:01', '2026-01-31 12:00:00.5',"
        " '2026-01-31 12:00', 2026, 'b', 'a,b', b'101', '{\"a\": [1]}',"
        " '0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11', '::1',"
        " ST_GeomFromText('POINT(1 2)'), NULL)",
    )
    [values] = look(mariadb_url, "SELECT * FROM w").values
    assert isinstance(values.pop("pt"), str)
    assert values == {
        "i1": 1,
        "i8": "18446744073709551615",
        "num": "1.50",
        "f4": 0.5,
        "f8": 1e100,
        "txt": "ü",
        "chr": "a",
        "bin": "AP8=",
        "b": "AP8=",
        "yes": 1,
        "d": "2026-01-31",
        "t": -90001.0,
        "dt": "2026-01-31T12:00:00.500000",
        "ts": "2026-01-31T12:00:00",
        "y": 2026,
        "e": "b",
        "s": "a,b",
        "bits": "BQ==",
        "j": '{"a": [1]}',
        "u": "0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11",
        "ip": "::1",
        "nothing": None,
    }


# What goes wrong


def test_a_wrong_password_is_named_and_not_shown(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = make_url(url).set(password=f"{CANARY}@/:%").render_as_string(hide_password=False)
    error = failure(wrong, "SELECT 1 AS id")
    assert error.reason == "AuthenticationFailed"
    assert f"{make_url(url).host}:{make_url(url).port}" in str(error)
    for said in (str(error), repr(error), caplog.text):
        assert CANARY not in said
    assert str(make_url(url).username) not in str(error)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_an_unknown_host_is_named(scheme: str) -> None:
    error = failure(f"{scheme}://app:{CANARY}@nowhere.invalid/app", "SELECT 1 AS id")
    assert error.reason == "DatabaseUnreachable"
    assert "nowhere.invalid" in str(error)
    assert CANARY not in str(error)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_closed_port_is_named(scheme: str) -> None:
    port = free_port()
    error = failure(f"{scheme}://app:{CANARY}@127.0.0.1:{port}/app", "SELECT 1 AS id")
    assert error.reason == "DatabaseUnreachable"
    assert f"127.0.0.1:{port}" in str(error)


def test_an_unknown_database_is_named(url: str) -> None:
    error = failure(make_url(url).set(database="nope").render_as_string(False), "SELECT 1 AS id")
    assert error.reason in ("DatabaseUnreachable", "AuthenticationFailed")
    assert "nope" in str(error)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT id FROM nowhere", "nowhere"),
        ("SELECT id FROM pdf WHERE ORDER", "ORDER"),
        ("SELECT nothing FROM pdf", "nothing"),
    ],
)
def test_an_error_in_the_query_is_the_databases_own_message(
    url: str, query: str, said: str
) -> None:
    error = failure(url, query)
    assert error.reason == "QueryFailed"
    assert said.lower() in str(error).lower()
    assert str(make_url(url).host) in str(error)


def test_a_missing_right_names_the_table_and_not_the_user(server: DatabaseServer, url: str) -> None:
    table = "pg_authid" if isinstance(server, PostgresServer) else "mysql.user"
    error = failure(url, f"SELECT * FROM {table}")
    assert error.reason == "QueryFailed"
    assert "denied" in str(error)
    assert "'app'" not in str(error)


def test_a_query_that_takes_too_long_ends(server: DatabaseServer, url: str) -> None:
    sleep = "pg_sleep" if isinstance(server, PostgresServer) else "sleep"
    query = f"SELECT id, {sleep}(30) AS s FROM pdf"
    begun = time.monotonic()
    error = failure(url, query, queryTimeout="500ms")
    assert error.reason == "QueryTimeout"
    assert time.monotonic() - begun < 10


@contextmanager
def _black_hole() -> Iterator[int]:
    """A port that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for connection in accepted:
            connection.close()


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_black_hole_delays_only_its_own_scans(url: str, scheme: str) -> None:
    async def run(port: int) -> None:
        databases = Databases()
        hung = databases.open(
            f"{scheme}://app:{CANARY}@127.0.0.1:{port}/app",
            spec("SELECT 1 AS id", queryTimeout="1s"),
        )
        sound = databases.open(url, spec("SELECT id FROM pdf"))
        begun = time.monotonic()
        scans = [asyncio.create_task(hung.scan(1)) for _ in range(30)]
        while time.monotonic() - begun < 1:
            assert len((await sound.scan(10)).rows) == 5
        for result in await asyncio.gather(*scans, return_exceptions=True):
            assert isinstance(result, SourceError)
            assert result.reason == "DatabaseUnreachable"
            assert f"127.0.0.1:{port}" in str(result)
            assert CANARY not in str(result)
        assert time.monotonic() - begun < 10
        databases.close()

    with _black_hole() as port:
        asyncio.run(run(port))


def test_a_frozen_server_ends_within_the_deadline_and_is_used_again(
    server: DatabaseServer, url: str
) -> None:
    async def run() -> None:
        databases = Databases()
        source = databases.open(url, spec("SELECT id FROM pdf", queryTimeout="1s"))
        assert len((await source.scan(10)).rows) == 5
        before = set(threading.enumerate())
        server.pause()
        for _ in range(3):
            begun = time.monotonic()
            with pytest.raises(SourceError) as failed:
                await source.scan(10)
            assert failed.value.reason in ("QueryTimeout", "DatabaseUnreachable")
            assert time.monotonic() - begun < 8
        begun = time.monotonic()
        while threads := set(threading.enumerate()) - before:
            assert time.monotonic() - begun < 30, f"left behind: {threads}"
            await asyncio.sleep(0.1)
        server.resume()
        assert len((await _soon(source)).rows) == 5
        databases.close()

    asyncio.run(run())


def test_a_server_that_was_restarted_is_no_error(server: DatabaseServer, url: str) -> None:
    async def run() -> None:
        databases = Databases()
        source = databases.open(url, spec("SELECT id FROM pdf"))
        first = await asyncio.gather(*(source.scan(10) for _ in range(5)))
        assert {len(rows.rows) for rows in first} == {5}
        server.kill()
        with pytest.raises(SourceError) as failed:
            await source.scan(10)
        assert failed.value.reason == "DatabaseUnreachable"
        server.start()
        for _ in range(5):
            assert len((await source.scan(10)).rows) == 5
        server.restart()
        again = await asyncio.gather(*(source.scan(10) for _ in range(5)))
        assert {len(rows.rows) for rows in again} == {5}
        databases.close()

    asyncio.run(run())


async def _soon(source: SqlSource) -> Rows:
    for _ in range(100):
        try:
            return await source.scan(10)
        except SourceError:
            await asyncio.sleep(0.1)
    return await source.scan(10)


# Connections


def _connections(server: PostgresServer, url: str) -> int:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
    with server.connect() as connection:
        [(count,)] = connection.execute(query, [make_url(url).database]).fetchall()
    assert isinstance(count, int)
    return count


def test_equal_urls_share_few_connections(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()

    async def run() -> int:
        databases = Databases()
        query = "SELECT 1 AS id, pg_sleep(0.05)::text AS s"
        sources = [databases.open(url, spec(query)) for _ in range(40)]
        scans = asyncio.gather(*(source.scan(10) for source in sources))
        most = 0
        while not scans.done():
            most = max(most, await asyncio.to_thread(_connections, postgres_server, url))
        await scans
        databases.close()
        return most

    assert 1 < asyncio.run(run()) <= 10
    eventually(lambda: _connections(postgres_server, url) == 0)


def test_a_database_nobody_refers_to_any_more_is_closed(postgres_server: PostgresServer) -> None:
    url = postgres_server.create_database()

    async def run() -> None:
        databases = Databases()
        source: SqlSource | None = databases.open(url, spec("SELECT 1 AS id"))
        assert source is not None
        await source.scan(1)
        source = None
        await asyncio.to_thread(eventually, lambda: _connections(postgres_server, url) == 0)

    asyncio.run(run())


def test_nothing_is_left_in_a_session_for_others_to_find(postgres_url: str) -> None:
    """As PgBouncer in transaction mode needs it."""

    async def run() -> None:
        databases = Databases()
        source = databases.open(postgres_url, spec("SELECT 1 AS id", queryTimeout="7s"))
        for _ in range(10):
            rows = await source.fetch(await source.scan(1), ["[1]", "[2]"])
            assert rows.absent == {"[2]"}
        server = source._server

        def left() -> tuple[object, ...]:
            with server._engine.connect() as connection:
                return tuple(
                    connection.exec_driver_sql(
                        "SELECT current_setting('statement_timeout'),"
                        " current_setting('transaction_read_only'),"
                        " (SELECT count(*) FROM pg_prepared_statements),"
                        " (SELECT count(*) FROM pg_cursors)"
                    ).one()
                )

        assert await asyncio.to_thread(left) == ("0", "off", 0, 0)
        databases.close()

    asyncio.run(run())
