"""Publishing to Redis so that the same launch can be sent again without a second message."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from kombu.connection import Connection
from kombu.transport import redis as kombu_redis
from kombu.utils.json import dumps
from redis import Redis
from redis.exceptions import ResponseError

from scannerjob.model.facts import Backlog, Fact, Observation, Send
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.targets.celery.delivery import Delivery
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.messages import Composer, Message
from scannerjob.worker import records
from scannerjob.worker.redis_store import record_key

# How long the record of a launch is kept after its last send.
RETENTION = timedelta(seconds=records.RETENTION)
_KEPT = int(RETENTION.total_seconds())
_SUPERSEDED = b"superseded"

# Without these a Redis that accepts and never answers is waited for for ever.
_TRANSPORT_OPTIONS = {"socket_connect_timeout": 5.0, "socket_timeout": 5.0}

# One round trip carries about this much, so that a process which freezes while it writes has little
# left to write when it goes on.
_MAX_BYTES_AT_ONCE = 1024 * 1024

# A record per launch: a hash with the launch's state. The worker guard keeps its states in the same
# record, and may have made it before there was a message. The push comes last, and its record is
# taken back if it fails, so that an error of any kind proves that there is no message.
_PUT = """
local record, queue = KEYS[1], KEYS[2]
local message, sends, retention, again = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', record, 'state', 'sends')
local state, put = found[1], found[2]
if state and (state ~= 'queued' or (put and again ~= '1')) then
  redis.call('EXPIRE', record, retention)
  return state
end
redis.call('HSET', record, 'state', 'queued', 'sends', sends)
redis.call('EXPIRE', record, retention)
local pushed = redis.pcall('LPUSH', queue, message)
if type(pushed) == 'table' and pushed.err then
  if not put then redis.call('DEL', record) end
  return pushed
end
return 'queued'
"""

_SUPERSEDE = """
local record, retention = KEYS[1], ARGV[1]
local state = redis.call('HGET', record, 'state')
if not state then
  state = 'superseded'
  redis.call('HSET', record, 'state', state)
end
redis.call('EXPIRE', record, retention)
return state
"""


class _Channel(kombu_redis.Channel):
    """Finds a message's queue as any Celery producer does, and leaves the writing to us."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.collected: list[tuple[str, str]] = []
        self._tables: dict[str, Any] = {}
        super().__init__(*args, **kwargs)

    def _put(self, queue: str, message: Any, **_: Any) -> None:
        priority = self._get_message_priority(message, reverse=False)
        key = self._q_for_pri(queue, priority)
        self.collected.append((key, dumps(message)))

    def get_table(self, exchange: str) -> Any:
        """The queues bound to an exchange, asked for once in each batch."""
        if exchange not in self._tables:
            self._tables[exchange] = super().get_table(exchange)
        return self._tables[exchange]

    def forget_tables(self) -> None:
        """Look bindings up again: a worker may have declared some."""
        self._tables.clear()


class _Transport(kombu_redis.Transport):
    Channel = _Channel


class RedisBroker:
    """A connection to a Redis broker, for the use of one thread; made when this is.

    Every method raises what redis-py and kombu raise, and is not to be called again then.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        connection = Connection(
            endpoint.bare_url,
            transport=_Transport,
            transport_options=_TRANSPORT_OPTIONS,
            ssl=dict(endpoint.tls),
        )
        self._transport = connection.transport
        try:
            self._channel = self._transport.create_channel(self._transport)
        except Exception:
            self._close_transport()
            raise
        self._composer: Composer[str] = Composer(self._channel)
        self._redis = Redis(connection_pool=self._channel.pool)

    def contact(self) -> bool:
        """Make sure that Redis answers; tell whether it keeps the records of what was sent.

        It does unless it may evict them (an evicted record is a launch that looks new), or does not
        let us know.
        """
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.script_load(_PUT)
            pipe.script_load(_SUPERSEDE)
            pipe.info("memory")
            self._put, self._supersede, memory = pipe.execute(raise_on_error=False)
        for reply in (self._put, self._supersede):
            if isinstance(reply, ResponseError):
                raise reply
        return isinstance(memory, dict) and memory.get("maxmemory_policy") == "noeviction"

    def publish(self, sends: Sequence[Send], celery: CelerySpec, delivery: Delivery) -> None:
        """Put one message for each send whose launch has no record yet. Call `contact` before.

        One that is known to be launched, and sent all the same, is put as long as nobody began it.

        A crash in here leaves messages of which the caller does not know; sending the same launches
        again finds their records.
        """
        self._channel.forget_tables()
        for batch in _batches(self._composer.compose_all(sends, celery, delivery)):
            self._put_batch(batch, delivery)

    def _put_batch(self, batch: Sequence[Message[str]], delivery: Delivery) -> None:
        with self._redis.pipeline(transaction=False) as pipe:
            for message in batch:
                keys = (record_key(message.id), message.queue)
                arguments = (message.payload, message.sends, _KEPT, int(message.again))
                pipe.evalsha(self._put, len(keys), *keys, *arguments)
            delivery.hand_over([message.id for message in batch])
            replies = pipe.execute(raise_on_error=False)
        for message, reply in zip(batch, replies, strict=True):
            delivery.answer(message.id, *self._verdict(reply))

    def _verdict(self, reply: bytes | ResponseError) -> tuple[Fact, str | None]:
        if isinstance(reply, ResponseError):
            return Fact.NOT_SENT, self._endpoint.describe(reply)
        if reply == _SUPERSEDED:
            return Fact.SUPERSEDED, "superseded"
        return Fact.ACCEPTED, None

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Mark the launches that have no record, so that a late put does nothing."""
        with self._redis.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.evalsha(self._supersede, 1, record_key(each), _KEPT)
            states = pipe.execute()
        return {each: _superseded(state) for each, state in zip(ids, states, strict=True)}

    def look(self, queue: str) -> Backlog | None:
        """What waits in a queue, which is a list for each priority."""
        return Backlog(queue, self._channel._size(queue))

    def close(self) -> None:
        """Drop the connection."""
        with contextlib.suppress(Exception):
            self._channel.close()
        self._close_transport()

    def _close_transport(self) -> None:
        """End what kombu has for its consumers, which it leaves to the garbage collector."""
        with contextlib.suppress(Exception):
            self._transport.cycle.close()
        with contextlib.suppress(Exception):
            self._transport.cycle.poller.close()


def _batches(messages: Iterable[Message[str]]) -> Iterator[list[Message[str]]]:
    batch: list[Message[str]] = []
    size = 0
    for message in messages:
        if batch and size + len(message.payload) > _MAX_BYTES_AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += len(message.payload)
    if batch:
        yield batch


def _superseded(state: bytes) -> Observation:
    return Observation(Fact.SUPERSEDED if state == _SUPERSEDED else Fact.ACCEPTED)
