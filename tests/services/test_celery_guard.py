"""What the operator learns from workers' guards, and what it does to their records."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import replace
from threading import Event

import pytest
import redis

from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Observation, Send
from scannerjob.model.ledger import Phase
from scannerjob.ports import TargetError
from scannerjob.targets.celery import Brokers, CeleryTarget
from scannerjob.targets.celery import target as target_module
from scannerjob.targets.celery.guard import Guard
from scannerjob.targets.celery.redis_broker import RedisBroker
from scannerjob.worker.records import Execution, State, Store
from scannerjob.worker.stores import open_store
from tests.support.celery_target import (
    ACCEPTED,
    NOT_SENT,
    BlackHole,
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
from tests.support.rabbitmq import RabbitServer

KINDS = ["redis_url", "postgres_url", "mariadb_url"]


@pytest.fixture(params=KINDS)
def guard_url(request: pytest.FixtureRequest) -> str:
    """A store of its own, apart from the broker's database."""
    url = str(request.getfixturevalue(request.param))
    return url.removesuffix("/0") + "/7" if url.startswith("redis") else url


@pytest.fixture
def worker(guard_url: str) -> Iterator[Store]:
    """The store as workers use it."""
    store = open_store(guard_url)
    yield store
    store.close()


@pytest.fixture
def guarded(redis_url: str, guard_url: str) -> CeleryTarget:
    return opened(redis_url, guard=guard_url)


@pytest.fixture
def shared(redis_url: str) -> CeleryTarget:
    """One whose guard keeps its records where the broker is."""
    return opened(redis_url, guard=redis_url)


def execution(send: Send, retries: int = 0) -> Execution:
    return Execution(send.item.id, retries, f"owner-{retries}")


def launched(send: Send) -> Send:
    """The same launch, once more, after the ledger knew it to be launched."""
    return replace(send, item=replace(send.item, phase=Phase.LAUNCHED, sends=2))


def test_a_launch_is_known_to_the_guard_before_a_worker_can_begin_it(
    guarded: CeleryTarget, worker: Store, client: redis.Redis
) -> None:
    sends = make_sends(3)

    assert facts(launch(guarded, sends)) == ACCEPTED

    assert {each.state for each in worker.read(ids_of(sends)).records.values()} == {State.QUEUED}
    assert client.llen("celery") == 3


def test_what_a_worker_does_with_a_launch_is_seen(guarded: CeleryTarget, worker: Store) -> None:
    waits, runs, retries, done, failed = sends = make_sends(5)
    launch(guarded, sends)
    for send in (runs, retries, done, failed):
        assert worker.claim(execution(send), 600)
    worker.finish(execution(retries), State.RETRYING, delay=60)
    worker.finish(execution(done), State.DONE)
    worker.finish(execution(failed), State.FAILED, "ValueError: no\npage at http://me:secret@host")

    seen = told(guarded, ids_of(sends))

    assert {each: known.fact for each, known in seen.items()} == {
        runs.item.id: Fact.RUNNING,
        retries.item.id: Fact.STARTED,
        done.item.id: Fact.SUCCEEDED,
        failed.item.id: Fact.FAILED,
    }
    assert seen[failed.item.id].reason == "ValueError: no page at http://***@host"
    # That it is registered does not say that it was sent.
    assert waits.item.id not in seen


def test_what_was_put_with_its_record_is_known_to_be_sent(shared: CeleryTarget) -> None:
    send = make_send()
    launch(shared, [send])

    assert facts(told(shared, ids_of([send]))) == ACCEPTED


