"""Clients of Redis whose questions end within seconds, and what messages call their server."""

from __future__ import annotations

from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT = 5.0
"""In seconds: how long a connection is waited for at most, and an answer unless told otherwise."""


def open_redis(
    url: str, *, timeout: float = TIMEOUT, retry: Retry | None = None, **options: Any
) -> Redis:
    """A client that connects with its first question, and waits `timeout` seconds for an answer.

    Without `retry` it asks nothing again. `options` are redis-py's; those in the URL go first.
    """
    return Redis.from_url(
        url,
        socket_connect_timeout=min(timeout, TIMEOUT),
        socket_timeout=timeout,
        retry=retry or Retry(NoBackoff(), 0),
        **options,
    )


def place(client: Redis) -> str:
    """Where a client's Redis is, for people."""
    pool = client.connection_pool
    told = pool.connection_kwargs
    # A client of Sentinel's knows no host, but what the server is called.
    host = told.get("host") or getattr(pool, "service_name", "localhost")
    where = told.get("path") or f"{host}:{told.get('port', 6379)}"
    return f"Redis {where}/{told.get('db') or 0}"
