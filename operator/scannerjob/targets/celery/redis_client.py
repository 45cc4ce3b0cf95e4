"""Clients of Redis that fail, and do not try again by themselves."""

from __future__ import annotations

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scannerjob.targets.celery.endpoint import Endpoint


def open_redis(
    endpoint: Endpoint, *, socket_timeout: float, health_check_interval: int = 0
) -> Redis:
    """A client that waits so many seconds for an answer; it connects with the first question."""
    return Redis.from_url(
        endpoint.bare_url,
        **endpoint.tls,
        socket_connect_timeout=5.0,
        socket_timeout=socket_timeout,
        health_check_interval=health_check_interval,
        retry=Retry(NoBackoff(), 0),
    )
