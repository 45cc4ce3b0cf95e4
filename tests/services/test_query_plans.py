"""What PostgreSQL and MariaDB tell of the cost of each look."""

from __future__ import annotations

import pytest

from scannerjob.model.plan import INDEXED, PLAN_UNKNOWN, PlanEstimate, PlanFinding
from scannerjob.sources.plans import MANY_ROWS
from tests.support.servers import DatabaseServer, PostgresServer
from tests.support.sources import estimate, execute, look

ROWS = 2 * MANY_ROWS


@pytest.fixture(params=["postgres", "mariadb"])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(f"{request.param}_server")
    return found


def table(server: DatabaseServer, rows: int) -> str:
    """A database with a table `pdf`: three rows are open, and so many are done."""
    url = server.create_database()
    # PostgreSQL counts pages: two rows in each make few of them dear.
    many, storage = (
        (f"generate_series(1, {rows}) AS s(seq)", "WITH (fillfactor = 10)")
        if isinstance(server, PostgresServer)
        else (f"seq_1_to_{rows}", "")
    )
    execute(
        url,
        "CREATE TABLE pdf (id INTEGER PRIMARY KEY, done BOOLEAN NOT NULL, at INTEGER, "
        f"title VARCHAR(300)) {storage}",
        f"INSERT INTO pdf SELECT seq, true, -seq, repeat('x', 300) FROM {many}",
        "INSERT INTO pdf VALUES (-1, false, 1, ''), (-2, false, 2, ''), (-3, false, 3, '')",
        "ANALYZE pdf" if isinstance(server, PostgresServer) else "ANALYZE TABLE pdf",
    )
    return url


@pytest.fixture
def url(server: DatabaseServer) -> str:
    return table(server, ROWS)


def index(server: DatabaseServer, column: str) -> str:
    """What creates the index that the open rows, in this column's order, are found by."""
    if isinstance(server, PostgresServer):
        return f"CREATE INDEX open_pdf ON pdf ({column}) WHERE NOT done"
    return f"CREATE INDEX open_pdf ON pdf (done, {column})"


def finding(url: str, query: str, limit: int = 10) -> PlanFinding:
    found = look(url, query, limit).plan
    assert found is not None
    return found


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM pdf WHERE NOT done",
        "SELECT p.id FROM pdf p WHERE NOT p.done ORDER BY p.at",
        "WITH open_ones AS (SELECT * FROM pdf WHERE NOT done) SELECT id FROM open_ones",
    ],
)
def test_a_table_read_whole_for_few_rows_is_named_until_an_index_is_there(
    server: DatabaseServer, url: str, query: str
) -> None:
    found = finding(url, query)
    assert found.reason == "SequentialScan"
    assert "table pdf" in found.message.replace("`", "")
    assert "index" in found.message
    execute(url, index(server, "at"))
    assert finding(url, query) == INDEXED


def test_postgresqls_own_words_for_the_condition_are_the_index_to_add(
    postgres_server: PostgresServer,
) -> None:
    url = table(postgres_server, ROWS)
    query = "SELECT id FROM pdf WHERE NOT done ORDER BY at"
    [statement] = [
        f"CREATE INDEX {rest.split(':')[0]}"
        for rest in finding(url, query).message.split("CREATE INDEX ")[1:]
    ]
    execute(url, statement.replace("the columns of ORDER BY, or else the key", "at"))
    assert finding(url, query) == INDEXED


def test_an_index_that_gives_the_order_alone_is_walked_from_end_to_end(
    server: DatabaseServer,
) -> None:
    url = table(server, ROWS)
    execute(url, "CREATE INDEX by_time ON pdf (at)")
    query = "SELECT id FROM pdf WHERE NOT done ORDER BY at"
    assert finding(url, query).reason == "SequentialScan"


def test_a_sort_of_all_that_match_is_named_until_an_index_gives_the_order(
    server: DatabaseServer, url: str
) -> None:
    query = "SELECT id, title FROM pdf ORDER BY at"
    found = finding(url, query)
    assert found.reason == "Sort"
    assert "ORDER BY" in found.message or "at" in found.message.split("then on ")[1]
    execute(url, "CREATE INDEX in_order ON pdf (at)")
    assert finding(url, query) == INDEXED


def test_to_sort_few_rows_is_nothing_to_tell(server: DatabaseServer, url: str) -> None:
    execute(url, index(server, "id"))
    assert finding(url, "SELECT id, title FROM pdf WHERE NOT done ORDER BY at") == INDEXED


def test_a_look_that_may_stop_early_is_nothing_to_tell(url: str) -> None:
    assert finding(url, "SELECT id, title FROM pdf") == INDEXED
    assert finding(url, "SELECT id, title FROM pdf ORDER BY id") == INDEXED
    assert finding(url, "SELECT id, title FROM pdf ORDER BY id LIMIT 5") == INDEXED
    assert finding(url, "SELECT 1 AS id") == INDEXED


def test_a_condition_that_most_rows_meet_is_no_reason_to_complain(
    server: DatabaseServer, url: str
) -> None:
    found = look(url, "SELECT id FROM pdf WHERE done", 10).plan
    # MariaDB does not know how many rows meet it, and has not seen yet.
    assert found == (INDEXED if isinstance(server, PostgresServer) else None)


def test_of_a_small_table_nothing_is_said(server: DatabaseServer) -> None:
    url = table(server, 1000)
    assert finding(url, "SELECT id FROM pdf WHERE NOT done ORDER BY at") == INDEXED
    assert finding(url, "SELECT id FROM pdf ORDER BY at") == INDEXED


def test_a_view_has_the_plan_of_its_tables(server: DatabaseServer, url: str) -> None:
    execute(url, "CREATE VIEW open_ones AS SELECT p.id FROM pdf p WHERE NOT p.done")
    # MariaDB names a view's table by its alias there, which says nothing outside.
    expected = ("SequentialScan",) if isinstance(server, PostgresServer) else ("PlanUnknown",)
    assert finding(url, "SELECT id FROM open_ones").reason in expected


def test_an_estimate_is_of_all_rows_that_match(server: DatabaseServer, url: str) -> None:
    whole, few = "SELECT id FROM pdf ORDER BY id", "SELECT id FROM pdf WHERE NOT done"
    expected, dear = estimate(url, whole), estimate(url, few)
    execute(url, index(server, "id"))
    cheap = estimate(url, few)

    assert expected.rows == pytest.approx(ROWS, rel=0.2)
    assert cheap.rows is not None
    assert cheap.rows < 100
    assert dear.cost is not None
    assert cheap.cost is not None
    assert 0 < cheap.cost < dear.cost


def test_of_what_it_cannot_reckon_mariadb_says_nothing(mariadb_url: str) -> None:
    execute(mariadb_url, "CREATE TABLE pdf (id INTEGER PRIMARY KEY)")
    assert estimate(mariadb_url, "SELECT id FROM pdf UNION SELECT 1") == PlanEstimate()


def test_a_query_that_cannot_be_run_has_no_estimate(server: DatabaseServer) -> None:
    assert estimate(server.create_database(), "SELECT id FROM nowhere") == PlanEstimate()


def _unforeseen(_: object) -> None:
    raise KeyError("what no version has")


def test_a_plan_that_cannot_be_had_costs_no_row(
    url: str, server: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = "postgresql._costs" if isinstance(server, PostgresServer) else "mysql._rows"
    monkeypatch.setattr(f"scannerjob.sources.{step}", _unforeseen)
    found = look(url, "SELECT id FROM pdf WHERE NOT done ORDER BY at")
    assert found.keys == ["[-1]", "[-2]", "[-3]"]
    assert found.plan == PLAN_UNKNOWN
