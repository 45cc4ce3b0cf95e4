"""What drivers of databases are told beside a URL, wherever one is connected to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL


def connect_args(url: URL, timeout: float) -> dict[str, Any]:
    """Arguments by which no call to a database outlasts so many seconds by much."""
    match url.get_backend_name():
        case "sqlite":
            return {"timeout": timeout}  # how long another process's lock is waited for
        case "postgresql":
            return {
                "connect_timeout": max(2, round(timeout)),
                "tcp_user_timeout": round(timeout * 1000),
                "keepalives_idle": max(1, round(timeout)),
                # PgBouncer in transaction mode knows no prepared statements of ours.
                "prepare_threshold": None,
            }
        case _:
            return {
                "password": mysql_password(url),
                **{f"{step}_timeout": timeout for step in ("connect", "read", "write")},
            }


def mysql_password(url: URL) -> bytes:
    """In UTF-8, as other clients have it: PyMySQL would encode a text as Latin-1."""
    return (url.password or "").encode()