def test_where_a_record_proves_that_there_is_a_message_none_is_written_before_it(
    shared: CeleryTarget, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a process that has launched nothing yet dies between the two."""

    def die(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(RedisBroker, "publish", die)
    send = make_send()

    assert facts(launch(shared, [send])) == {Fact.NOT_SENT}

    store = open_store(redis_url)
    assert not store.read(ids_of([send])).records
    store.close()


def test_what_is_given_up_never_begins_and_is_not_sent(
    guarded: CeleryTarget, worker: Store, client: redis.Redis
) -> None:
    sends = make_sends(2)
    launch(guarded, sends[:1])

    given_up = asyncio.run(guarded.supersede(ids_of(sends)))

    assert facts(given_up) == {Fact.SUPERSEDED}
    assert not worker.claim(execution(sends[0]), 600)
    assert facts(launch(guarded, sends[1:])) == {Fact.SUPERSEDED}
    assert client.llen("celery") == 1


def test_what_runs_is_not_given_up_and_what_ended_is_told(
    guarded: CeleryTarget, worker: Store
) -> None:
    runs, silent, done = sends = make_sends(3)
    launch(guarded, sends)
    worker.claim(execution(runs), 600)
    worker.claim(execution(silent), 0)
    worker.claim(execution(done), 600)
    worker.finish(execution(done), State.DONE)

    given_up = asyncio.run(guarded.supersede(ids_of(sends)))

    assert {each: known.fact for each, known in given_up.items()} == {
        runs.item.id: Fact.RUNNING,
        silent.item.id: Fact.LAPSED,
        done.item.id: Fact.SUCCEEDED,
    }
    assert not worker.finish(execution(silent), State.DONE)


def test_what_a_worker_has_begun_is_not_sent_once_more(
    guarded: CeleryTarget, shared: CeleryTarget, worker: Store, client: redis.Redis
) -> None:
    send = make_send()
    launch(guarded, [send])
    worker.claim(execution(send), 600)

    assert facts(launch(guarded, [launched(send)])) == ACCEPTED
    assert client.llen("celery") == 1


def test_what_nobody_has_begun_is_put_once_more_if_it_was_known_to_be_launched(
    shared: CeleryTarget, redis_url: str, client: redis.Redis
) -> None:
    send, store = make_send(), open_store(redis_url)
    launch(shared, [send])
    launch(shared, [send])
    assert client.llen("celery") == 1

    launch(shared, [launched(send)])
    assert client.llen("celery") == 2

    store.claim(execution(send), 600)
    launch(shared, [launched(send)])
    store.close()
    assert client.llen("celery") == 2


Look = Callable[[CeleryTarget, Send], Awaitable[set[Fact]]]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """What a target knows of a launch, 10 seconds after the last look."""
    passed = 0.0
    monkeypatch.setattr(target_module, "boottime", lambda: boottime() + passed)

    async def look(target: CeleryTarget, send: Send) -> set[Fact]:
        nonlocal passed
        passed += 10
        found = facts(await observed(target, ids_of([send])))
        await background_done()
        return found

    return look


@pytest.fixture
def lost(shared: CeleryTarget, client: redis.Redis) -> Send:
    """A launch whose message is gone, as that of a worker which was killed before it began it."""
    send = make_send()
    launch(shared, [send])
    assert client.rpop("celery")
    return send


def test_a_launch_whose_message_is_nowhere_is_forgotten_after_a_while(
    shared: CeleryTarget, redis_url: str, lost: Send, look: Look
) -> None:
    announce(redis_url)

    async def scenario() -> None:
        assert [await look(shared, lost) for _ in range(3)] == [ACCEPTED] * 3
        assert {Fact.FORGOTTEN} in [await look(shared, lost) for _ in range(5)]
        # It may be one of those that wait.
        await shared.launch([make_send()], soon())
        await look(shared, lost)
        assert await look(shared, lost) == ACCEPTED

    asyncio.run(scenario())


def test_an_operator_that_begins_anew_need_not_have_seen_a_guard_at_work(
    redis_url: str, lost: Send, look: Look
) -> None:
    announce(redis_url)

    async def scenario() -> None:
        another = opened(redis_url, guard=redis_url)
        assert {Fact.FORGOTTEN} in [await look(another, lost) for _ in range(8)]

    asyncio.run(scenario())


def test_a_launch_whose_message_is_nowhere_may_be_run_by_a_worker_without_the_guard(
    shared: CeleryTarget,
    redis_url: str,
    lost: Send,
    look: Look,
    caplog: pytest.LogCaptureFixture,
) -> None:
    announce(redis_url, "docs.tasks.another")

    async def scenario() -> None:
        assert [await look(shared, lost) for _ in range(10)] == [ACCEPTED] * 10
        announce(redis_url)
        assert await look(shared, lost) == {Fact.FORGOTTEN}

    asyncio.run(scenario())
    assert caplog.text.count("that it guards the task docs.tasks.record") == 1


def test_what_was_nowhere_before_the_guard_could_not_be_asked_may_run_by_now(
    shared: CeleryTarget,
    redis_url: str,
    lost: Send,
    look: Look,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    announce(redis_url)

    async def fails(*_: object) -> Mapping[str, Observation]:
        raise TargetError("GuardUnreachable", "away")

    async def scenario() -> None:
        assert [await look(shared, lost) for _ in range(3)] == [ACCEPTED] * 3
        with monkeypatch.context() as outage:
            outage.setattr(Guard, "read", fails)
            with pytest.raises(TargetError, match="away"):
                await look(shared, lost)
        assert [await look(shared, lost) for _ in range(3)] == [ACCEPTED] * 3

    asyncio.run(scenario())


def test_giving_up_what_no_worker_with_a_guard_may_begin_is_warned_of(
    guarded: CeleryTarget, worker: Store, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = make_sends(2)
    for send in (first, second):
        launch(guarded, [send])
        asyncio.run(guarded.supersede(ids_of([send])))
    assert caplog.text.count("is scannerjob.worker.install called in its app?") == 1


def announce(store_url: str, task: str = "docs.tasks.record") -> None:
    """As a worker that guards this task."""
    store = open_store(store_url)
    store.announce([task], 600)
    store.close()


def test_a_store_that_lost_a_record_is_not_believed_at_once(
    shared: CeleryTarget, client: redis.Redis
) -> None:
    send = make_send()
    launch(shared, [send])
    client.flushdb()

    assert told(shared, ids_of([send])) == {}


def test_the_end_of_a_launch_wakes_whoever_waits_for_it(
    redis_url: str, guard_url: str, worker: Store
) -> None:
    woken, sends = Event(), make_sends(20)
    brokers = Brokers()
    target = brokers.open(redis_url, None, celery_spec(), woken.set, guard_url=guard_url)

    async def scenario() -> None:
        await target.launch(sends, soon())
        for send in sends:
            # The first ones may end before the connection is there.
            worker.claim(execution(send), 600)
            await target.observe(ids_of(sends))
            woken.clear()
            worker.finish(execution(send), State.DONE)
            if await asyncio.to_thread(woken.wait, 3):
                break
        sightings = await target.observe(ids_of(sends))
        assert sightings.hinted
        assert sightings.observations[send.item.id].fact is Fact.SUCCEEDED
        await background_done()

    asyncio.run(scenario())
    brokers.close()


def test_a_guard_that_cannot_be_asked_launches_nothing_and_tells_nothing(
    redis_url: str, client: redis.Redis
) -> None:
    with BlackHole() as place:
        target = opened(redis_url, guard=at(redis_url, place))
        sends = make_sends(2)

        outcomes = launch(target, sends)

        assert facts(outcomes) == NOT_SENT
        assert reasons(outcomes) == f"guard {place}/0: Timeout reading from socket"
        assert client.llen("celery") == 0
        for ask in (target.check, lambda: target.observe(["a"]), lambda: target.supersede(["a"])):
            with pytest.raises(TargetError, match=f"guard {place}/0") as caught:
                asyncio.run(ask())
            assert caught.value.reason == "GuardUnreachable"


def test_a_message_on_rabbitmq_is_published_after_its_record(
    amqp_url: str, rabbit_server: RabbitServer, redis_url: str
) -> None:
    target, store = opened(amqp_url, guard=redis_url), open_store(redis_url)
    sends = make_sends(2)
    store.supersede(ids_of(sends[:1]))

    outcomes = launch(target, sends)

    assert [outcomes[each].fact for each in ids_of(sends)] == [Fact.SUPERSEDED, Fact.ACCEPTED]
    backlog = asyncio.run(target._publisher.look("celery"))
    store.close()
    assert backlog
    assert backlog.waiting == 1


def test_the_traits_say_that_the_guard_is_there(shared: CeleryTarget, redis_url: str) -> None:
    assert (shared.traits.guarded, opened(redis_url).traits.guarded) == (True, False)
    assert set(shared.endpoints) == {"broker", "guard"}


def test_a_wrong_url_names_its_field_and_no_secret(redis_url: str) -> None:
    with pytest.raises(Exception, match=r"spec\.celery\.guard") as caught:
        opened(redis_url, guard="memcached://user:hidden@host/0")
    assert "hidden" not in str(caught.value)
