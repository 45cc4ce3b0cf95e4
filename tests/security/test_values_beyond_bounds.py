"""Values that no program can hold: their own row is held back, or they arrive as text."""

import re

import psycopg
import pytest
from psycopg import pq

from scannerjob.sources.postgresql import _as_text, _lenient
from tests.support.sources import execute, look


def test_values_beyond_all_bounds_hold_back_their_own_row_alone(postgres_url: str) -> None:
    digits, depth = "9" * 5000, 3000
    values = {
        1: f"'[{digits}]'::json",
        2: f"(repeat('[', {depth}) || repeat(']', {depth}))::json",
        3: "(repeat('[', 700) || repeat(']', 700))::json",
        4: "to_json(10::numeric ^ 131071)",
        5: "'-1e400'::json",
        6: f"json_build_array('[{digits}]'::json)",
        7: "'\"good\"'::json",
    }
    query = " UNION ALL ".join(f"SELECT {key} AS id, {value} AS v" for key, value in values.items())

    found = look(postgres_url, query)

    assert found.values == [{"id": 7, "v": "good"}]
    assert found.rows.held_back == {f"[{key}]" for key in range(1, 7)}
    assert all(re.match(r"row \[\d\]: ", problem) for problem in found.rows.problems)


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_a_value_of_a_mebibyte_holds_back_its_own_row_alone(
    name: str, request: pytest.FixtureRequest
) -> None:
    # It would fit neither into the environment of a program nor into what the API server stores.
    query = "SELECT 1 AS id, repeat('x', 1048576) AS v UNION ALL SELECT 2, 'good'"

    found = look(request.getfixturevalue(f"{name}_url"), query)

    assert found.values == [{"id": 2, "v": "good"}]
    (problem,) = found.rows.problems
    assert problem.startswith("row [1]: ")
    assert "64 KiB" in problem


def test_times_beyond_all_calendars_arrive_as_the_databases_text(postgres_url: str) -> None:
    times = {
        "a": "'infinity'::date",
        "b": "'-infinity'::timestamptz",
        "c": "'4713-01-01 BC'::date",
        "d": "'294276-12-31 23:59:59'::timestamp",
        "e": "'24:00'::time",
        "f": "daterange('-infinity', 'infinity')",
        "g": "ARRAY['infinity'::date]",
    }
    query = ", ".join(f"{value} AS {name}" for name, value in times.items())

    assert look(postgres_url, f"SELECT 1 AS id, {query}").values == [
        {
            "id": 1,
            "a": "infinity",
            "b": "-infinity",
            "c": "4713-01-01 BC",
            "d": "294276-12-31 23:59:59",
            "e": "24:00:00",
            "f": "[-infinity, infinity)",
            "g": ["infinity"],
        }
    ]


def test_dates_that_are_none_arrive_as_mariadbs_text(mariadb_url: str) -> None:
    execute(
        mariadb_url,
        "CREATE TABLE t (id int, d date, t datetime)",
        "INSERT INTO t VALUES (1, '0000-00-00', '0000-00-00 00:00:00')",
    )

    assert look(mariadb_url, "SELECT * FROM t").values == [
        {"id": 1, "d": "0000-00-00", "t": "0000-00-00 00:00:00"}
    ]


@pytest.mark.parametrize("name", ["postgres", "mariadb"])
def test_more_columns_than_any_table_has(name: str, request: pytest.FixtureRequest) -> None:
    url = request.getfixturevalue(f"{name}_url")
    columns = ", ".join(f"{number} AS c{number}" for number in range(1600))

    (values,) = look(url, f"SELECT {columns}").values

    assert list(values.values()) == list(range(1600))


@pytest.mark.parametrize("style", ["postgres_verbose", "iso_8601", "sql_standard"])
def test_intervals_that_are_shown_in_another_style_arrive_as_text(
    postgres_url: str, style: str
) -> None:
    execute(postgres_url, f"ALTER ROLE app SET intervalstyle = '{style}'")
    try:
        (values,) = look(postgres_url, "SELECT 1 AS id, '1 day 02:00'::interval AS v").values
    finally:
        execute(postgres_url, "ALTER ROLE app RESET intervalstyle")

    assert isinstance(values["v"], str)


def test_an_interval_without_end_is_not_taken_for_an_empty_one() -> None:
    """PostgreSQL 17 has them; psycopg reads nothing from them, and says so of none."""
    interval = psycopg.postgres.types["interval"].oid
    strict = psycopg.adapters.get_loader(interval, pq.Format.TEXT)
    assert strict is not None

    loader = _lenient(strict, _as_text)(interval)

    assert loader.load(b"infinity") == "infinity"
    assert loader.load(b"-infinity") == "-infinity"
