"""What the tests of Celery on Redis begin with."""

from collections.abc import Iterator

import pytest
import redis

from scannerjob.targets.celery import CeleryTarget
from tests.support.celery_target import opened
from tests.support.servers import RedisServer


@pytest.fixture
def target(redis_url: str) -> CeleryTarget:
    """A target whose broker is the session's Redis."""
    return opened(redis_url)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """A client of the session's Redis."""
    with redis_server.client() as client:
        yield client
