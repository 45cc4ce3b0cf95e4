"""Publishing to kombu's SQLAlchemy broker, a batch in one transaction."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from kombu.connection import Connection
from kombu.transport import sqlalchemy as kombu_sqlalchemy
from kombu.transport.sqlalchemy.models import metadata
from kombu.utils.json import dumps
from sqlalchemy import URL, Table, func, insert, select
from sqlalchemy import Connection as Transaction
from sqlalchemy.exc import OperationalError

from scannerjob.model.facts import Backlog, Fact, Observation, Send
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.targets.celery.database import open_engine
from scannerjob.targets.celery.delivery import Delivery
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.messages import Composer, Message


class _Channel(kombu_sqlalchemy.Channel):
    """Finds a message's queue as any Celery producer does, and touches no database.

    kombu's own opens the database under a lock that all its databases share: one that hangs would
    stop the others.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.collected: list[tuple[str, str]] = []
        super().__init__(*args, **kwargs)

    # kombu's own channels do not agree on the second parameter's name.
    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        self.collected.append((queue, dumps(payload)))

    def _new_queue(self, queue: str, **_: Any) -> None:
        """Nothing: the queue's row is made with its first message."""

    def _size(self, queue: str) -> int:
        return 0


class _Transport(kombu_sqlalchemy.Transport):
    Channel = _Channel


class SqlBroker:
    """A connection to a SQLAlchemy broker, for the use of one thread.

    Every method raises what SQLAlchemy raises; whatever it had not committed was not sent.
    """

    def __init__(self, endpoint: Endpoint, database: URL) -> None:
        self._endpoint = endpoint
        connection = Connection("localhost", transport=_Transport)
        self._channel = connection.transport.create_channel(connection.transport)
        self._composer: Composer[str] = Composer(self._channel)
        self._queues: Table = self._channel.queue_cls.__table__
        self._messages: Table = self._channel.message_cls.__table__
        self._engine = open_engine(database, endpoint.tls)

    def contact(self) -> bool:
        """Make sure that the database answers and has kombu's tables; it keeps no records."""
        metadata.create_all(self._engine)
        return False

    def publish(self, sends: Sequence[Send], celery: CelerySpec, delivery: Delivery) -> None:
        """Put one message for each send, all or none of them. Call `contact` before.

        A crash before the commit leaves none; after it, messages of which the caller does not know.
        """
        messages = self._composer.compose_all(sends, celery, delivery)
        if not messages:
            return
        with self._engine.connect() as transaction:
            self._insert(transaction, messages)
            delivery.hand_over([message.id for message in messages])
            verdict = self._commit(transaction)
        for message in messages:
            delivery.answer(message.id, *verdict)

    def _insert(self, transaction: Transaction, messages: Sequence[Message[str]]) -> None:
        queues = {name: self._queue_id(transaction, name) for name in {m.queue for m in messages}}
        rows = [{"payload": m.payload, "queue_id": queues[m.queue]} for m in messages]
        transaction.execute(insert(self._messages), rows)

    def _queue_id(self, transaction: Transaction, name: str) -> int:
        known = transaction.scalar(select(self._queues.c.id).where(self._queues.c.name == name))
        if known is not None:
            return int(known)
        transaction.execute(insert(self._queues).values(name=name))
        return self._queue_id(transaction, name)

    def _commit(self, transaction: Transaction) -> tuple[Fact, str | None]:
        try:
            transaction.commit()
        except OperationalError as error:
            if not _is_locked(error):
                raise
            # Readers kept SQLite from committing; what it holds is taken back here.
            transaction.rollback()
            return Fact.NOT_SENT, self._endpoint.describe(error)
        return Fact.ACCEPTED, None

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Nothing: there are no records of sends here."""
        return {}

    def look(self, queue: str) -> Backlog | None:
        """What waits in a queue: messages that were taken stay, but are visible no more."""
        of_queue = self._messages.join(self._queues, self._messages.c.queue_id == self._queues.c.id)
        waiting = (
            select(func.count())
            .select_from(of_queue)
            .where(self._queues.c.name == queue, self._messages.c.visible)
        )
        with self._engine.connect() as transaction:
            return Backlog(queue, int(transaction.scalar(waiting) or 0))

    def close(self) -> None:
        """Drop the connection."""
        self._engine.dispose()


def _is_locked(error: OperationalError) -> bool:
    code = getattr(error.orig, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite3.SQLITE_BUSY
