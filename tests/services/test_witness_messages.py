"""The witnesses of messages, on real brokers: what the operator publishes, and nothing else."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from math import inf
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu.connection import Connection

from scannerjob.model.facts import Send
from tests.harness.witnesses.amqp_messages import AmqpMessages
from tests.harness.witnesses.application import TASKS, Application
from tests.harness.witnesses.redis_messages import RedisMessages
from tests.harness.witnesses.sql_messages import SqlMessages
from tests.support.celery_target import ACCEPTED, celery_spec, facts, make_send, opened
from tests.support.celery_target import launch as launch_all
from tests.support.celery_worker import CeleryWorker
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually

Witness = RedisMessages | AmqpMessages | SqlMessages


@pytest.fixture(params=["redis", "rabbitmq", "sql"])
def watched(request: pytest.FixtureRequest) -> Iterator[tuple[str, Witness]]:
    """A broker's URL, and what looks on."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_url")
        witness: Witness = RedisMessages(url)
    elif request.param == "rabbitmq":
        url = request.getfixturevalue("amqp_url")
        witness = AmqpMessages(request.getfixturevalue("rabbit_server"), url)
    else:
        url = f"sqla+{request.getfixturevalue('postgres_url')}"
        witness = SqlMessages(url)
    with witness:
        yield url, witness


def send(item: int, *, trial: str = "trial", **options: Any) -> Send:
    return make_send({"item": item, "trial": trial}, **options)


def publish(url: str, *sends: Send, queue: str = "celery") -> None:
    target = opened(url, spec=celery_spec(task="trial.work", queue=queue))
    assert facts(launch_all(target, sends)) == ACCEPTED


def requeue(url: str) -> None:
    """Take a message and give it back to the broker."""
    with Connection(url) as connection, closing(connection.SimpleQueue("celery")) as queue:
        queue.get(timeout=30).requeue()


def test_a_message_is_noted_with_all_that_matters_of_it(watched: tuple[str, Witness]) -> None:
    url, witness = watched
    plain, limited = send(7), send(8, expires_in=90, time_limit=5, trial='a "trial" \\ of £ ☃\n')
    before = time.time()
    publish(url, plain)
    publish(url, limited, queue="others")
    after = time.time()
    witness.wait_caught_up()
    first, second = witness.messages()
    assert (first.launch, first.row) == (plain.item.id, "[7]")
    assert (first.expires, first.time_limit) == (inf, inf)
    assert (second.launch, second.row, second.time_limit) == (limited.item.id, "[8]", 5)
    assert limited.expires_at is not None
    assert second.expires == pytest.approx(limited.expires_at.timestamp())
    assert before <= first.time <= second.time <= after + 2


def test_what_others_publish_or_give_back_is_not_the_operators(
    watched: tuple[str, Witness], tmp_path: Path, postgres_url: str
) -> None:
    url, witness = watched
    application = Application(postgres_url, "trial")
    [item] = application.insert(1, retries=2)
    sent = send(item)
    publish(url, sent)
    requeue(url)
    with Celery("other", broker=url, set_as_current=False) as other:
        other.send_task("trial.work", kwargs={"item": item, "trial": "trial"})
    (tmp_path / "tasks.py").write_text(TASKS)
    env = {"BROKER": url, "DATABASE": postgres_url}
    with CeleryWorker(tmp_path / "tasks.py", env=env):
        eventually(
            lambda: len(application.executions()) == 4, timeout=90, message="all was executed"
        )
    witness.wait_caught_up()
    assert [message.launch for message in witness.messages()] == [sent.item.id]


def test_a_row_may_have_several_key_columns(redis_url: str) -> None:
    with RedisMessages(redis_url, key=("trial", "item")) as witness:
        publish(redis_url, send(7, trial="é"))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ['["é",7]']


def test_only_the_messages_of_its_own_redis_database_are_noted(redis_server: RedisServer) -> None:
    redis_server.flush()
    with RedisMessages(redis_server.database_url(3)) as witness:
        publish(redis_server.url, send(1))
        publish(redis_server.database_url(3), send(2))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ["[2]"]


def test_redis_that_wants_a_password_is_listened_to(locked_redis: RedisServer) -> None:
    with RedisMessages(locked_redis.url) as witness:
        publish(locked_redis.url, send(1))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ["[1]"]


def test_a_redis_that_is_killed_leaves_a_gap(redis_server: RedisServer, redis_url: str) -> None:
    with RedisMessages(redis_url) as witness:
        publish(redis_url, send(1))
        witness.wait_caught_up()
        killed = time.time()
        redis_server.kill()
        redis_server.start()
        eventually(witness.gaps, timeout=90, message="it listens again")
        publish(redis_url, send(2))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ["[1]", "[2]"]
    [gap] = witness.gaps()
    assert gap.begin <= killed < gap.end


def test_a_rabbitmq_that_cuts_connections_leaves_a_gap(
    rabbit_server: RabbitServer, amqp_url: str
) -> None:
    with AmqpMessages(rabbit_server, amqp_url) as witness:
        publish(amqp_url, send(1))
        witness.wait_caught_up()
        cut = time.time()
        vhost = amqp_url.rpartition("/")[2]
        rabbit_server.control("close_all_connections", "-p", vhost, "a test")
        eventually(witness.gaps, timeout=90, message="it listens again")
        publish(amqp_url, send(2))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ["[1]", "[2]"]
    [gap] = witness.gaps()
    assert gap.begin <= cut < gap.end


def test_a_broker_in_a_database_that_is_killed_leaves_none(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    url = f"sqla+{postgres_url}"
    with SqlMessages(url) as witness:
        publish(url, send(1))
        postgres_server.kill()
        postgres_server.start()
        publish(url, send(2))
        witness.wait_caught_up()
    assert [message.row for message in witness.messages()] == ["[1]", "[2]"]
