"""Connections to a guard's store that is a database: PostgreSQL, MySQL, MariaDB or SQLite."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from threading import Thread
from typing import Any, TypeVar

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import Pool

from scannerjob.worker.errors import StoreError

_Result = TypeVar("_Result")

# For each kind, the module to look for and SQLAlchemy's name; the first that is installed is taken.
_DRIVERS = {
    "postgresql": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
    "mysql": {"pymysql": "pymysql", "MySQLdb": "mysqldb"},
    "sqlite": {"sqlite3": "pysqlite"},
}
# SQLAlchemy's mariadb dialect refuses a MySQL server, its mysql dialect speaks to both.
_SAME = {"postgres": "postgresql", "mariadb": "mysql"}

# What a child has inherited: some drivers would end its parent's sessions with the last reference.
_inherited: list[Pool] = []


def open_engine(text: str, *, timeout: float, tls: Mapping[str, Any] | None = None) -> Engine:
    """An engine that connects with its first use, commits each statement, and may be forked.

    `tls` is what the driver is told of TLS beside the URL. Raises StoreError where the URL cannot
    be used, without any part of it.
    """
    url = _parse(text)
    engine = create_engine(
        url,
        connect_args={**_connect_args(url, timeout), **(tls or {})},
        isolation_level="AUTOCOMMIT",
        pool_pre_ping=True,
        # One after the other goes to the same server, where an address stands for several.
        pool_use_lifo=True,
        pool_timeout=timeout,
        hide_parameters=True,
    )
    if url.get_backend_name() == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    _leave_to_parent(engine)
    return engine


def within(timeout: float, work: Callable[[], _Result]) -> _Result:
    """What `work` returns or raises; TimeoutError, and it is left to itself, if it takes longer.

    libpq waits for ever for a server that is frozen.
    """
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where it was asked for
            errors.append(error)

    thread = Thread(target=run, name="scannerjob-store", daemon=True)
    thread.start()
    thread.join(timeout)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"no answer within {timeout:g} s")
    return results[0]


def _parse(text: str) -> URL:
    text = text.strip()
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise _unreadable() from None
    family, _, driver = url.drivername.partition("+")
    family = _SAME.get(family, family)
    if family not in _DRIVERS:
        raise StoreError(f"the guard's URL must be one of {', '.join(_DRIVERS)}")
    stray = text.count("@") != (url.username is not None)
    if (stray and family != "sqlite") or not url.database or url.database == ":memory:":
        raise _unreadable()
    return url.set(drivername=f"{family}+{_driver(family, driver)}")


def _unreadable() -> StoreError:
    expected = "DIALECT://USER:PASSWORD@HOST:PORT/DATABASE or sqlite:///PATH"
    encode = "special characters in USER and PASSWORD percent-encoded (@ is %40, / is %2F)"
    return StoreError(f"the guard's URL cannot be read: expected {expected}, {encode}")


def _driver(family: str, asked: str) -> str:
    drivers = _DRIVERS[family]
    installed = [name for module, name in drivers.items() if find_spec(module)]
    known = ", ".join(drivers.values())
    if asked and asked not in drivers.values():
        raise StoreError(f"the guard's URL names the driver {asked}; supported: {known}")
    if not asked and not installed:
        raise StoreError(f"no driver for {family} is installed: install one of {known}")
    return asked or installed[0]


def _connect_args(url: URL, timeout: float) -> dict[str, Any]:
    match url.get_driver_name():
        case "pysqlite":
            return {"timeout": timeout}  # how long another process's lock is waited for
        case "psycopg":
            # PgBouncer in transaction mode knows no prepared statements of ours.
            return {**_libpq_args(timeout), "prepare_threshold": None}
        case "psycopg2":
            return _libpq_args(timeout)
        case _:
            steps = {f"{step}_timeout": round(timeout) for step in ("connect", "read", "write")}
            return {**steps, **_mysql_password(url)}


def _libpq_args(timeout: float) -> dict[str, Any]:
    return {
        "connect_timeout": max(2, round(timeout)),
        "tcp_user_timeout": round(timeout * 1000),
        "keepalives_idle": max(1, round(timeout)),
    }


def _mysql_password(url: URL) -> dict[str, bytes]:
    """In UTF-8, as other clients have it: PyMySQL would encode a text as Latin-1."""
    if url.get_driver_name() != "pymysql" or url.password is None:
        return {}
    return {"password": str(url.password).encode()}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """WAL: readers and the writer do not block each other. FULL: a power cut loses no commit."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _leave_to_parent(engine: Engine) -> None:
    """Have a child begin with connections of its own: two processes would mix up their answers."""
    reference = weakref.ref(engine)

    def forget() -> None:
        if (inherited := reference()) is not None:
            _inherited.append(inherited.pool)
            inherited.dispose(close=False)

    os.register_at_fork(after_in_child=forget)
