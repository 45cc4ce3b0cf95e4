"""Databases that Celery uses: the tables of kombu's broker and of the result backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine

from scannerjob.drivers import connect_args

# In seconds.
_TIMEOUT = 5


def open_engine(url: URL, tls: Mapping[str, Any]) -> Engine:
    """One connection at a time to a database, tried before each use; connects to nothing yet.

    `tls` is what its driver is told of TLS.
    """
    return create_engine(
        url,
        connect_args={**connect_args(url, _TIMEOUT), **tls},
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )
