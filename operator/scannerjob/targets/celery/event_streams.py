"""Where Celery's events come from: Redis' channels, RabbitMQ's exchange."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery.events import event_exchange
from kombu.entity import Queue
from kombu.messaging import Consumer

from scannerjob.targets.celery.amqp_connection import leave, open_amqp
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.redis_client import open_redis

# How long a connection may wait for an answer; and for events, before it looks after itself.
_PATIENCE = 5.0
_WAIT = 1.0
# How often a broker that says nothing is asked for a sign of life. It is given up after two or
# three of them: a connection that was lost without a word would be listened to for ever.
_SIGN_OF_LIFE = 10
_MAX_UNANSWERED = 2


class RedisEvents:
    """Events as kombu publishes them on Redis: to channels, which keep nothing for anybody."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._redis = open_redis(
            endpoint, socket_timeout=_PATIENCE, health_check_interval=_SIGN_OF_LIFE
        )
        number = self._redis.connection_pool.connection_kwargs.get("db", 0)
        self._channels = f"/{number}.{event_exchange.name}/task.*"
        self._pubsub = self._redis.pubsub()

    def subscribe(self) -> None:
        """Connect, and have events sent from now on."""
        self._pubsub.psubscribe(self._channels)
        if self._pubsub.get_message(timeout=_PATIENCE) is None:
            raise TimeoutError

    def receive(self) -> Sequence[bytes | str]:
        """What came within a second. Raises what redis-py raises, and TimeoutError."""
        message = self._pubsub.get_message(timeout=_WAIT)
        if self._pubsub.health_check_response_counter > _MAX_UNANSWERED:
            raise TimeoutError
        if message is None or message["type"] != "pmessage":
            return []
        return _bodies(message["data"])

    def close(self) -> None:
        """Drop the connection."""
        with suppress(Exception):
            self._pubsub.close()
            self._redis.close()


def _bodies(data: bytes) -> list[bytes]:
    """What is in a message of kombu's, or nothing if it is not one."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        return []
    body = message.get("body") if isinstance(message, dict) else None
    # Anything but base64 comes from no Celery.
    with suppress(ValueError):
        return [base64.b64decode(body, validate=True)] if isinstance(body, str) else []
    return []


class AmqpEvents:
    """Events from RabbitMQ, through a queue that goes with the connection."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._connection: Any = None
        self._received: list[bytes | str] = []

    def subscribe(self) -> None:
        """Connect, and have events sent from now on.

        They are acknowledged by being sent, and those that are not sent within Celery's own five
        seconds are dropped: the broker piles up nothing for us.
        """
        self._connection = open_amqp(self._endpoint, patience=_PATIENCE, heartbeat=_SIGN_OF_LIFE)
        queue = Queue(
            f"{event_exchange.name}.scannerjob-{uuid4()}",
            event_exchange,
            "task.#",
            exclusive=True,
            auto_delete=True,
            durable=False,
            message_ttl=5.0,
            expires=60.0,
        )
        channel = self._connection.channel()
        Consumer(channel, [queue], no_ack=True, on_message=self._take).consume()

    def receive(self) -> Sequence[bytes | str]:
        """What came within a second. Raises what py-amqp raises."""
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=_WAIT)
        self._connection.heartbeat_tick()
        received, self._received = self._received, []
        return received

    def _take(self, message: Any) -> None:
        self._received.append(message.body)

    def close(self) -> None:
        """Drop the connection, and take leave of the broker if it answers."""
        leave(self._connection)
