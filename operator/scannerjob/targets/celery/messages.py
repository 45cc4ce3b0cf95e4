"""Celery messages, made by Celery itself, before anything is written to a broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Generic, Protocol, TypeVar

from celery import Celery

from scannerjob.model.facts import Fact, Send
from scannerjob.model.ledger import Phase
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.targets.celery.delivery import Delivery
from scannerjob.worker.records import HEADER

_MAX_SHOWN = 1024


@cache
def reserved_headers() -> frozenset[str]:
    """The headers that Celery sets itself, and ours.

    Set by an author, they would give a message another identity than the ledger knows it by.
    """
    return frozenset(_new_app().amqp.as_task_v2("", "").headers) | {"compression", HEADER}


def _new_app() -> Celery:
    """Celery with its defaults, whatever the environment says.

    That may be a worker's, where we run beside one. With a result backend, publishing would
    subscribe to results.
    """
    app = Celery("scannerjob", loader="app", set_as_current=False)
    # Unless it is given some configuration, Celery imports CELERY_CONFIG_MODULE.
    app.config_from_object({"task_serializer": "json"})
    # Unlike the setting result_backend, this is not overridden by CELERY_RESULT_BACKEND.
    app.backend_cls = "disabled://"
    return app


_Payload = TypeVar("_Payload")


class CollectingChannel(Protocol[_Payload]):
    """A kombu channel which keeps what is published instead of writing it."""

    collected: list[tuple[str, _Payload]]
    """Where each copy that would be written goes, by its queue's name, key or routing key."""


@dataclass(frozen=True, slots=True)
class Message(Generic[_Payload]):
    """A Celery message as its broker takes it, and the queue (or routing key) it goes to.

    `again`: it was put before, and is wanted once more.
    """

    id: str
    sends: int
    queue: str
    payload: _Payload
    again: bool = False


class Composer(Generic[_Payload]):
    """Makes Celery messages through a channel that collects them.

    Queues are declared on the way, as by any Celery producer, unless `declare` says otherwise.
    """

    def __init__(self, channel: CollectingChannel[_Payload], *, declare: bool = True) -> None:
        self._app = _new_app()
        self._producer = self._app.amqp.Producer(channel, auto_declare=False)
        self._channel = channel
        self._declare = declare

    def compose_all(
        self, sends: Iterable[Send], celery: CelerySpec, delivery: Delivery
    ) -> list[Message[_Payload]]:
        """The messages of these sends; `delivery` is told of those that lead nowhere."""
        options = self._options(celery)
        messages = []
        for send in sends:
            copies = self._copies(send, celery, options)
            if len(copies) == 1:
                again = send.item.phase is Phase.LAUNCHED
                messages.append(Message(send.item.id, send.item.sends, *copies[0], again))
            else:
                delivery.answer(send.item.id, Fact.NOT_SENT, _unroutable(celery, len(copies)))
        return messages

    def queue(self, name: str, channel: Any) -> Any:
        """The queue as a Celery producer would declare it on this channel."""
        return self._app.amqp.queues[name].bind(channel)

    def _options(self, celery: CelerySpec) -> Mapping[str, Any]:
        options = {
            # Bound to the channel here: Celery would bind it again for each message.
            "queue": self.queue(celery.queue, self._channel),
            "declare": None if self._declare else [],
            "exchange": celery.exchange,
            "routing_key": celery.routing_key,
            "priority": celery.priority,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _copies(
        self, send: Send, celery: CelerySpec, options: Mapping[str, Any]
    ) -> Sequence[tuple[str, _Payload]]:
        """The queue and the encoded message, for each queue that it would go to."""
        self._channel.collected = []
        values = dict(send.row.values)
        # The two halves of Celery's `send_task`: what it does besides takes longer than both, as
        # does Celery's way of showing the arguments.
        message = self._app.amqp.as_task_v2(
            send.item.id,
            celery.task,
            kwargs=values,
            expires=send.expires_at,
            time_limit=send.time_limit.total_seconds() if send.time_limit else None,
            argsrepr="()",
            kwargsrepr=_shown(values),
            ignore_result=None,
            reply_to=self._app.thread_oid,
        )
        # An error does not mean that nothing was sent: the ledger decides what is repeated.
        self._app.amqp.send_task_message(
            self._producer,
            celery.task,
            message,
            headers={**celery.headers, HEADER: send.item.id},
            retry=False,
            expiration=_expiration(send),
            **options,
        )
        return self._channel.collected


def _shown(values: Mapping[str, Any]) -> str:
    """What Flower and a worker's log show of the arguments; as long as Celery's own at most."""
    shown = repr(values)
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."


def _expiration(send: Send) -> float | None:
    """In how many seconds a broker that knows of such things may drop the message."""
    if send.expires_at is None:
        return None
    return max(0.0, (send.expires_at - datetime.now(UTC)).total_seconds())


def _unroutable(celery: CelerySpec, queues: int) -> str:
    return (
        f"exchange {celery.exchange!r} with routing key {celery.routing_key!r} leads to {queues} "
        "queues, expected 1: is a worker running that declares it?"
    )
