"""What a spec must be, and what is said of one that is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from scannerjob.model.spec import SpecError, parse_duration, parse_spec
from tests.unit.cases import bounded, document, spec


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("30s", 30),
        ("1h30m", 5400),
        ("1m1s1ms", 61.001),
        ("0s", 0),
        ("99999h", 359_996_400),
    ],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["30", "-1s", "", "1.5s", "s", "1d", "30 s", "30s\n", "123456s", "1h1h1h1h1h", 30, None]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(ValueError, match="with a unit, such as 500ms, 30s or 1h30m"):
        parse_duration(text)


def test_what_is_left_out_has_its_default() -> None:
    parsed = parse_spec({k: v for k, v in document().items() if k != "concurrency"})

    assert (parsed.interval, parsed.concurrency) == (timedelta(seconds=30), 10)
    assert (parsed.retry.attempts, parsed.cooldown, parsed.key) == (3, timedelta(0), None)
    assert parsed.celery is not None
    assert (parsed.celery.queue, parsed.celery.on_uncertain_publish) == ("celery", "Hold")


def test_a_lifetime_is_expires_and_deadline_together() -> None:
    assert bounded().lifetime == timedelta(seconds=120)
    assert spec().lifetime is None


def problems(**fields: Any) -> str:
    with pytest.raises(SpecError) as error:
        spec(**fields)
    return str(error.value)


def celery(**fields: Any) -> dict[str, Any]:
    return {**document()["celery"], **fields}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"intervall": "30s"}, "spec.intervall: unknown field; did you mean interval?"),
        ({"celery": celery(tsk="a")}, "spec.celery.tsk: unknown field; did you mean task?"),
        ({"database": {}}, "spec.database.urlSecretRef: required, but missing"),
        ({"zzz": 1}, "spec.zzz: unknown field; expected one of suspend, database, query"),
        ({"interval": "30"}, "spec.interval: must be a duration with a unit"),
        ({"interval": "-1s"}, "spec.interval: must be a duration with a unit"),
        ({"interval": "499ms"}, "interval: must be at least 500ms"),
        ({"queryTimeout": "0s"}, "spec.queryTimeout: must be at least 1ms"),
        ({"concurrency": "10"}, "spec.concurrency: must be a whole number"),
        ({"concurrency": True}, "spec.concurrency: must be a whole number"),
        ({"concurrency": 1.5}, "spec.concurrency: must be a whole number"),
        ({"concurrency": -1}, "spec.concurrency: must be at least 0"),
        ({"concurrency": 1001}, "spec.concurrency: must be at most 1000"),
        ({"suspend": "yes"}, "spec.suspend: must be true or false"),
        ({"key": []}, "spec.key: must be a list that is not empty"),
        ({"key": "id"}, "spec.key: must be a list"),
        ({"query": ""}, "spec.query: must be a text that is not empty"),
        ({"query": 1}, "spec.query: must be a text; quote it if it looks like a number"),
        (
            {"database": {"urlSecretRef": {"name": "App_DB", "key": "a/b"}}},
            "spec.database.urlSecretRef.name: must be lower case letters, digits, - and ., as in",
        ),
        (
            {"database": {"urlSecretRef": {"name": "app-db", "key": "a/b"}}},
            "spec.database.urlSecretRef.key: must be letters, digits, -, _ and ., as in database",
        ),
        (
            {"celery": celery(onUncertainPublish="Drop")},
            "spec.celery.onUncertainPublish: must be 'Hold' or 'Republish'",
        ),
        ({"job": {"template": {}}}, "exactly one of celery or job must be set"),
        ({"celery": None}, "exactly one of celery or job must be set"),
        ({"deadline": "1m"}, "celery.expires and deadline must be set together, or neither"),
        ({"celery": celery(expires="1m")}, "must be set together, or neither"),
        ({"deadline": "0s", "celery": celery(expires="1m")}, "deadline: must be at least 1s"),
        ({"retry": {"attempts": 0}}, "spec.retry.attempts: "),
    ],
)
def test_a_mistake_is_named_with_its_field(fields: dict[str, Any], said: str) -> None:
    assert said in problems(**fields)


def test_every_bad_field_is_named() -> None:
    said = problems(interval="30", concurrency=-1)

    assert "spec.interval" in said
    assert "spec.concurrency" in said


def test_a_guard_lifts_the_rule_that_expires_and_deadline_go_together() -> None:
    guard = {"urlSecretRef": {"name": "app", "key": "guard"}}

    assert spec(celery=celery(guard=guard, expires="1m")).lifetime is None
