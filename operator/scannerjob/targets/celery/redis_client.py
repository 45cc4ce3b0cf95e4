"""Clients of Redis that fail, and do not try again by themselves."""

from __future__ import annotations

from redis import Redis

from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.worker import redis_client


def open_redis(
    endpoint: Endpoint, *, socket_timeout: float, health_check_interval: int = 0
) -> Redis:
    """A client that waits so many seconds for an answer; it connects with the first question."""
    return redis_client.open_redis(
        endpoint.bare_url,
        timeout=socket_timeout,
        health_check_interval=health_check_interval,
        **endpoint.tls,
    )
