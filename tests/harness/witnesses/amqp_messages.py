"""What RabbitMQ tells of the messages it is given, by its firehose."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import amqp

from tests.harness.witnesses.listener import Listener
from tests.harness.witnesses.messages import message_of
from tests.support.rabbitmq import RabbitServer
from tests.support.waiting import eventually

_FIREHOSE = "amq.rabbitmq.trace"
_FAILURES = (OSError, amqp.AMQPError)


class AmqpMessages(Listener):
    """The messages of one virtual host, that of `url`, which were routed to a queue.

    Noted when RabbitMQ told of them. One whose queue refused it, or was deleted, is shown as one
    that was taken.
    """

    failures = _FAILURES

    def __init__(self, server: RabbitServer, url: str, key: Sequence[str] = ("item",)) -> None:
        super().__init__()
        self._server = server
        self._key = key
        self._url = urlsplit(url)
        self._probes: set[str] = set()

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was heard that was published before this was called."""
        token = str(uuid4())

        def has_heard() -> bool:
            with self._connection() as connection:
                probe = amqp.Message(correlation_id=token)
                connection.channel().basic_publish(probe, routing_key=token)
            return token in self._probes

        eventually(has_heard, timeout, message="all publishes were heard", ignoring=_FAILURES)

    def _hear(self) -> Generator[None, None, None]:
        with self._connection() as connection:
            self._socket = connection.transport.sock
            channel = connection.channel()
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, _FIREHOSE, "publish.#")
            channel.basic_consume(queue, no_ack=True, callback=self._note)
            self._server.ask("PUT", f"vhosts/{self._url.path[1:]}", {"tracing": True})
            yield
            while True:
                connection.drain_events()
                yield

    def _connection(self) -> Any:
        return amqp.Connection(
            host=f"{self._url.hostname}:{self._url.port}",
            userid=self._url.username,
            password=self._url.password,
            virtual_host=unquote(self._url.path[1:]),
            connect_timeout=5,
        )

    def _note(self, trace: Any) -> None:
        now, properties = time.time(), trace.headers["properties"]
        if "headers" not in properties:
            self._probes.add(properties.get("correlation_id", ""))
        headers = properties.get("headers") or {}
        message = message_of(now, headers, trace.body, self._key)
        if message and trace.headers["routed_queues"]:
            self._messages.append(message)
