"""Databases that Celery uses: the tables of kombu's broker and of the result backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import URL, Engine, create_engine

_TIMEOUT = 5


def open_engine(url: URL, tls: Mapping[str, Any]) -> Engine:
    """One connection at a time to a database, tried before each use; connects to nothing yet.

    `tls` is what its driver is told of TLS.
    """
    return create_engine(
        url,
        connect_args={**_connect_args(url), **tls},
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
    )


def _connect_args(url: URL) -> dict[str, Any]:
    match url.get_backend_name():
        case "sqlite":
            return {"timeout": _TIMEOUT}  # how long another process's lock is waited for
        case "postgresql":
            return {
                "connect_timeout": _TIMEOUT,
                "tcp_user_timeout": _TIMEOUT * 1000,
                "keepalives_idle": _TIMEOUT,
                # PgBouncer in transaction mode knows no prepared statements of ours.
                "prepare_threshold": None,
            }
        case _:
            return {
                # PyMySQL would encode a text as Latin-1; other clients have it in UTF-8.
                "password": (url.password or "").encode(),
                **{f"{step}_timeout": _TIMEOUT for step in ("connect", "read", "write")},
            }
