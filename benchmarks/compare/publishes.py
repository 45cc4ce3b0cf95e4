"""How many messages were published, as the brokers themselves tell."""

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Self
from urllib.parse import quote

import redis

from tests.support.rabbitmq import RabbitServer
from tests.support.servers import RedisServer
from tests.support.waiting import eventually

_REDELIVERED = '"redelivered": true'


class RedisPublishes:
    """Counts what is put into the queue; one that is killed is watched again once it is back."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._times: list[float] = []
        self._token = ""
        self._over = threading.Event()
        self._watching = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._watching.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def count(self) -> int:
        """How many came until now."""
        return len(self.times())

    def times(self) -> Sequence[float]:
        """When each came that came until now, by Redis's clock."""
        self._token = f"seen-{time.monotonic_ns()}"
        with self._server.client() as client:
            client.echo(self._token)
        eventually(lambda: not self._token, message="MONITOR shows our own command")
        return list(self._times)

    def waiting(self) -> int:
        """The messages in the queue."""
        with self._server.client() as client:
            return int(client.llen("celery"))

    def _watch(self) -> None:
        while not self._over.is_set():
            with suppress(redis.RedisError, OSError), self._server.client() as client:
                self._follow(client)
            time.sleep(0.01)

    def _follow(self, client: redis.Redis) -> None:
        with client.monitor() as monitor:  # type: ignore[no-untyped-call]
            self._watching.set()
            for event in monitor.listen():
                self._note(event["command"], event["time"])

    def _note(self, command: str, at: float) -> None:
        if command.startswith("LPUSH celery ") and _REDELIVERED not in command:
            self._times.append(at)
        elif command == f"ECHO {self._token}":
            self._token = ""


class RabbitPublishes:
    """What RabbitMQ counts in a virtual host; it does so every few seconds."""

    def __init__(self, server: RabbitServer, url: str) -> None:
        self._server = server
        self._path = f"queues/{quote(url.rpartition('/')[2], safe='')}/celery"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is open."""

    def count(self) -> int:
        time.sleep(6)  # as long as its statistics are behind
        return int(self._queue().get("message_stats", {}).get("publish", 0))

    def waiting(self) -> int:
        return int(self._queue()["messages_ready"])

    def _queue(self) -> dict[str, Any]:
        queue: dict[str, Any] = self._server.ask("GET", self._path)
        return queue
