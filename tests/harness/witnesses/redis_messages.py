"""What Redis tells of the messages it is given, by MONITOR."""

from __future__ import annotations

import base64
import json
import re
import socket
from collections.abc import Generator, Iterator, Sequence
from typing import Any
from uuid import uuid4

import redis

from tests.harness.witnesses.listener import Listener
from tests.harness.witnesses.messages import message_of
from tests.support.waiting import eventually

_PATIENCE = 5.0
# Only the operator publishes by a script: Celery, and kombu when it gives a message again, do not.
_LINE = re.compile(r'\+([\d.]+) \[(\d+) lua\] "LPUSH" "(?:[^"\\]|\\.)*" "(.*)"\r\n', re.DOTALL)
_ESCAPE = re.compile(r"\\(x[0-9a-f]{2}|.)")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "a": "\a", "b": "\b"}


class RedisMessages(Listener):
    """The messages of one numbered database, put into whatever queue, by Redis' own clock.

    A push that fails for its key's type is shown as one that did not.
    """

    def __init__(self, url: str, key: Sequence[str] = ("item",)) -> None:
        super().__init__()
        self._key = key
        self._url = url
        self._where = redis.connection.parse_url(url)  # type: ignore[no-untyped-call]
        self._echoes: set[str] = set()

    def wait_caught_up(self, timeout: float = 60) -> None:
        """Wait until all was heard that happened before this was called."""
        token = str(uuid4())
        with redis.Redis.from_url(self._url, socket_timeout=_PATIENCE) as client:
            eventually(
                lambda: client.echo(token) and token in self._echoes,
                timeout,
                message="all that Redis did was heard",
                ignoring=(redis.RedisError, OSError),
            )

    def _hear(self) -> Generator[None, None, None]:
        place = self._where["host"], self._where["port"]
        connection = socket.create_connection(place, _PATIENCE)
        with connection as self._socket, connection.makefile("rb") as lines:
            for command in self._greeting():
                connection.sendall(f"{command}\r\n".encode())
                if (reply := lines.readline()) != b"+OK\r\n":
                    raise ConnectionError(f"Redis answers {reply!r}")
            connection.settimeout(None)
            yield
            for line in lines:
                self._note(line.decode())
                yield
        raise ConnectionError("Redis has closed the connection")

    def _greeting(self) -> Iterator[str]:
        names = (self._where.get("username"), self._where.get("password"))
        if any(names):
            yield " ".join(["AUTH", *filter(None, names)])
        yield "MONITOR"

    def _note(self, line: str) -> None:
        if found := _LINE.fullmatch(line):
            time, database, payload = found.groups()
            if int(database) == self._where.get("db", 0):
                self._note_message(float(time), json.loads(_unescaped(payload)))
        elif '"ECHO"' in line:
            self._echoes.add(line.split('"')[-2])

    def _note_message(self, time: float, found: dict[str, Any]) -> None:
        body = base64.b64decode(found["body"])
        if message := message_of(time, found["headers"], body, self._key):
            self._messages.append(message)


def _unescaped(text: str) -> str:
    """What Redis shows as `text`: UTF-8, with escapes as in C."""

    def plain(found: re.Match[str]) -> str:
        escape = found[1]
        return chr(int(escape[1:], 16)) if len(escape) == 3 else _CONTROLS.get(escape, escape)

    return _ESCAPE.sub(plain, text).encode("latin-1").decode()
