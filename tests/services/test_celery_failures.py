"""The last words of tasks, from the databases that Celery keeps them in."""

from __future__ import annotations

import pytest
from celery import Celery

from tests.support.celery_target import last_words


@pytest.mark.parametrize("database", ["postgres_url", "mariadb_url"])
def test_a_database_tells_how_a_task_failed(database: str, request: pytest.FixtureRequest) -> None:
    url = f"db+{request.getfixturevalue(database)}"
    assert last_words(url, "a") == []

    backend = Celery(backend=url).backend
    told = ["In a task:", "ValueError: page 2 is torn"]
    backend.store_result("a", ValueError("page 2 is torn"), "FAILURE", traceback="\n".join(told))

    assert last_words(url, "a") == ["task a: FAILURE", *told]
