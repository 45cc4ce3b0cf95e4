"""The last words of a task that failed: what Celery keeps of them, and how much of it is shown."""

import json
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from scannerjob.ports import TargetError
from scannerjob.targets.celery.failures import Failure
from scannerjob.targets.celery.outcomes import _decode_failure
from tests.support.celery_target import last_words

TRACE = """\
Traceback (most recent call last):
  File "tasks.py", line 7, in work
    raise ValueError("page 2 is torn")
ValueError: page 2 is torn
"""
CANARY = "canary-7f3a91"


def stored(status: str, **fields: Any) -> bytes:
    result = {"exc_type": "ValueError", "exc_message": ["page 2 is torn"], "exc_module": "builtins"}
    return json.dumps({"status": status, "result": result, "traceback": TRACE, **fields}).encode()


@pytest.mark.parametrize("state", ["FAILURE", "RETRY"])
def test_a_failure_is_its_traceback(state: str) -> None:
    failure = _decode_failure("a", stored(state, task_id="a"))

    assert failure is not None
    assert failure.state == state
    assert failure.last_words() == TRACE.splitlines()


def test_an_exception_that_its_traceback_does_not_tell_comes_last() -> None:
    failure = Failure("FAILURE", "WorkerLostError: exited with\nsignal 9", TRACE)

    assert failure.last_words()[-2:] == ["WorkerLostError: exited with", "signal 9"]
    assert Failure("FAILURE", "KeyError: 7").last_words() == ["KeyError: 7"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"garbage", b"\xff\xfe\x00", b"null", b"[]", b"[" * 100_000),
        b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x06status\x94.",
        stored("SUCCESS"),
        stored("STARTED"),
        stored("FAILURE", task_id="another"),
    ],
)
def test_whatever_else_is_stored_is_no_failure(content: bytes) -> None:
    assert _decode_failure("a", content) is None


@pytest.mark.parametrize("odd", [None, 42, ["x"], {"x": 1}])
def test_a_failure_of_another_form_is_one_all_the_same(odd: Any) -> None:
    failure = _decode_failure("a", stored("FAILURE", result=odd, traceback=odd))

    assert failure is not None
    assert all(isinstance(word, str) for word in failure.last_words())


def test_of_a_failure_that_is_too_long_the_state_is_told() -> None:
    failure = _decode_failure("a", stored("FAILURE", result="x" * 2**20)[: 2**20])

    assert failure == Failure("FAILURE")
    assert failure.last_words() == []


@pytest.mark.parametrize("trace", ["\n" * 100_000, "x\n" * 100_000, f"{'ü' * 700}\n" * 9])
def test_the_end_of_a_long_traceback_is_shown(trace: str) -> None:
    first, *words = Failure("FAILURE", "", trace + "\nthe end").last_words()

    assert (first, words[-1]) == ("...", "the end")
    assert len("\n".join(words).encode()) <= 2048


@pytest.mark.parametrize("line", ["x" * 100_000, "ü" * 100_000, "a:/" * 300_000])
def test_the_beginning_of_a_long_line_is_shown(line: str) -> None:
    (word,) = Failure("FAILURE", line).last_words()

    assert word == f"{line[:497]}..."


@pytest.mark.parametrize(
    "trace",
    [
        f"no page at postgresql://app:{CANARY}@db.example/app",
        f"{'x' * 480} postgresql://app:{CANARY}@db.example/app",
        f"Protocol Error: {CANARY.encode()!r}",
        f"\x1b[2J{CANARY}\x07",
    ],
)
def test_no_password_and_no_control_character_is_shown(trace: str) -> None:
    words = Failure("FAILURE", "", trace).last_words(f"redis://:{CANARY}@redis.example/0")

    assert len(words) == 1
    assert "canary" not in words[0]
    assert words[0].isprintable()


def test_a_database_keeps_the_traceback_and_no_more_is_read_of_it(tmp_path: Path) -> None:
    url = f"db+sqlite:///{tmp_path / 'results'}"
    assert last_words(url, "a") == []

    backend = Celery(backend=url).backend
    backend.store_result("a", ValueError("page 2 is torn"), "FAILURE", traceback=TRACE)
    backend.store_result("b", {"pages": 3}, "SUCCESS")

    assert last_words(url, "a") == ["task a: FAILURE", *TRACE.splitlines()]
    assert last_words(url, "b") == []
    assert last_words(url, "none") == []


def test_a_backend_that_is_away_is_an_error_in_a_line() -> None:
    with pytest.raises(TargetError, match=r"result backend 127\.0\.0\.1:1/0") as error:
        last_words(f"redis://:{CANARY}@127.0.0.1:1/0", "a")

    assert "\n" not in str(error.value)
    assert "canary" not in str(error.value)
