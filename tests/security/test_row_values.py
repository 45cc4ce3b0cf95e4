"""Row values that would be commands, templates or something else: they arrive as they are.

Through a real database, and from there into a real worker's arguments and, by the API server's own
word, into the environment of a Job's program.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url

from scannerjob.model.row import UnusableRow
from scannerjob.targets.job.manifest import manifest
from tests.support.api import Api
from tests.support.celery_target import Worker, ids_of, launch, make_send, opened
from tests.support.controlplane import ControlPlane
from tests.support.hostile import TEXTS
from tests.support.pods import expanded
from tests.support.sources import execute, look
from tests.support.waiting import eventually
from tests.unit.job_cases import CONTAINER, OWNER, job_spec, made, send, template


def rows_with(url: str, texts: Sequence[str]) -> list[dict[str, Any]]:
    """The texts as values of rows, as they are read from a database."""
    execute(url, "CREATE TABLE t (id serial PRIMARY KEY, title text)")
    place = make_url(url)
    with psycopg.connect(
        host=place.host,
        port=place.port,
        user=place.username,
        password=place.password,
        dbname=place.database,
    ) as connection:
        connection.cursor().executemany(
            "INSERT INTO t (title) VALUES (%s)", [(text,) for text in texts]
        )
    return look(url, "SELECT id AS pdf_id, title FROM t ORDER BY id", limit=100).values


def test_a_worker_gets_every_value_as_it_stands_in_its_row(
    postgres_url: str, sqlite: str, redis_url: str, tmp_path: Path
) -> None:
    rows = rows_with(postgres_url, TEXTS)
    # PostgreSQL has no text with a NUL in it.
    (with_nul,) = look(sqlite, "SELECT 1 AS id, 'one' || char(0) || 'two' AS title").values
    assert with_nul["title"] == "one\0two"
    others = look(
        postgres_url,
        "SELECT 1 AS __proto__, 2 AS args, 3 AS kwargs, 4 AS task_id, 5 AS fun, 6 AS request, "
        """'{"a": [1, null, {"$(x)": "\\u0000"}]}'::json AS nested, 9007199254740993 AS big""",
    ).values
    assert [row["title"] for row in rows] == list(TEXTS)
    sends = [make_send(row) for row in (*rows, with_nul, *others)]

    with Worker(tmp_path, redis_url) as worker:
        launch(opened(redis_url), sends)
        eventually(lambda: len(worker.ran()) == len(sends), timeout=60)
        ran = worker.ran()

    arrived = {each["id"]: each["kwargs"] for each in ran}
    assert arrived == {each.item.id: dict(each.row.values) for each in sends}
    assert set(ids_of(sends)) == arrived.keys()


def test_a_program_gets_every_value_as_it_stands_in_its_row(
    control_plane: ControlPlane, postgres_url: str
) -> None:
    namespace = control_plane.create_namespace()
    api = Api(control_plane.kubeconfig())
    uses = {
        **CONTAINER,
        "command": ["work", "$(TITLE)"],
        "env": [{"name": "COPY", "value": "<$(TITLE)>"}],
    }
    rows = rows_with(postgres_url, TEXTS)

    for row, text in zip(rows, TEXTS, strict=True):
        accepted = dry_run(api, namespace, job_of(row, template(uses)))

        program = expanded(accepted["spec"]["template"]["spec"]["containers"][0])
        assert program.env == {"PDF_ID": str(row["pdf_id"]), "TITLE": text, "COPY": f"<{text}>"}
        # A value is one argument, whatever it holds.
        assert program.command == ["work", text]


def job_of(row: Mapping[str, Any], job_template: Mapping[str, Any]) -> dict[str, Any]:
    return manifest(OWNER, job_spec(job_template), send("7", **row))


def dry_run(api: Api, namespace: str, job: dict[str, Any]) -> Mapping[str, Any]:
    """The Job as the API server would have it."""
    job["metadata"]["namespace"] = namespace
    return api.create(f"/apis/batch/v1/namespaces/{namespace}/jobs?dryRun=All", job)


def test_what_no_environment_can_hold_is_refused_by_its_columns_name() -> None:
    with pytest.raises(UnusableRow, match="column title"):
        made(title="one\0LD_PRELOAD=/tmp/owned.so")


@pytest.mark.parametrize(
    "disguise",
    [
        '{"__type__": "datetime", "__value__": "2026-01-31T12:00:00"}',
        '{"__type__": "bytes", "__value__": "x"}',
        '{"__type__": "evil", "__value__": 1}',
        '{"__type__": ["unhashable"], "__value__": 1}',
        '[{"deep": {"__value__": 1, "__type__": "uuid"}}]',
    ],
)
def test_an_object_that_celery_would_take_for_something_else_is_held_back(
    postgres_url: str, disguise: str
) -> None:
    # A worker drops a message that it cannot decode, and nobody ever hears of its launch.
    query = f"SELECT 1 AS id, '{disguise}'::json AS v UNION ALL SELECT 2, '{{}}'::json"

    found = look(postgres_url, query)

    assert found.values == [{"id": 2, "v": {}}]
    (problem,) = found.rows.problems
    assert problem.startswith("row [1]: column v: Celery takes an object of __type__")


@pytest.fixture
def sqlite(sqlite_url: str) -> str:
    """A database whose columns hold values of any type."""
    execute(sqlite_url, "CREATE TABLE t (x)")
    return sqlite_url


def test_keys_that_look_alike_are_kept_apart(sqlite: str) -> None:
    values = ["1", "'1'", "1.0", "'1.0'", "'true'", "NULL", "'null'", "'a,b'", "'[1]'"]
    texts = ["cafe\u0301", "café", "\u0440\u0430ypal", "paypal", "ﬁ", "fi", "a\u200b", "a", "A"]
    long = ["x" * 300, "x" * 301, "x" * 299 + "y"]
    values += [f"'{text}'" for text in (*texts, *long)]
    query = " UNION ALL ".join(f"SELECT {value} AS id" for value in values)

    found = look(sqlite, query, limit=100)

    assert len(set(found.keys)) == len(found.keys) == len(values) - 1
    assert found.rows.problems == ("row 6 of the result: key column id is NULL",)


def test_columns_of_a_key_are_kept_apart(sqlite: str) -> None:
    query = """SELECT 'a' AS x, 'b,c' AS y UNION ALL SELECT 'a,b', 'c' UNION ALL SELECT 'a","b', 'c'
    UNION ALL SELECT 'a', 'b","c' UNION ALL SELECT '["a"', '"b"]'"""

    assert len(set(look(sqlite, query, key=["x", "y"]).keys)) == 5


@pytest.mark.parametrize(
    ("one", "other"),
    [("9007199254740993", "'9007199254740993'"), ("x'6162'", "'YWI='")],
)
def test_of_rows_whose_keys_are_the_same_one_is_launched(sqlite: str, one: str, other: str) -> None:
    found = look(sqlite, f"SELECT {one} AS id UNION ALL SELECT {other}")

    assert len(found.keys) == 1
    assert "another row has the same key" in found.rows.problems[0]


def test_a_text_that_is_none_is_held_back(postgres_url: str) -> None:
    query = """SELECT 1 AS id, '"\\ud800"'::json AS v UNION ALL SELECT 2, '"good"'::json"""

    found = look(postgres_url, query)

    assert found.keys == ["[2]"]
    assert found.rows.problems == ("row [1]: a text in it is not valid",)
