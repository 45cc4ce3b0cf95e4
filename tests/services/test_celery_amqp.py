"""Publishing to a real RabbitMQ: ordinary Celery messages, each of them confirmed."""

# kombu and py-amqp are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from amqp.exceptions import NotFound
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from scannerjob.model.facts import Fact
from scannerjob.ports import ConfigurationError, TargetError
from scannerjob.targets.celery import Brokers, CeleryTarget
from scannerjob.worker.records import HEADER
from tests.support.celery_target import (
    ACCEPTED,
    NOT_SENT,
    BlackHole,
    CuttableProxy,
    LossyProxy,
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
    watched_loop,
)
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitServer
from tests.support.waiting import eventually


@pytest.fixture
def target(amqp_url: str) -> CeleryTarget:
    return opened(amqp_url)


@pytest.fixture
def channel(amqp_url: str) -> Iterator[Any]:
    """A channel of our own: what is seen through it is the broker's word."""
    with Connection(amqp_url) as connection:
        yield connection.default_channel


def depth(channel: Any, queue: str = "celery") -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


def drain(channel: Any, queue: str) -> list[Any]:
    """All messages of a queue; removes them."""
    messages = iter(lambda: channel.basic_get(queue, no_ack=True), None)
    return list(messages)


def contents(message: Any) -> dict[str, Any]:
    """What is the same in two messages for the same task, whoever published them."""
    properties = {
        name: value
        for name, value in message.properties.items()
        if name not in ("delivery_tag", "reply_to", "expiration")
    }
    headers = dict(properties.pop("application_headers"))
    return {
        "body": json.loads(message.body),
        "headers": {**headers, "origin": None},
        "properties": properties,
        "exchange": message.delivery_info["exchange"],
        "routing_key": message.delivery_info["routing_key"],
    }


# What is published


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "pdf"},
        {"priority": 4},
        {"headers": {"tenant": "acme"}},
        {"queue": "bound", "exchange": "docs", "routing_key": "pdf.new"},
    ],
)
@pytest.mark.parametrize("expires_in", [None, 3600])
def test_messages_are_what_a_celery_producer_publishes(
    amqp_url: str, channel: Any, options: dict[str, Any], expires_in: float | None
) -> None:
    Queue("bound", Exchange("docs"), "pdf.new")(channel).declare()
    send = make_send({"pdf_id": 7, "title": "x"}, expires_in=expires_in, time_limit=5)
    app = Celery(broker=amqp_url, set_as_current=False)
    with Connection(amqp_url) as connection:
        app.send_task(
            "docs.tasks.record",
            kwargs=dict(send.row.values),
            task_id=send.item.id,
            expires=send.expires_at,
            time_limit=5,
            connection=connection,
            **{**options, "headers": {**options.get("headers", {}), HEADER: send.item.id}},
        )
    queue = options.get("queue", "celery")
    spec = {"routingKey" if k == "routing_key" else k: v for k, v in options.items()}

    eventually(lambda: depth(channel, queue) == 1)
    (expected,) = drain(channel, queue)
    assert facts(launch(opened(amqp_url, spec=celery_spec(**spec)), [send])) == ACCEPTED

    (ours,) = drain(channel, queue)
    assert contents(ours) == contents(expected)
    assert ("expiration" in ours.properties) == (expires_in is not None)
    assert ours.properties["delivery_mode"] == 2


def test_a_thousand_messages_arrive_in_order(target: CeleryTarget, channel: Any) -> None:
    sends = make_sends(1200)

    assert facts(launch(target, sends)) == ACCEPTED

    assert [m.properties["correlation_id"] for m in drain(channel, "celery")] == ids_of(sends)


# Where it goes


def test_a_queue_that_is_missing_is_declared_as_celery_does(
    amqp_url: str, rabbit_server: RabbitServer, channel: Any
) -> None:
    assert facts(launch(opened(amqp_url, spec=celery_spec(queue="new")), make_sends(2))) == ACCEPTED

    assert depth(channel, "new") == 2
    with Connection(amqp_url) as connection:
        # Celery's own declaration finds nothing that differs.
        Celery(broker=amqp_url, set_as_current=False).amqp.queues["new"](
            connection.default_channel
        ).declare()


