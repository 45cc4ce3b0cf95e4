"""A query that wants more than to read: it changes nothing, and leaves nothing for the next one.

Each is run as a ScannerJob's whose author may use the database's Secret. The role that stands there
may write, and owns functions that do: what stands in the way is the scanner.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import make_url

from tests.support.scans import error_of, in_turn, rows_of
from tests.support.servers import MariaDBServer, PostgresServer
from tests.support.sources import execute, look

PATIENCE = "1s"
_PLPGSQL = "CREATE FUNCTION {}() RETURNS int {} LANGUAGE plpgsql AS $$BEGIN {}; RETURN 1; END$$"


@pytest.fixture
def postgres(postgres_url: str) -> str:
    """A database with three rows to destroy, and functions that try."""
    read_write = "PERFORM set_config('transaction_read_only', 'off', false)"
    execute(
        postgres_url,
        "CREATE TABLE victim (id int PRIMARY KEY)",
        "INSERT INTO victim VALUES (1), (2), (3)",
        "CREATE SEQUENCE counter",
        _PLPGSQL.format("wipe", "", "DELETE FROM victim"),
        # The planner calls it, before the query is run.
        _PLPGSQL.format("planned", "IMMUTABLE", f"{read_write}; DELETE FROM victim"),
        _PLPGSQL.format("loosen", "", "SET TRANSACTION READ WRITE; DELETE FROM victim"),
        _PLPGSQL.format("finish", "", "COMMIT; DELETE FROM victim"),
    )
    return postgres_url


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("INSERT INTO victim VALUES (4)", "QueryRefused"),
        ("UPDATE victim SET id = 9", "QueryRefused"),
        ("WITH gone AS (DELETE FROM victim RETURNING id) SELECT id FROM gone", "QueryRefused"),
        ("SELECT id INTO copied FROM victim", "QueryRefused"),
        ("SELECT 1 AS id; DROP TABLE victim", "QueryRefused"),
        ("SELECT 1 AS id /* ; */; DELETE FROM victim -- harmless", "QueryRefused"),
        ("SELECT id FROM victim FOR UPDATE", "QueryRefused"),
        ("COPY victim TO PROGRAM 'touch /tmp/owned'", "QueryRefused"),
        ("LISTEN gossip", "QueryRefused"),
        ("CREATE TEMP TABLE mine AS SELECT 1", "QueryRefused"),
        ("SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "QueryRefused"),
        ("SELECT wipe() AS id", "QueryFailed"),
        ("SELECT planned() AS id", "QueryFailed"),
        ("SELECT loosen() AS id", "QueryFailed"),
        ("SELECT finish() AS id", "QueryFailed"),
        ("SELECT set_config('transaction_read_only', 'off', false) AS id", "QueryFailed"),
        ("SELECT query_to_xml('DELETE FROM victim', true, true, '')::text AS id", "QueryFailed"),
        ("SELECT query_to_xml('COMMIT', true, true, '')::text AS id", "QueryFailed"),
        ("SELECT nextval('counter') AS id", "QueryFailed"),
        ("SELECT setval('counter', 99) AS id", "QueryFailed"),
        ("SELECT pg_read_file('/etc/passwd') AS id", "QueryFailed"),
        ("SELECT lo_export(1, '/tmp/owned') AS id", "QueryFailed"),
        ("SELECT lo_import('/etc/passwd') AS id", "QueryFailed"),
        ("SELECT pg_sleep(60)::text || 'x' AS id", "QueryTimeout"),
        (
            "SELECT set_config('statement_timeout', '0', false) AS id, pg_sleep(60)::text",
            "QueryTimeout",
        ),
        (
            "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) "
            "SELECT max(n) AS id FROM r",
            "QueryTimeout",
        ),
    ],
)
def test_what_does_more_than_read_fails_on_postgresql(
    postgres: str, query: str, reason: str
) -> None:
    (failed,) = in_turn(postgres, query, queryTimeout=PATIENCE)

    assert error_of(failed).reason == reason
    assert_untouched_on_postgresql(postgres)


@pytest.mark.parametrize(
    "query",
    ["SELECT lo_creat(-1) AS id", "SELECT pg_notify('gossip', 'x')::text || 'x' AS id"],
)
def test_what_postgresql_lets_pass_in_a_transaction_that_reads_is_taken_back(
    postgres: str, query: str
) -> None:
    in_turn(postgres, query)

    assert_untouched_on_postgresql(postgres)


def assert_untouched_on_postgresql(url: str) -> None:
    state = (
        "SELECT (SELECT array_agg(id ORDER BY id) FROM victim) AS rows, "
        "(SELECT is_called FROM counter) AS called, "
        "(SELECT count(*) FROM pg_largeobject_metadata) AS objects, "
        "(SELECT count(*) FROM pg_class WHERE relname IN ('copied', 'mine')) AS tables"
    )
    untouched = {"rows": [1, 2, 3], "called": False, "objects": 0, "tables": 0}
    assert look(url, state).values == [untouched]


def test_a_superuser_is_refused_in_a_cluster(postgres_server: PostgresServer) -> None:
    # He could run programs on the database's machine, in a transaction that only reads, too.
    (refused,) = in_turn(postgres_server.admin_url, "SELECT 1 AS id", in_cluster=True)

    assert error_of(refused).reason == "SuperuserRefused"


@pytest.mark.parametrize(
    "powerful",
    ["pg_execute_server_program", "pg_read_server_files", "pg_write_server_files", "postgres"],
)
def test_nor_is_one_who_can_act_as_a_powerful_role(
    postgres_server: PostgresServer, powerful: str
) -> None:
    url = make_url(postgres_server.create_database()).set(username="climber", password="up")
    with postgres_server.connect() as connection:
        connection.execute("CREATE ROLE climber LOGIN PASSWORD 'up' NOINHERIT")
        connection.execute(f"GRANT {powerful} TO climber".encode())
    try:
        (refused,) = in_turn(
            url.render_as_string(hide_password=False), "SELECT 1 AS id", in_cluster=True
        )
    finally:
        with postgres_server.connect() as connection:
            connection.execute("DROP ROLE climber")

    assert error_of(refused).reason == "SuperuserRefused"
    assert f"can act as {powerful}" in str(error_of(refused))


def test_a_session_of_postgresql_is_left_as_it_was_found(postgres: str) -> None:
    state = (
        "SELECT pg_backend_pid() AS id, current_setting('search_path') AS path, "
        "current_setting('work_mem') AS memory, current_user::text AS role, "
        "current_setting('mine.note', true) AS note, "
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks, "
        "(SELECT count(*) FROM pg_cursors) AS cursors"
    )
    before, *spoilt, after = in_turn(
        postgres,
        state,
        "SELECT set_config('search_path', 'evil', false) AS id",
        "SELECT set_config('work_mem', '2GB', false) AS id",
        "SELECT set_config('mine.note', 'for the next one', false) AS id",
        "SELECT set_config('role', 'pg_monitor', false) AS id",
        "SELECT pg_advisory_lock(7)::text || 'x' AS id",
        # The lock outlasts the failure of the transaction in which it was taken.
        "SELECT pg_advisory_lock(8)::text || 1 / 0 AS id",
        "SELECT set_config('search_path', 'evil', false) || 1 / 0 AS id",
        state,
    )

    (found,) = rows_of(after)
    assert found["id"] == rows_of(before)[0]["id"], "it was the same connection"
    # A setting that never was is empty, once it has been.
    assert {**found, "note": found["note"] or None} == rows_of(before)[0]
    assert found["locks"] == 0
    assert len(spoilt) == 7


@pytest.fixture
def mariadb(mariadb_url: str) -> str:
    """The same, on MariaDB."""
    read_write = "SET SESSION TRANSACTION READ WRITE"
    execute(
        mariadb_url,
        "CREATE TABLE victim (id int PRIMARY KEY)",
        "INSERT INTO victim VALUES (1), (2), (3)",
        "CREATE SEQUENCE counter",
        "CREATE FUNCTION wipe() RETURNS int BEGIN DELETE FROM victim; RETURN 1; END",
        f"CREATE FUNCTION loosen() RETURNS int BEGIN {read_write}; RETURN 1; END",
    )
    return mariadb_url


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("INSERT INTO victim VALUES (4)", "QueryRefused"),
        ("REPLACE INTO victim VALUES (4)", "QueryRefused"),
        ("SELECT 1 AS id; DELETE FROM victim", "QueryRefused"),
        ("SELECT id FROM victim INTO OUTFILE '/tmp/owned'", "QueryRefused"),
        ("SELECT id FROM victim INTO @note", "QueryRefused"),
        ("SELECT id FROM victim LOCK IN SHARE MODE", "QueryRefused"),
        # What other databases take for a comment.
        ("SELECT 1 AS id /*! INTO OUTFILE '/tmp/owned' */", "QueryRefused"),
        ("SELECT 1 AS id /*!50000 INTO @note */", "QueryRefused"),
        ("SELECT id FROM victim /*M! FOR UPDATE */", "QueryRefused"),
        ("SELECT 1 AS id /* /* */ INTO OUTFILE '/tmp/owned' -- */", "QueryRefused"),
        ("SELECT 1--1 AS id INTO @note", "QueryRefused"),
        ("SET STATEMENT max_statement_time = 0 FOR SELECT sleep(60) AS id", "QueryRefused"),
        ("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE victim", "QueryRefused"),
        ("SELECT wipe() AS id", "QueryFailed"),
        ("SELECT nextval(counter) AS id", "QueryFailed"),
        ("SELECT setval(counter, 99) AS id", "QueryFailed"),
        ("SELECT sleep(60) AS id", "QueryTimeout"),
        ("SELECT count(*) AS id FROM seq_1_to_1000000 a, seq_1_to_1000000 b", "QueryTimeout"),
    ],
)
def test_what_does_more_than_read_fails_on_mariadb(mariadb: str, query: str, reason: str) -> None:
    (failed,) = in_turn(mariadb, query, queryTimeout=PATIENCE)

    assert error_of(failed).reason == reason
    assert_untouched_on_mariadb(mariadb)


def test_a_file_is_not_read(mariadb: str) -> None:
    assert in_turn(mariadb, "SELECT 1 AS id, LOAD_FILE('/etc/passwd') AS stolen") == [
        [{"id": 1, "stolen": None}]
    ]


def test_a_query_that_makes_its_session_write_has_it_for_itself(mariadb: str) -> None:
    unlocked, wiped, both, again = in_turn(
        mariadb,
        "SELECT loosen() AS id",
        "SELECT wipe() AS id",
        *["SELECT loosen() AS id, wipe() AS more"] * 2,
    )

    assert rows_of(unlocked) == [{"id": 1}]
    for failed in (wiped, both, again):
        assert "READ ONLY transaction" in str(error_of(failed))
    assert_untouched_on_mariadb(mariadb)


def assert_untouched_on_mariadb(url: str) -> None:
    state = "SELECT (SELECT group_concat(id) FROM victim) AS id, next_not_cached_value AS next"
    assert look(url, f"{state} FROM counter").values == [{"id": "1,2,3", "next": 1}]


def test_a_session_of_mariadb_is_left_as_it_was_found(mariadb: str) -> None:
    state = (
        "SELECT connection_id() AS id, @note AS note, is_used_lock('mine') AS held, "
        "last_insert_id() AS last, @@autocommit AS autocommit, @@sql_mode AS mode, "
        "@@character_set_client AS charset, @@tx_read_only AS only_reads"
    )
    before, *spoilt, after = in_turn(
        mariadb,
        state,
        "SELECT @note := 'for the next one' AS id",
        "SELECT get_lock('mine', 0) AS id",
        "SELECT last_insert_id(99) AS id",
        "SELECT loosen() AS id",
        state,
    )

    assert rows_of(after) == rows_of(before)
    (found,) = rows_of(after)
    assert (found["note"], found["held"], found["last"], found["only_reads"]) == (None, None, 0, 1)
    assert all(rows_of(each) for each in spoilt), "each of them was run"


def test_who_may_use_files_of_the_databases_machine_is_refused_in_a_cluster(
    mariadb: str, mariadb_server: MariaDBServer
) -> None:
    (refused,) = in_turn(mariadb_server.as_admin(mariadb), "SELECT 1 AS id", in_cluster=True)

    assert error_of(refused).reason == "SuperuserRefused"
    assert "FILE and SUPER" in str(error_of(refused))
    assert look(mariadb_server.as_admin(mariadb), "SELECT 1 AS id").warnings
    assert not look(mariadb, "SELECT 1 AS id", in_cluster=True).warnings


@pytest.mark.parametrize(
    "query",
    [
        "ATTACH '{other}' AS other",
        "SELECT 1 AS id; ATTACH '{other}' AS other",
        "VACUUM INTO '{other}'",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('{other}') AS id",
        "SELECT writefile('{other}', 'x') AS id",
        "SELECT * FROM pragma_journal_mode('off')",
        "SELECT edit('x', 'touch {other}') AS id",
        "DELETE FROM victim",
        "WITH x AS (SELECT 1) DELETE FROM victim",
        "WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT max(n) FROM r",
    ],
)
def test_what_does_more_than_read_fails_on_sqlite(tmp_path: Path, query: str) -> None:
    file, other = tmp_path / "app.sqlite", tmp_path / "owned"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript("CREATE TABLE victim (id); INSERT INTO victim VALUES (1);")
    content = file.read_bytes()

    (failed,) = in_turn(f"sqlite:///{file}", query.format(other=other), queryTimeout=PATIENCE)

    assert error_of(failed).reason in ("QueryRefused", "QueryFailed", "QueryTimeout")
    assert not other.exists()
    assert file.read_bytes() == content
