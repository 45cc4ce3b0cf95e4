"""Results that no task wrote: garbage, pickles, and what is too large to read.

Who may write a result backend may say how the launches in it ended. He reaches nothing else.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import create_engine, text

from scannerjob.model.facts import Fact, Observation
from tests.support.celery_target import opened, told

HUGE = 16 * 1024 * 1024


class Bomb:
    """Whoever unpickles it creates a file."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self._file,)


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    return tmp_path / "owned"


def test_a_pickle_goes_off_where_it_is_unpickled(owned: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(owned)))
    assert owned.exists()


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


def key(launch: str) -> str:
    return f"celery-task-meta-{launch}"


def test_what_is_no_result_in_redis_tells_nothing_and_is_never_unpickled(
    client: redis.Redis, redis_url: str, owned: Path
) -> None:
    good = {"status": "SUCCESS", "result": None}
    client.set(key("good"), json.dumps(good))
    client.set(key("pickle"), pickle.dumps(Bomb(owned)))
    client.set(key("pickled"), pickle.dumps({"status": "SUCCESS", "result": Bomb(owned)}))
    client.set(key("other"), json.dumps({**good, "task_id": "good"}))
    client.set(key("cut"), json.dumps(good)[:-3])
    client.set(key("deep"), "[" * 10_000)
    client.rpush(key("list"), json.dumps(good))
    client.hset(key("hash"), "status", "SUCCESS")
    client.xadd(key("stream"), {"status": "SUCCESS"})
    names = ["good", "pickle", "pickled", "other", "cut", "deep", "list", "hash", "stream", "none"]

    assert told(opened(redis_url, redis_url), names) == {"good": Observation(Fact.SUCCEEDED)}
    assert not owned.exists()


def test_a_result_of_any_size_is_read_no_further_than_to_its_state(
    client: redis.Redis, redis_url: str
) -> None:
    for status in ("SUCCESS", "FAILURE"):
        client.set(key(status), json.dumps({"status": status, "result": "x" * HUGE}))
    client.set(key("garbage"), "x" * HUGE)
    sent = client.info("stats")["total_net_output_bytes"]

    seen = told(opened(redis_url, redis_url), ["SUCCESS", "FAILURE", "garbage"])

    assert {each: observation.fact for each, observation in seen.items()} == {
        "SUCCESS": Fact.SUCCEEDED,
        "FAILURE": Fact.FAILED,
    }
    assert client.info("stats")["total_net_output_bytes"] - sent < 1024 * 1024
    client.flushdb()


@pytest.mark.parametrize("backend", ["sqlite_url", "postgres_url", "mariadb_url"])
def test_a_pickle_in_a_database_is_never_unpickled(
    backend: str, redis_url: str, owned: Path, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(backend)
    engine = create_engine(url)
    blob = "bytea" if backend == "postgres_url" else "blob"
    trace = "Traceback\n" + "x" * 60_000 + "\nValueError: \x1b[31mno page\n"
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE TABLE celery_taskmeta "
                f"(task_id VARCHAR(155), status VARCHAR(50), result {blob}, traceback TEXT)"
            )
        )
        for status in ("SUCCESS", "FAILURE", "OWNED"):
            connection.execute(
                text("INSERT INTO celery_taskmeta VALUES (:id, :status, :result, :trace)"),
                {
                    "id": status,
                    "status": status,
                    "result": pickle.dumps(Bomb(owned)),
                    "trace": trace,
                },
            )
    engine.dispose()

    seen = told(opened(redis_url, f"db+{url}"), ["SUCCESS", "FAILURE", "OWNED"])

    assert seen == {
        "SUCCESS": Observation(Fact.SUCCEEDED),
        "FAILURE": Observation(Fact.FAILED, "ValueError: [31mno page"),
    }
    assert not owned.exists()