@pytest.mark.parametrize("arguments", [{"x-max-priority": 10}, {"x-queue-type": "quorum"}])
def test_a_queue_that_was_declared_otherwise_is_taken_as_it_is(
    target: CeleryTarget, channel: Any, arguments: dict[str, Any]
) -> None:
    channel.queue_declare("celery", durable=True, auto_delete=False, arguments=arguments)

    assert facts(launch(target, make_sends(3))) == ACCEPTED

    assert len(drain(channel, "celery")) == 3


def test_an_exchange_that_is_missing_or_leads_nowhere_is_named(amqp_url: str, channel: Any) -> None:
    target = opened(amqp_url, spec=celery_spec(exchange="docs", routingKey="pdf.new"))

    async def scenario() -> None:
        seen = await target.launch(make_sends(2), soon())
        assert facts(seen) == NOT_SENT
        assert "no exchange 'docs'" in reasons(seen)

        Exchange("docs")(channel).declare()
        seen = await target.launch(make_sends(2), soon())
        assert facts(seen) == NOT_SENT
        assert "exchange 'docs' with routing key 'pdf.new' leads to no queue" in reasons(seen)

        Queue("pdf", Exchange("docs"), "pdf.new")(channel).declare()
        assert facts(await target.launch(make_sends(2), soon())) == ACCEPTED

    asyncio.run(scenario())
    assert depth(channel, "pdf") == 2
    with pytest.raises(NotFound):
        depth(channel, "celery")


def test_a_queue_deleted_under_a_publisher_is_noticed(target: CeleryTarget, channel: Any) -> None:
    async def scenario() -> None:
        assert facts(await target.launch(make_sends(1), soon())) == ACCEPTED
        channel.queue_delete("celery")
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    assert depth(channel) == 3


def test_a_full_queue_that_refuses_leaves_it_uncertain(target: CeleryTarget, channel: Any) -> None:
    arguments = {"x-max-length": 2, "x-overflow": "reject-publish"}
    channel.queue_declare("celery", durable=True, auto_delete=False, arguments=arguments)

    seen = list(launch(target, make_sends(4)).values())

    assert [each.fact for each in seen] == [Fact.ACCEPTED] * 2 + [Fact.UNCERTAIN] * 2
    assert "its queue is full" in (seen[-1].reason or "")


# What is known, and what may be repeated


def test_it_keeps_no_records_so_that_nothing_may_be_sent_again(target: CeleryTarget) -> None:
    async def scenario() -> None:
        await target.check()
        assert target.traits.resend_within is None
        assert not target.traits.republish
        assert await target.supersede(["a"]) == {}

    asyncio.run(scenario())


def test_its_author_may_want_it_republished(amqp_url: str) -> None:
    spec = celery_spec(onUncertainPublish="Republish")

    assert opened(amqp_url, spec=spec).traits.republish


def test_lost_confirms_leave_what_was_sent_uncertain(
    rabbit_server: RabbitServer, amqp_url: str, channel: Any
) -> None:
    sends = make_sends(20)
    with LossyProxy(rabbit_server.port, b"docs.tasks.record") as place:
        seen = launch(opened(at(amqp_url, place)), sends, seconds=20)

    # A first message alone: the others wait for its confirm.
    assert [seen[each].fact for each in ids_of(sends)] == [Fact.UNCERTAIN] + [Fact.NOT_SENT] * 19
    assert place in reasons(seen)
    eventually(lambda: depth(channel) == 1, message="it has arrived all the same")


def at(url: str, place: str) -> str:
    """The same URL, leading elsewhere."""
    credentials, _, rest = url.rpartition("@")
    return f"{credentials}@{place}/{rest.partition('/')[2]}"


def test_a_publisher_killed_in_the_middle_has_sent_each_message_once_or_not(
    amqp_url: str, target: CeleryTarget, channel: Any, tmp_path: Path
) -> None:
    launch(target, make_sends(1))
    sends = make_sends(600)
    with publisher(tmp_path, amqp_url, sends, size=30_000) as process:
        eventually(lambda: depth(channel) > 1, interval=0.001, message="a first message")
        process.kill()

    arrived = [message.properties["correlation_id"] for message in drain(channel, "celery")]
    assert 1 < len(arrived) < 601, "killed too late to be in the middle"
    assert arrived[1:] == ids_of(sends)[: len(arrived) - 1]


# A broker that is away, hangs or refuses


@contextmanager
def alarm(server: RabbitServer) -> Iterator[None]:
    """The broker is short of memory."""
    server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        server.control("set_vm_memory_high_watermark", "0.4")


