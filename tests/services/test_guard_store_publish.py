"""A guard in the same Redis as the broker: one record for each launch, whoever writes it."""

import pytest
import redis

from scannerjob.model.facts import Fact
from scannerjob.targets.celery import CeleryTarget
from scannerjob.worker.records import Execution, Record, State, Store
from scannerjob.worker.redis_store import RedisStore, record_key
from tests.support.celery_target import ACCEPTED, facts, ids_of, launch, make_sends

LEASE = 60.0


@pytest.fixture
def store(client: redis.Redis) -> RedisStore:
    return RedisStore(client)


def test_what_was_published_waits_and_may_be_claimed_once(
    target: CeleryTarget, client: redis.Redis, store: Store
) -> None:
    (send,) = make_sends(1)
    launch(target, [send])
    assert store.read([send.item.id]).records == {send.item.id: Record(State.QUEUED)}
    assert store.claim(Execution(send.item.id, 0, "first"), LEASE)
    assert not store.claim(Execution(send.item.id, 0, "second"), LEASE)
    assert client.hget(record_key(send.item.id), "sends") == "1"


def test_what_has_begun_or_ended_is_not_published_again(
    target: CeleryTarget, client: redis.Redis, store: Store
) -> None:
    sends = make_sends(4)
    running, retrying, done, failed = (Execution(each, 0, "first") for each in ids_of(sends))
    for execution in (running, retrying, done, failed):
        assert store.claim(execution, LEASE)
    store.finish(retrying, State.RETRYING)
    store.finish(done, State.DONE)
    store.finish(failed, State.FAILED)
    assert facts(launch(target, sends)) == ACCEPTED
    assert client.llen("celery") == 0


def test_what_the_guard_has_superseded_is_not_published(
    target: CeleryTarget, client: redis.Redis, store: Store
) -> None:
    sends = make_sends(2)
    store.supersede(ids_of(sends))
    assert facts(launch(target, sends)) == {Fact.SUPERSEDED}
    assert client.llen("celery") == 0
