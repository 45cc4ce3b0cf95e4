"""Publishing to RabbitMQ: many messages on their way at a time, each confirmed by the broker."""

# kombu and py-amqp are typed in part only.
# mypy: allow-untyped-calls, allow-subclassing-any

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from amqp import basic_message as amqp_basic
from amqp import exceptions as amqp
from kombu.transport import pyamqp

from scannerjob.model.facts import Backlog, Fact, Observation, Send
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.targets.celery.amqp_connection import leave, open_amqp
from scannerjob.targets.celery.delivery import Delivery
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.messages import Composer, Message

# How long the broker may take for an answer, and for taking what is written to it.
_PATIENCE = 4.0
# And for the next confirm, where it may have to write to a disk that is busy.
_CONFIRMED_WITHIN = 20.0
# The broker drops a connection of which it heard nothing for twice as long, one that it has stopped
# reading from included: it is made anew when it is needed.
_HEARTBEAT = 60.0
# How many messages may be on their way: a broker that becomes short of memory stops reading, and
# what it did not read may reach it hours later.
_AT_ONCE = 100
_NACKED = "it did not take the message (nack): its queue is full, or failed"


class _Channel(pyamqp.Channel):
    """Keeps what a Celery producer publishes, and lets us write it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.collected: list[tuple[str, Any]] = []
        super().__init__(*args, **kwargs)

    def basic_publish(self, message: Any, *, routing_key: str, **_: Any) -> None:
        """Keep it."""
        self.collected.append((routing_key, message))

    def put(self, message: Any, exchange: str, routing_key: str, mandatory: bool) -> None:
        """Write it to the network; what leads to no queue comes back where it is `mandatory`."""
        self._basic_publish(message, exchange, routing_key, mandatory)


class _Connection(pyamqp.Connection):
    Channel = _Channel


class _Transport(pyamqp.Transport):
    Connection = _Connection


class AmqpBroker:
    """A connection to RabbitMQ, for the use of one thread; made when this is.

    Every method raises what py-amqp raises, and is not to be called again then.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connect()

    def _connect(self) -> None:
        self._connection = open_amqp(
            self._endpoint,
            patience=_PATIENCE,
            heartbeat=_HEARTBEAT,
            transport=_Transport,
            on_blocked=_blocked,
        )
        self._channel = self._connection.channel()
        self._confirms = _Confirms(self._channel)
        self._composer: Composer[Any] = Composer(self._channel, declare=False)
        # A declaration that fails closes its channel, and with it what waits for confirms there.
        self._declaring = self._connection.channel()

    def contact(self) -> bool:
        """Make sure that RabbitMQ answers and takes messages; it keeps no records.

        A connection that was lost while it was idle is made anew: nothing was sent over it.
        """
        try:
            self._probe()
        except amqp.Blocked:
            raise
        except (amqp.ConnectionError, OSError):
            self._connection.collect()
            self._connect()
            self._probe()
        return False

    def _probe(self) -> None:
        """Send what leads nowhere: that it is blocked, a broker says only to those who publish."""
        with suppress(amqp.AccessRefused):
            self._declaring.put(amqp_basic.Message(), "", f"scannerjob.probe-{uuid4()}", False)
            self._declaring.basic_qos(0, 1, False)

    def publish(self, sends: Sequence[Send], celery: CelerySpec, delivery: Delivery) -> None:
        """Publish one message for each send. Call `contact` before.

        A crash in here leaves messages of which the caller does not know, and sending them again
        would put a second one of each.
        """
        messages = self._composer.compose_all(sends, celery, delivery)
        if problem := self._problem_with_route(celery):
            for message in messages:
                delivery.answer(message.id, Fact.NOT_SENT, problem)
            return
        for batch in _batches(messages):
            self._put(batch, celery.exchange or "", delivery)

    def _put(self, batch: Sequence[Message[Any]], exchange: str, delivery: Delivery) -> None:
        try:
            for message in batch:
                delivery.hand_over([message.id])
                self._confirms.expect(message.id, delivery)
                self._channel.put(message.payload, exchange, message.queue, True)
            while self._confirms.awaited:
                self._connection.drain_events(timeout=_CONFIRMED_WITHIN)
        except amqp.ChannelError as error:
            # Of one that is on its way alone it is told before it is put anywhere.
            if len(batch) == 1:
                delivery.answer(batch[0].id, Fact.NOT_SENT, self._endpoint.describe(error))
            raise

    def _problem_with_route(self, celery: CelerySpec) -> str | None:
        """Why messages would lead nowhere, if that shows beforehand."""
        try:
            if celery.exchange is not None:
                self._declaring.exchange_declare(celery.exchange, "", passive=True)
            else:
                self._declare(celery.queue)
        except amqp.ChannelError as error:
            return self._endpoint.describe(error)
        return None

    def _declare(self, queue: str) -> None:
        """Make sure that a queue is there, whoever declared it, and with whatever arguments.

        Celery's own producers declare it anew, which fails where a worker's configuration knows it
        by other arguments (a quorum queue, priorities).
        """
        if self.look(queue) is None:
            self._composer.queue(queue, self._declaring).declare()

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Nothing: there are no records of sends here."""
        return {}

    def look(self, queue: str) -> Backlog | None:
        """What waits in a queue, and how many workers consume from it."""
        try:
            found = self._declaring.queue_declare(queue, passive=True)
        except amqp.NotFound:
            return None
        return Backlog(queue, found.message_count, found.consumer_count)

    def close(self) -> None:
        """Drop the connection, and take leave of the broker if it answers."""
        leave(self._connection)


class _Confirms:
    """What the broker says of messages. It knows them by their number on the channel."""

    def __init__(self, channel: _Channel) -> None:
        self.awaited: dict[int, tuple[str, Delivery]] = {}
        self._numbers = itertools.count(1)
        self._returned: dict[str, str] = {}
        channel.confirm_select()
        channel.events["basic_ack"].add(self._acked)
        channel.events["basic_nack"].add(self._nacked)
        channel.events["basic_return"].add(self._came_back)

    def expect(self, launch_id: str, delivery: Delivery) -> None:
        """The next message is this launch's."""
        self.awaited[next(self._numbers)] = launch_id, delivery

    def _acked(self, number: int, multiple: bool) -> None:
        for launch_id, delivery in self._take(number, multiple):
            unroutable = self._returned.pop(launch_id, None)
            fact = Fact.NOT_SENT if unroutable else Fact.ACCEPTED
            delivery.answer(launch_id, fact, unroutable)

    def _nacked(self, number: int, multiple: bool) -> None:
        # A full queue refuses so, and has nothing; but so does one that crashed, and may have it.
        for launch_id, delivery in self._take(number, multiple):
            delivery.answer(launch_id, Fact.UNCERTAIN, _NACKED)

    # Comes before the acknowledgement of the same message.
    def _came_back(self, error: Exception, exchange: str, routing_key: str, message: Any) -> None:
        launch_id = message.properties["correlation_id"]
        self._returned[launch_id] = (
            f"exchange {exchange!r} with routing key {routing_key!r} leads to no queue ({error}): "
            "is a worker running that declares it?"
        )

    def _take(self, number: int, multiple: bool) -> list[tuple[str, Delivery]]:
        numbers = [each for each in self.awaited if each <= number] if multiple else [number]
        return [self.awaited.pop(each) for each in numbers]


def _batches(messages: Sequence[Message[Any]]) -> Iterator[Sequence[Message[Any]]]:
    """The first alone: a broker that raised an alarm just now says so only once it was sent one."""
    yield messages[:1]
    for start in range(1, len(messages), _AT_ONCE):
        yield messages[start : start + _AT_ONCE]


def _blocked(_: str) -> None:
    raise amqp.Blocked("it takes no messages for now: it is short of memory or of disk space")
