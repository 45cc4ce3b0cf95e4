"""Where hints come from: Celery's events on Redis and RabbitMQ, and what workers' guards tell."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

from celery.events import event_exchange
from kombu.entity import Queue
from kombu.messaging import Consumer

from scannerjob.targets.celery.amqp_connection import leave, open_amqp
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.redis_client import open_redis
from scannerjob.worker.redis_store import ENDED_CHANNEL
from scannerjob.worker.sql_store import SqlStore

# How long a connection may wait for an answer; and for events, before it looks after itself.
_PATIENCE = 5.0
_WAIT = 1.0
# How often a database is asked what has ended: a freed slot is refilled as soon as that.
_POLL = 0.1
_LATE = 2000
# How often a broker that says nothing is asked for a sign of life. It is given up after two or
# three of them: a connection that was lost without a word would be listened to for ever.
_SIGN_OF_LIFE = 10
_MAX_UNANSWERED = 2
# Those after which a worker has nothing more to do with a task.
_ENDS = frozenset({"task-succeeded", "task-failed", "task-revoked", "task-rejected"})
# Workers send their events in groups of a few dozen; more than this is none of theirs.
_MAX_BYTES = 1024 * 1024


class _RedisChannel:
    """What is published to some channels of a Redis, which keep nothing for anybody."""

    def __init__(self, endpoint: Endpoint, pattern: str) -> None:
        self._redis = open_redis(
            endpoint, socket_timeout=_PATIENCE, health_check_interval=_SIGN_OF_LIFE
        )
        self._pattern = pattern
        self._pubsub = self._redis.pubsub()

    def subscribe(self) -> None:
        """Connect, and have messages sent from now on."""
        self._pubsub.psubscribe(self._pattern.format(number=self._number))
        if self._pubsub.get_message(timeout=_PATIENCE) is None:
            raise TimeoutError

    @property
    def _number(self) -> int:
        return int(self._redis.connection_pool.connection_kwargs.get("db", 0))

    def receive(self) -> Sequence[str]:
        """What came within a second. Raises what redis-py raises, and TimeoutError."""
        message = self._pubsub.get_message(timeout=_WAIT)
        if self._pubsub.health_check_response_counter > _MAX_UNANSWERED:
            raise TimeoutError
        if message is None or message["type"] != "pmessage":
            return []
        return self._ids(message["data"])

    def _ids(self, data: bytes) -> list[str]:
        raise NotImplementedError

    def close(self) -> None:
        """Drop the connection."""
        with suppress(Exception):
            self._pubsub.close()
            self._redis.close()


class RedisEvents(_RedisChannel):
    """Celery's events as kombu publishes them on Redis."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, f"/{{number}}.{event_exchange.name}/task.*")

    def _ids(self, data: bytes) -> list[str]:
        return [each for body in _bodies(data) for each in ended(body)]


class RedisEnds(_RedisChannel):
    """What guards tell on Redis: the id of each launch that has ended."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint, ENDED_CHANNEL)

    def _ids(self, data: bytes) -> list[str]:
        return [data.decode(errors="replace")]


class SqlEnds:
    """What guards tell in a database, which is asked again and again."""

    def __init__(self, connect: Callable[[], SqlStore]) -> None:
        self._store = connect()
        self._since = 0
        self._told: frozenset[str] = frozenset()

    def subscribe(self) -> None:
        """Connect, and tell of what ends from now on."""
        self._since = int(self._store.read([]).now * 1000)

    def receive(self) -> Sequence[str]:
        """What came within a tenth of a second. Raises what SQLAlchemy raises."""
        time.sleep(_POLL)
        # What was written at a time may be seen later than what was written after it.
        ended = self._store.ended_since(self._since - _LATE)
        self._since = max([self._since, *(at for _, at in ended)])
        ids = frozenset(each for each, _ in ended)
        new, self._told = ids - self._told, ids
        return list(new)

    def close(self) -> None:
        """Drop the connection."""
        self._store.close()


def ended(message: bytes | str) -> list[str]:
    """The ids of the tasks that ended, by what one or more events say; none if they are garbage."""
    if len(message) > _MAX_BYTES:
        return []
    try:
        events = json.loads(message)
    except (ValueError, RecursionError):
        return []
    group = events if isinstance(events, list) else [events]
    return [event["uuid"] for event in group if _tells_end(event)]


def _tells_end(event: Any) -> bool:
    if not isinstance(event, dict):
        return False
    told, task_id = event.get("type"), event.get("uuid")
    return isinstance(told, str) and told in _ENDS and isinstance(task_id, str)


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

    def receive(self) -> Sequence[str]:
        """What came within a second. Raises what py-amqp raises."""
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=_WAIT)
        self._connection.heartbeat_tick()
        received, self._received = self._received, []
        return [each for message in received for each in ended(message)]

    def _take(self, message: Any) -> None:
        self._received.append(message.body)

    def close(self) -> None:
        """Drop the connection, and take leave of the broker if it answers."""
        leave(self._connection)
