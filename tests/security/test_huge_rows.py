"""Rows that are larger than anything: one is held back, many of them cost a bounded memory."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import DatabaseServer
from tests.support.sources import execute, look

# What a process may come to need above what it needs for a query of one small row. The operator's
# container is given 512 MiB, and needs about 100 of them itself.
BOUND = 350
_CHILD = """
import sys
from tests.support.sources import look

url, query, limit = sys.argv[1:]
peak = lambda: int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) // 1024
look(url, "SELECT 1 AS id")
before = peak()
try:
    print(len(look(url, query, int(limit), queryTimeout="250s").rows.rows), "rows")
except Exception as error:
    print(error)
print("grown by", peak() - before)
"""
ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("name", "query", "limit"),
    [
        ("postgres", "SELECT 1 AS id, repeat('x', 200000000) AS v", 1),
        (
            "postgres",
            "SELECT n AS id, repeat('x', 60000) AS v FROM generate_series(1, 9999) n",
            9999,
        ),
        ("mariadb", "SELECT seq AS id, repeat('x', 15000000) AS v FROM seq_1_to_30", 30),
    ],
)
def test_rows_that_would_fill_the_memory_are_not_read(
    name: str, query: str, limit: int, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(f"{name}_url")

    said, grown = in_child(url, query, limit)

    assert "the rows take more than 64 MiB: select less of each" in said
    assert grown < BOUND


@pytest.mark.timeout(300)
def test_a_million_waiting_rows_cost_no_more_than_those_that_are_wanted(postgres_url: str) -> None:
    query = "SELECT n AS id, repeat('x', 60000) AS v FROM generate_series(1, 1000000) n"

    said, grown = in_child(postgres_url, query, 100)

    assert "100 rows" in said
    assert grown < 100


def in_child(url: str, query: str, limit: int) -> tuple[str, int]:
    """What a process of its own says of this look, and by how many MiB its memory has grown."""
    child = subprocess.run(
        [sys.executable, "-c", _CHILD, url, query, str(limit)],
        check=True,
        capture_output=True,
        text=True,
        timeout=280,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}"},
    )
    found = re.search(r"grown by (\d+)", child.stdout)
    assert found, child.stderr
    return child.stdout, int(found[1])


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_one_huge_row_is_held_back_and_the_others_are_not(
    name: str, request: pytest.FixtureRequest
) -> None:
    server: DatabaseServer = request.getfixturevalue(f"{name}_server")
    url = server.create_database()
    execute(url, "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")

    found = look(url, "SELECT id, CASE id WHEN 2 THEN repeat('x', 12000000) END AS v FROM t")

    assert sorted(found.keys) == ["[1]", "[3]"]
    assert found.rows.held_back == {"[2]"}
    (problem,) = found.rows.problems
    assert problem == "row [2]: its 11718 KiB are more than the 64 KiB a message may hold"