@pytest.mark.parametrize("idle", [True, False])
def test_a_broker_short_of_memory_is_sent_nothing_however_often_it_is_tried(
    rabbit_server: RabbitServer, target: CeleryTarget, channel: Any, idle: bool
) -> None:
    async def scenario() -> None:
        if not idle:
            await target.launch(make_sends(3), soon())
        with alarm(rabbit_server):
            for _ in range(3):
                seen = await target.launch(make_sends(5), soon())
                assert facts(seen) == NOT_SENT
                assert "short of memory or of disk space" in reasons(seen)
                with pytest.raises(TargetError, match="short of memory or of disk space"):
                    await target.check()
        assert facts(await target.launch(make_sends(2), soon())) == ACCEPTED

    asyncio.run(scenario())
    assert depth(channel) == (2 if idle else 5)


@pytest.mark.parametrize("end", [CuttableProxy.cut, CuttableProxy.mute])
def test_a_connection_that_was_lost_while_idle_costs_no_launch(
    rabbit_server: RabbitServer, amqp_url: str, end: Callable[[CuttableProxy], None]
) -> None:
    with CuttableProxy(rabbit_server.port) as proxy:
        target = opened(at(amqp_url, proxy.place))

        async def scenario() -> None:
            assert facts(await target.launch(make_sends(1), soon())) == ACCEPTED
            end(proxy)
            assert facts(await target.launch(make_sends(1), soon())) == ACCEPTED

        asyncio.run(scenario())


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    place = f"127.0.0.1:{free_port()}"

    seen = launch(opened(f"amqp://{place}/app"), make_sends(3))

    assert facts(seen) == NOT_SENT
    assert place in reasons(seen)
    assert "refused" in reasons(seen)


