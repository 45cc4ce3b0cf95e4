"""Which URLs and specs a Celery target is opened for, and what is said of the others."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from scannerjob.model.spec import NO_TIME
from scannerjob.ports import ConfigurationError
from scannerjob.targets.celery import Brokers
from tests.support.celery_target import celery_spec

CANARY = "c4n4ry"
REDIS = "redis://localhost/0"
SECRET = {"urlSecretRef": {"name": "any", "key": "url"}}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"amqp://app:{CANARY}@localhost//?heartbeat=5", "has options"),
        (f"amqp://app:{CANARY}#@localhost//", "cannot be read"),
        (f"amqps://app:{CANARY}@localhost//?ssl_ca_certs=/ca", "has options"),
        (f"rediss://:{CANARY}@localhost/0?ssl=1", "has options beside ssl_ca_certs"),
        (f"rediss://:{CANARY}@localhost/0?ssl_cert_reqs=maybe", "ssl_cert_reqs"),
        (f"rediss://:{CANARY}@localhost/0?ssl_ca_certs=/none/{CANARY}", "No such file"),
        (f"rediss://:{CANARY}@localhost/0?ssl_keyfile=/none/{CANARY}", "a key, and no certificate"),
        (f"sqs://{CANARY}:{CANARY}@", "must begin with redis://"),
        (f"{CANARY}", "must begin with"),
        ("", "must begin with"),
        (f"redis://:{CANARY}@localhost:{CANARY}/0", "cannot be read"),
        (f"redis://:{CANARY}@#@localhost/0", "cannot be read"),
        (f"redis://:{CANARY}/part2@h/0", "cannot be read"),
        (f"redis://:6379/{CANARY}@h/0", "cannot be read"),
        (f"redis://:63#79{CANARY}@redis.example", "cannot be read"),
        (f"redis://:{CANARY}@localhost/{CANARY}", "number of a database"),
        (f"redis://:{CANARY}@localhost/0?ssl=1", "has options"),
        (f"redis://:{CANARY}@a/0;redis://:{CANARY}@b/0", "cannot be read"),
        (f"redis://a/0;{CANARY}", "has alternatives"),
        (f"sqla+oracle://app:{CANARY}@localhost/app", "must begin with postgresql://"),
        ("sqla+sqlite://", "names no database"),
    ],
)
def test_a_broker_url_that_cannot_be_used(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Brokers().open(url, None, celery_spec())

    assert str(caught.value).startswith("spec.celery.broker: ")
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"rediss://:{CANARY}@localhost/x", "number of a database"),
        (f"amqps://app:{CANARY}@localhost//", "reach their caller only"),
        (f"amqp://app:{CANARY}@localhost//", "reach their caller only"),
        (f"rpc://{CANARY}", "must begin with"),
        (f"db+oracle://app:{CANARY}@localhost/app", "must begin with"),
        (f"redis://:{CANARY}@localhost/x", "number of a database"),
        ("", "cannot be read"),
    ],
)
def test_a_result_backend_url_that_cannot_be_used(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Brokers().open(REDIS, url, celery_spec())

    assert str(caught.value).startswith("spec.celery.resultBackend: ")
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("celery", "expected"),
    [
        ({"exchange": "docs"}, "spec.celery: set exchange and routingKey together"),
        ({"routingKey": "docs"}, "spec.celery: set exchange and routingKey together"),
        ({"headers": {"id": "other"}}, "spec.celery.headers.id: Celery sets this header itself"),
    ],
)
def test_what_would_be_ignored_is_refused(celery: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Brokers().open(REDIS, None, celery_spec(**celery))

    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("celery", "field"),
    [
        ({"headers": {"CC": "elsewhere"}}, "spec.celery.headers.CC"),
        ({"headers": {"é" * 130: "x"}}, "spec.celery.headers"),
        ({"headers": {str(n): "🐘" * 1000 for n in range(20)}}, "spec.celery.headers"),
        ({"queue": "é" * 130}, "spec.celery.queue"),
        ({"exchange": "docs", "routingKey": "é" * 130}, "spec.celery.routingKey"),
    ],
)
def test_names_for_which_a_broker_has_no_room_or_its_own_meaning(
    celery: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Brokers().open("amqp://broker/app", None, celery_spec(**celery))

    assert caught.value.reason == "InvalidSpec"
    assert str(caught.value).startswith(field)


def test_sqlite_is_refused_where_files_are_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Brokers(local_files=False).open(f"sqla+sqlite:///{tmp_path}/b", None, celery_spec())


def test_endpoints_tell_servers_apart_but_not_passwords() -> None:
    brokers, spec = Brokers(), celery_spec()

    one = brokers.open("redis://:one@redis/0", "redis://:one@redis/1", spec).endpoints
    two = brokers.open("redis://:two@redis/0", "db+postgresql://app:two@db/app", spec).endpoints

    assert one.keys() == {"broker", "resultBackend"}
    assert one["broker"] == two["broker"]
    assert one["broker"] != one["resultBackend"] != two["resultBackend"]
    assert brokers.open(REDIS, None, spec).endpoints.keys() == {"broker"}


def test_before_the_first_contact_nothing_is_repeated_unless_the_author_wants_it() -> None:
    brokers = Brokers()

    held = brokers.open(REDIS, None, celery_spec())
    repeated = brokers.open(REDIS, None, celery_spec(onUncertainPublish="Republish"))

    for target in (held, repeated):
        assert target.traits.resend_within is None
    assert not held.traits.republish
    assert repeated.traits.republish


def test_a_launch_may_live_longer_on_a_broker_in_a_database() -> None:
    brokers, spec = Brokers(), celery_spec(deadline="10m")

    assert brokers.open(REDIS, None, spec).traits.life_margin == NO_TIME
    in_database = brokers.open("sqla+postgresql://app@localhost/app", None, spec)
    assert in_database.traits.life_margin == timedelta(minutes=10)


def test_outcomes_are_told_by_a_result_backend_alone() -> None:
    brokers, spec = Brokers(), celery_spec()

    assert not brokers.open(REDIS, None, spec).traits.tells_outcomes
    assert brokers.open(REDIS, "redis://localhost/1", spec).traits.tells_outcomes
