"""The messages in kombu's tables, recorded by the database itself."""

# kombu is typed in part only.
# mypy: allow-untyped-calls

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any, Self

from kombu.connection import Connection
from sqlalchemy import Column, Row, Text

from tests.harness.witnesses.messages import message_of
from tests.harness.witnesses.recorded import NOW, Recorded, triggers
from tests.proof.history import Gap, Message

_TABLE = "witness_message"


class SqlMessages:
    """The messages of a broker such as `sqla+postgresql+psycopg://...`, as they were committed.

    None is missed, whether the database was away or not. Use it as a context manager.
    """

    def __init__(self, url: str, key: Sequence[str] = ("item",)) -> None:
        self._url = url
        self._key = key
        self._messages: list[Message] = []
        self._recorded = Recorded(url.removeprefix("sqla+"), _TABLE, Column("payload", Text))

    def messages(self) -> list[Message]:
        """What the operator published."""
        return list(self._messages)

    def gaps(self) -> list[Gap]:
        """None: what is committed is recorded."""
        return []

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was seen that was committed before this was called."""
        self._recorded.wait_caught_up(timeout)

    def __enter__(self) -> Self:
        _make_tables(self._url)
        self._recorded.start(_statements(self._recorded.dialect), self._see)
        return self

    def __exit__(self, *_: object) -> None:
        self._recorded.stop()

    def _see(self, time: float, row: Row[Any]) -> None:
        found = json.loads(row.payload)
        body = base64.b64decode(found["body"])
        message = message_of(time, found["headers"], body, self._key)
        # One that a worker did not acknowledge is put again.
        if message and not found.get("redelivered"):
            self._messages.append(message)


def _make_tables(url: str) -> None:
    with Connection(url) as connection:
        connection.channel().session.get_bind().dispose()


def _statements(dialect: str) -> Iterator[str]:
    copy = f"INSERT INTO {_TABLE} (at, payload) SELECT {NOW[dialect]}, NEW.payload"
    return triggers(dialect, _TABLE, "INSERT ON kombu_message", copy)