@pytest.mark.parametrize("spoil", ["password", "vhost"])
def test_what_it_refuses_is_told_without_the_password(
    rabbit_server: RabbitServer, amqp_url: str, spoil: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = amqp_url.replace(rabbit_server.password, "c4n4ry%2Fpw")
    if spoil == "vhost":
        url = amqp_url.rpartition("/")[0] + "/no-such"
    target = opened(url)
    seen = launch(target, make_sends(3))
    with pytest.raises(TargetError) as caught:
        asyncio.run(target.check())

    assert facts(seen) == NOT_SENT
    assert f"127.0.0.1:{rabbit_server.port}" in reasons(seen)
    assert caught.value.reason == "BrokerUnreachable"
    assert ("no-such" if spoil == "vhost" else "ACCESS_REFUSED") in reasons(seen)
    shown = reasons(seen) + str(caught.value) + caplog.text + repr(target.__dict__)
    for secret in ("c4n4ry", rabbit_server.password):
        assert secret not in shown


def test_a_user_who_may_not_declare_is_told_so(
    rabbit_server: RabbitServer, amqp_url: str, channel: Any
) -> None:
    vhost = amqp_url.rpartition("/")[2]
    rights = {"configure": "^$", "write": ".*", "read": ".*"}
    rabbit_server.ask("PUT", f"permissions/{vhost}/app", rights)
    target = opened(amqp_url)

    seen = launch(target, make_sends(2))
    assert facts(seen) == NOT_SENT
    assert "ACCESS_REFUSED" in reasons(seen)

    rabbit_server.ask("PUT", f"permissions/{vhost}/app", {**rights, "configure": ".*"})
    Queue("celery", Exchange("celery"), "celery")(Connection(amqp_url).default_channel).declare()
    rabbit_server.ask("PUT", f"permissions/{vhost}/app", rights)
    assert facts(launch(opened(amqp_url), make_sends(2))) == ACCEPTED


def test_what_it_refuses_to_take_was_not_sent(
    rabbit_server: RabbitServer, amqp_url: str, target: CeleryTarget, channel: Any
) -> None:
    vhost = amqp_url.rpartition("/")[2]
    rights = {"configure": ".*", "write": ".*", "read": ".*"}

    async def scenario() -> None:
        await target.launch(make_sends(1), soon())
        rabbit_server.ask("PUT", f"permissions/{vhost}/app", {**rights, "write": "^$"})
        # A connection may believe for a moment in what it was allowed.
        await asyncio.to_thread(close_connections, rabbit_server, vhost)
        for _ in range(2):
            seen = await target.launch(make_sends(3), soon())
            assert facts(seen) == NOT_SENT
            assert "ACCESS_REFUSED" in reasons(seen)
        rabbit_server.ask("PUT", f"permissions/{vhost}/app", rights)
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    with Connection(amqp_url) as connection:
        assert depth(connection.default_channel) == 4


def test_a_black_hole_holds_up_neither_the_loop_nor_another_broker(amqp_url: str) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        healthy = brokers.open(amqp_url, None, celery_spec())
        with BlackHole() as place:
            stuck = brokers.open(at(amqp_url, place), None, celery_spec())
            async with watched_loop(longest=1):
                hanging = asyncio.create_task(stuck.launch(make_sends(3), soon(4)))
                await asyncio.sleep(0.1)
                assert facts(await healthy.launch(make_sends(3), soon(3))) == ACCEPTED
                assert not hanging.done()
                seen = await hanging
        assert facts(seen) == NOT_SENT
        assert "did not answer in time" in reasons(seen)

    asyncio.run(scenario())


def test_a_frozen_broker_gets_nothing_late_and_all_of_it_once_it_answers(
    rabbit_server: RabbitServer, target: CeleryTarget, channel: Any
) -> None:
    async def scenario() -> None:
        await target.launch(make_sends(1), soon())
        rabbit_server.pause()
        seen = await target.launch(make_sends(3), soon(1))
        rabbit_server.resume()
        assert facts(seen) == NOT_SENT
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    assert depth(channel) == 4


def test_a_broker_that_was_restarted_is_found_again(
    rabbit_server: RabbitServer, target: CeleryTarget, amqp_url: str
) -> None:
    async def scenario() -> None:
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED
        rabbit_server.kill()
        assert facts(await target.launch(make_sends(3), soon())) == NOT_SENT
        rabbit_server.start()
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    with Connection(amqp_url) as connection:
        # What was confirmed has survived.
        assert depth(connection.default_channel) == 6


def test_a_connection_that_was_closed_while_idle_costs_no_launch(
    rabbit_server: RabbitServer, amqp_url: str, target: CeleryTarget
) -> None:
    async def scenario() -> None:
        assert facts(await target.launch(make_sends(1), soon())) == ACCEPTED
        vhost = amqp_url.rpartition("/")[2]
        await asyncio.to_thread(close_connections, rabbit_server, vhost)
        assert facts(await target.launch(make_sends(1), soon())) == ACCEPTED

    asyncio.run(scenario())


def close_connections(server: RabbitServer, vhost: str) -> None:
    server.control("close_all_connections", "--vhost", vhost, "for a test")


def test_nothing_is_sent_after_the_deadline(target: CeleryTarget, channel: Any) -> None:
    assert facts(launch(target, make_sends(3), seconds=-1)) == NOT_SENT
    with pytest.raises(NotFound):
        depth(channel)


def test_connections_are_closed_with_their_targets(
    rabbit_server: RabbitServer, amqp_url: str
) -> None:
    vhost = amqp_url.rpartition("/")[2]
    brokers = Brokers()
    targets = [brokers.open(amqp_url, None, celery_spec(queue=str(n))) for n in range(3)]

    async def scenario() -> None:
        await asyncio.gather(*(target.launch(make_sends(5), soon()) for target in targets))

    asyncio.run(scenario())
    # One for messages, one for events.
    eventually(lambda: len(rabbit_server.ask("GET", f"vhosts/{vhost}/connections")) == 2)
    brokers.close()
    eventually(lambda: not rabbit_server.ask("GET", f"vhosts/{vhost}/connections"))


# URLs


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("amqp://u:p/w@host/app", "cannot be read"),
        ("amqp://u:p@host/app?heartbeat=5", "has options"),
        ("amqp://u:p@one/app;amqp://u:p@two/app", "cannot be read|alternatives"),
        ("sqs://u:p@host", "must begin with"),
    ],
)
def test_urls_that_would_lead_elsewhere_are_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        opened(url)
    assert caught.value.reason == "InvalidURL"
    assert any(each in str(caught.value) for each in problem.split("|"))
    assert "spec.celery.broker" in str(caught.value)
    assert ":p" not in str(caught.value).replace("[:PORT]", "").replace(":PASSWORD", "")


def test_results_sent_over_a_broker_cannot_be_read(amqp_url: str) -> None:
    with pytest.raises(ConfigurationError, match="reach their caller only"):
        opened(amqp_url, "rpc://")


def test_a_task_that_no_worker_takes_is_known_of_by_nobody(target: CeleryTarget) -> None:
    sends = make_sends(2)
    launch(target, sends)

    assert told(target, ids_of(sends)) == {}
