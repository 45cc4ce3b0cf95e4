"""Sending the same launch again, and seeing to it that it is never sent."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import json
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from scannerjob.model.facts import Fact
from scannerjob.ports import TargetError
from scannerjob.targets.celery import CeleryTarget
from tests.support.celery_target import (
    ACCEPTED,
    UNCERTAIN,
    LossyProxy,
    at,
    celery_spec,
    facts,
    ids_of,
    launch,
    make_send,
    make_sends,
    opened,
    publisher,
    reasons,
    soon,
    told,
)
from tests.support.ports import free_port
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

RECORDS = timedelta(hours=23)


def test_sending_again_puts_no_second_message(target: CeleryTarget, client: redis.Redis) -> None:
    async def scenario() -> None:
        sends = make_sends(200)
        for _ in range(3):
            assert facts(await target.launch(sends, soon())) == ACCEPTED
        assert target.traits.resend_within == RECORDS

    asyncio.run(scenario())
    assert client.llen("celery") == 200


def test_sending_again_after_a_worker_took_the_message_puts_no_second_one(
    target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        sends = make_sends(5)
        await target.launch(sends, soon())
        client.delete("celery")
        assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 0


def test_a_record_outlives_the_time_in_which_a_launch_may_be_sent_again(
    target: CeleryTarget, client: redis.Redis
) -> None:
    send = make_send()
    launch(target, [send])

    (record,) = client.keys("scannerjob:launch:*")

    assert record == f"scannerjob:launch:{send.item.id}"
    assert client.hgetall(record) == {"state": "queued", "sends": "1"}
    assert int(client.ttl(record)) > RECORDS.total_seconds() + 3000


def test_a_lost_reply_is_uncertain_and_sending_again_is_harmless(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    sends = make_sends(20)
    with LossyProxy(redis_server.port, b"EVALSHA") as place:
        seen = launch(opened(at(redis_url, place)), sends, seconds=3)

    assert facts(seen) == UNCERTAIN
    assert place in reasons(seen)
    eventually(lambda: client.llen("celery") == 20, message="the messages have arrived")
    assert facts(launch(opened(redis_url), sends)) == ACCEPTED
    assert client.llen("celery") == 20


def test_a_publisher_killed_in_the_middle_is_made_good_by_sending_again(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    sends = make_sends(600)
    with publisher(tmp_path, redis_url, sends, size=30_000) as process:
        eventually(lambda: client.llen("celery"), interval=0.001, message="a first message")
        process.kill()
        put = client.llen("celery")
    assert 0 < int(put) < 600, "killed too late to be in the middle"

    assert facts(launch(opened(redis_url), sends)) == ACCEPTED

    assert client.llen("celery") == 600
    messages = [json.loads(each) for each in client.lrange("celery", 0, -1)]
    assert {message["headers"]["id"] for message in messages} == set(ids_of(sends))


# Superseding


def test_what_was_superseded_is_never_sent(target: CeleryTarget, client: redis.Redis) -> None:
    sent, unsent = make_sends(2), make_sends(2)

    async def scenario() -> None:
        await target.launch(sent, soon())
        for _ in range(2):
            seen = await target.supersede(ids_of([*sent, *unsent]))
            assert {seen[each].fact for each in ids_of(sent)} == ACCEPTED
            assert {seen[each].fact for each in ids_of(unsent)} == {Fact.SUPERSEDED}
        late = await target.launch(unsent, soon())
        assert facts(late) == {Fact.SUPERSEDED}
        assert reasons(late) == "superseded"

    asyncio.run(scenario())
    assert client.llen("celery") == 2


def test_nothing_can_be_superseded_where_no_records_are_kept(tmp_path: Path) -> None:
    target = opened(f"sqla+sqlite:///{tmp_path / 'broker'}")

    assert asyncio.run(target.supersede(["a"])) == {}
    assert asyncio.run(opened(at("", "127.0.0.1:1")).supersede([])) == {}


def test_superseding_on_a_broker_that_is_down_is_an_error() -> None:
    place = f"127.0.0.1:{free_port()}"

    with pytest.raises(TargetError, match=place):
        asyncio.run(opened(at("", place)).supersede(["a"]))


# What is known of the broker


def test_a_process_that_starts_anew_learns_what_can_be_repeated_from_its_first_look(
    target: CeleryTarget,
) -> None:
    assert target.traits.resend_within is None

    assert told(target, ["a"]) == {}

    assert target.traits.resend_within == RECORDS


def test_a_check_tells_whether_the_broker_answers(target: CeleryTarget) -> None:
    asyncio.run(target.check())
    assert target.traits.resend_within == RECORDS

    gone = opened(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(TargetError, match="broker 127") as failed:
        asyncio.run(gone.check())
    assert failed.value.reason == "BrokerUnreachable"


def test_a_redis_that_evicts_keeps_no_promise() -> None:
    with RedisServer(maxmemory="50mb", maxmemory_policy="allkeys-lru") as server:
        target = opened(server.url)
        assert facts(launch(target, make_sends(3))) == ACCEPTED
        assert target.traits.resend_within is None
        assert asyncio.run(target.supersede(["a"])) == {}
        repeated = opened(server.url, spec=celery_spec(onUncertainPublish="Republish"))
        assert repeated.traits.resend_within is None
        assert repeated.traits.republish


def test_a_redis_that_does_not_let_us_know_keeps_no_promise(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    client.execute_command("ACL SETUSER app on >pw ~* &* +@all -info -config")
    target = opened(f"redis://app:pw@127.0.0.1:{redis_server.port}/0")

    assert facts(launch(target, make_sends(3))) == ACCEPTED

    assert target.traits.resend_within is None
    client.execute_command("ACL DELUSER app")
