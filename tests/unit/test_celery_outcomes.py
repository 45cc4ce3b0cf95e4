"""What a stored result says, whatever it holds."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.celery import Brokers
from scannerjob.targets.celery.outcomes import _decode
from tests.support.celery_target import celery_spec, observed


def stored(status: Any, result: Any = None, task_id: str = "a") -> bytes:
    return json.dumps({"status": status, "result": result, "task_id": task_id}).encode()


@pytest.mark.parametrize(
    ("status", "fact"),
    [
        ("SUCCESS", Fact.SUCCEEDED),
        ("STARTED", Fact.STARTED),
        ("RETRY", Fact.STARTED),
        ("REVOKED", Fact.NOT_STARTED),
    ],
)
def test_states(status: str, fact: Fact) -> None:
    assert _decode("a", stored(status)) == Observation(fact)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ({"exc_type": "ValueError", "exc_message": ["no page"]}, "ValueError: no page"),
        ({"exc_type": "ValueError", "exc_message": "no page"}, "ValueError: no page"),
        ({"exc_type": "OSError", "exc_message": [2, "none"]}, "OSError: 2, none"),
        ({"exc_type": "KeyError", "exc_message": []}, "KeyError"),
        ({"exc_type": "E", "exc_message": "one\n  two\x1b[31m\tthree"}, "E: one two [31m three"),
        ("something else", "the task failed"),
        (None, "the task failed"),
    ],
)
def test_why_a_task_failed(result: Any, reason: str) -> None:
    assert _decode("a", stored("FAILURE", result)) == Observation(Fact.FAILED, reason)


def test_a_long_reason_is_cut() -> None:
    seen = _decode("a", stored("FAILURE", {"exc_type": "E", "exc_message": "x" * 9999}))

    assert seen is not None
    assert len(seen.reason or "") == 200


@pytest.mark.parametrize(
    "content",
    [
        None,
        b"",
        b"garbage",
        b"\xff\xfe\x00",
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06status\x94.",
        b"null",
        b"42",
        b"[]",
        b'"SUCCESS"',
        b"{}",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"status": ["SUCCESS"]}',
        b'{"status": {"SUCCESS": 1}}',
        stored("PENDING"),
        stored("RECEIVED"),
        stored("PROGRESS"),
        stored("success"),
        stored("SUCCESS", task_id="another"),
    ],
)
def test_whatever_else_is_stored_tells_nothing(content: bytes | None) -> None:
    assert _decode("a", content) is None


def test_a_database_without_the_table_tells_nothing_until_a_worker_makes_it(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path / 'results'}"
    target = Brokers().open(f"sqla+sqlite:///{tmp_path / 'broker'}", f"db+{url}", celery_spec())

    async def scenario() -> None:
        assert await observed(target, ["a", "b"]) == {}
        with create_engine(url).begin() as connection:
            connection.execute(
                text("CREATE TABLE celery_taskmeta (task_id TEXT, status TEXT, traceback TEXT)")
            )
            connection.execute(text("INSERT INTO celery_taskmeta VALUES ('a', 'SUCCESS', NULL)"))
        assert await observed(target, ["a", "b"]) == {"a": Observation(Fact.SUCCEEDED)}

    asyncio.run(scenario())
