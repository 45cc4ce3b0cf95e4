"""The Celery target on real brokers and result backends, with real workers."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from scannerjob.model.facts import Backlog, Fact, Observation
from scannerjob.ports import TargetError
from scannerjob.targets.celery import CeleryTarget
from scannerjob.worker.records import HEADER
from tests.support.celery_target import (
    ACCEPTED,
    NOT_SENT,
    BlackHole,
    Worker,
    at,
    background_done,
    celery_spec,
    facts,
    ids_of,
    launch,
    make_send,
    make_sends,
    observed,
    opened,
    reasons,
    soon,
    told,
)
from tests.support.ports import free_port
from tests.support.waiting import eventually


@pytest.fixture(params=["redis", "rabbitmq", "sqlite", "postgres", "mariadb"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "redis":
            return str(request.getfixturevalue("redis_url"))
        case "rabbitmq":
            return str(request.getfixturevalue("amqp_url"))
        case "sqlite":
            return f"sqla+sqlite:///{tmp_path / 'broker.sqlite'}"
        case _:
            return f"sqla+{request.getfixturevalue(request.param + '_url')}"


def test_each_send_runs_once_with_its_row_as_keyword_arguments(
    broker_url: str, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"pdf_id": 1, "title": "Ünïcode ✓", "size": 1.5, "tags": ["a", {"b": None}], "ok": True},
        {"pdf_id": 2, "title": "quotes ' \" \\ %s {x} :noon"},
        *({"pdf_id": number} for number in range(3, 21)),
    ]
    sends = [make_send(row, expires_in=3600, time_limit=120) for row in rows]

    assert facts(launch(opened(broker_url), sends)) == ACCEPTED

    with Worker(tmp_path, broker_url) as worker:
        eventually(lambda: len(worker.ran()) >= len(sends), message="all tasks have run")
        ran = {each["id"]: each for each in worker.ran()}
    assert len(ran) == len(sends)
    for send in sends:
        assert ran[send.item.id]["kwargs"] == send.row.values
        assert ran[send.item.id]["limit"][0] == 120


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "pdf"},
        {"priority": 0},
        {"priority": 4},
        {"priority": 9},
        {"headers": {"tenant": "acme"}},
        {"queue": "pdf", "exchange": "docs", "routing_key": "pdf.new"},
    ],
)
@pytest.mark.parametrize("expires_in", [None, 3600])
def test_messages_are_what_a_celery_producer_writes(
    redis_url: str, client: redis.Redis, options: dict[str, Any], expires_in: float | None
) -> None:
    with Connection(redis_url) as connection:
        Queue("bound", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
    send = make_send({"pdf_id": 7, "title": "x"}, expires_in=expires_in, time_limit=5)
    app = Celery(broker=redis_url, set_as_current=False)
    with Connection(redis_url) as connection:
        app.send_task(
            "docs.tasks.record",
            kwargs=dict(send.row.values),
            task_id=send.item.id,
            expires=send.expires_at,
            time_limit=5,
            connection=connection,
            **{**options, "headers": {**options.get("headers", {}), HEADER: send.item.id}},
        )
    expected, names = drain(client), set(client.keys("_kombu*"))
    spec = {"routingKey" if k == "routing_key" else k: v for k, v in options.items()}

    assert facts(launch(opened(redis_url, spec=celery_spec(**spec)), [send])) == ACCEPTED

    assert drain(client) == expected
    assert len(expected) == 1
    assert set(client.keys("_kombu*")) == names


def test_a_long_row_is_sent_whole_and_shown_in_part(redis_url: str, client: redis.Redis) -> None:
    send = make_send({"text": "long " * 10_000})

    assert facts(launch(opened(redis_url), [send])) == ACCEPTED

    (message,) = drain(client).values()
    assert message["body"][1] == send.row.values
    assert message["headers"]["kwargsrepr"].startswith("{'text': 'long long ")
    assert len(message["headers"]["kwargsrepr"]) == 1024


def drain(client: redis.Redis) -> dict[str, Any]:
    """All messages by queue, without what differs from message to message; removes them."""
    found = {}
    for key in client.keys("*"):
        if client.type(key) == "list":
            (message,) = (json.loads(each) for each in client.lrange(key, 0, -1))
            message["body"] = json.loads(base64.b64decode(message["body"]))
            for changing in ("delivery_tag", "reply_to", "expiration"):
                message["properties"].pop(changing, None)
            found[str(key)] = message
            client.delete(key)
    return found


def test_an_exchange_that_leads_nowhere_is_named_until_a_worker_declares_it(
    redis_url: str, client: redis.Redis
) -> None:
    target = opened(redis_url, spec=celery_spec(exchange="docs", routingKey="pdf.new"))

    async def scenario() -> None:
        sends = make_sends(2)
        seen = await target.launch(sends, soon())
        assert facts(seen) == NOT_SENT
        assert "exchange 'docs' with routing key 'pdf.new' leads to 0 queues" in reasons(seen)

        with Connection(redis_url) as connection:
            Queue("one", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
        assert facts(await target.launch(sends, soon())) == ACCEPTED
        assert client.llen("one") == 2

        with Connection(redis_url) as connection:
            Queue("two", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
        seen = await target.launch(make_sends(2), soon())
        assert facts(seen) == NOT_SENT
        assert "leads to 2 queues" in reasons(seen)

    asyncio.run(scenario())


def test_a_task_that_no_worker_knows_is_accepted_and_stays_unknown(
    redis_url: str, tmp_path: Path
) -> None:
    target = opened(redis_url, redis_url, celery_spec(task="docs.tasks.no_such"))
    known = opened(redis_url, redis_url)
    unknown, after = make_sends(2), make_sends(1)

    with Worker(tmp_path, redis_url, redis_url) as worker:
        assert facts(launch(target, unknown)) == ACCEPTED
        launch(known, after)
        eventually(worker.ran, message="the worker goes on with what it knows")
        seen = told(target, ids_of(unknown))

    assert facts(seen) <= {Fact.FAILED}
    assert [each["id"] for each in worker.ran()] == ids_of(after)


# Outcomes


@pytest.mark.parametrize("backend", ["redis", "sqlite", "postgres", "mariadb"])
def test_outcomes_come_from_the_result_backend(
    backend: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "redis":
        results = redis_url
    elif backend == "sqlite":
        results = f"db+sqlite:///{tmp_path / 'results'}"
    else:
        results = f"db+{request.getfixturevalue(backend + '_url')}"
    target = opened(redis_url, results)
    good, bad = make_sends(3), make_send({"fail": "no page 7\nin this file"})
    expired, unsent = make_send({"pdf_id": 9}, expires_in=-5), make_send()

    async def scenario() -> None:
        assert await observed(target, ids_of([*good, bad, unsent])) == {}
        await target.launch([*good, bad, expired], soon())
        with Worker(tmp_path, redis_url, results) as worker:
            seen: dict[str, Observation] = {}
            while len(seen) < 5:
                await asyncio.sleep(0.05)
                seen = await observed(target, ids_of([*good, bad, expired, unsent]))
            ran = worker.ran()

        assert {seen[each].fact for each in ids_of(good)} == {Fact.SUCCEEDED}
        assert seen[bad.item.id].fact is Fact.FAILED
        reason = seen[bad.item.id].reason or ""
        assert reason.endswith("in this file")
        assert "\n" not in reason
        assert seen[expired.item.id].fact is Fact.NOT_STARTED
        assert expired.item.id not in {each["id"] for each in ran}

    asyncio.run(asyncio.wait_for(scenario(), 90))


def test_one_result_that_is_garbage_hides_no_other(redis_url: str, client: redis.Redis) -> None:
    target = opened(redis_url, redis_url)
    client.set("celery-task-meta-good", json.dumps({"status": "SUCCESS", "task_id": "good"}))
    client.set("celery-task-meta-bad", "\x00 garbage")
    client.set("celery-task-meta-forged", json.dumps({"status": "SUCCESS", "task_id": "good"}))
    client.hset("celery-task-meta-hash", "status", "SUCCESS")

    seen = told(target, ["good", "bad", "forged", "hash", "none"])

    assert seen == {"good": Observation(Fact.SUCCEEDED)}


def test_a_thousand_outcomes_are_asked_for_at_once(redis_url: str, client: redis.Redis) -> None:
    target = opened(redis_url, redis_url)
    ids = [f"task-{number}" for number in range(1000)]
    client.mset({f"celery-task-meta-{each}": json.dumps({"status": "SUCCESS"}) for each in ids})
    told(target, ids)
    eventually(client.pubsub_numpat, message="events are listened to, which takes commands, too")
    before = client.info("stats")["total_reads_processed"]

    assert len(told(target, ids)) == 1000

    # Redis reads 16 KiB of questions at a time, where they do not wait for answers.
    assert client.info("stats")["total_reads_processed"] - before <= 30


def test_a_result_backend_that_cannot_be_asked_is_an_error(redis_url: str) -> None:
    place = f"127.0.0.1:{free_port()}"
    for results in (f"redis://:c4n4ry@{place}/0", f"db+postgresql://app:c4n4ry@{place}/app"):
        with pytest.raises(TargetError, match=place) as caught:
            told(opened(redis_url, results), ["a"])
        assert caught.value.reason == "ResultBackendUnreachable"
        assert "c4n4ry" not in str(caught.value)


def test_without_a_result_backend_nothing_is_known_and_a_dead_broker_is_no_error() -> None:
    target = opened(at("", f"127.0.0.1:{free_port()}"))

    assert told(target, ["a"]) == {}
    assert told(target, []) == {}


def test_an_expired_message_is_not_run(redis_url: str, tmp_path: Path) -> None:
    launch(opened(redis_url), [make_send({"pdf_id": 1}, expires_in=-1)])
    after = make_send({"pdf_id": 2}, expires_in=3600)
    launch(opened(redis_url), [after])

    with Worker(tmp_path, redis_url) as worker:
        eventually(worker.ran, message="the worker runs what has not expired")
        assert [each["id"] for each in worker.ran()] == [after.item.id]


# The queue


def backlog_of(target: CeleryTarget, ids: Sequence[str]) -> Backlog | None:
    """What is known of the queue once it was looked at: not yet when that begins."""

    async def scenario() -> Backlog | None:
        assert (await target.observe(ids)).backlog is None
        await background_done()
        return (await target.observe(ids)).backlog

    return asyncio.run(scenario())


@pytest.mark.parametrize("priority", [None, 3, 9])
def test_what_waits_in_a_queue_is_counted(
    broker_url: str, tmp_path: Path, priority: int | None
) -> None:
    target = opened(broker_url, spec=celery_spec(queue="pdf", priority=priority))
    sends = make_sends(3)
    launch(target, sends)

    backlog = backlog_of(target, ids_of(sends))

    assert backlog is not None
    assert (backlog.queue, backlog.waiting) == ("pdf", 3)
    assert backlog.consumers == (0 if broker_url.startswith("amqp") else None)


def test_workers_are_seen_where_the_broker_knows_them(amqp_url: str, tmp_path: Path) -> None:
    target, sends = opened(amqp_url), [make_send({"sleep": 600})]
    launch(target, sends)
    with Worker(tmp_path, amqp_url) as worker:
        eventually(worker.ran, message="a worker is at work")
        backlog = backlog_of(target, ids_of(sends))

    assert backlog is not None
    assert (backlog.waiting, backlog.consumers) == (0, 1)


def test_a_queue_that_is_not_there_or_not_named_is_not_looked_at(amqp_url: str) -> None:
    by_exchange = celery_spec(exchange="docs", routingKey="new")

    for target in (opened(amqp_url), opened(amqp_url, spec=by_exchange)):
        assert backlog_of(target, ["a"]) is None


def test_a_broker_that_hangs_keeps_results_from_nobody(redis_url: str, client: redis.Redis) -> None:
    client.set("celery-task-meta-a", json.dumps({"status": "SUCCESS", "task_id": "a"}))
    with BlackHole() as place:
        seen = asyncio.run(opened(f"amqp://{place}/app", redis_url).observe(["a"]))

    assert seen.observations == {"a": Observation(Fact.SUCCEEDED)}
    assert seen.backlog is None
