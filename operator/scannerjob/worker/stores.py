"""Opening the guard's store by its URL. Every question to it ends within seconds, one way or other.

Nothing is tried again by itself: the guard does that, and knows for how long.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis import Redis

from scannerjob.worker.errors import StoreError
from scannerjob.worker.records import Store
from scannerjob.worker.redis_client import TIMEOUT, open_redis

_REDIS = "redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER] (rediss:// with TLS)"
_SQL = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")
_TLS_OPTIONS = frozenset(
    {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
)
_NO = ("false", "no", "0", "off")


def open_store(url: str) -> Store:
    """The store that a URL names: Redis, or a database that SQLAlchemy can open.

    It connects with the first question, and may be opened before a process forks. Raises StoreError
    where the URL cannot be used, without any part of it.
    """
    scheme = url.strip().partition(":")[0]
    if scheme in ("redis", "rediss"):
        from scannerjob.worker.redis_store import RedisStore

        return RedisStore(open_client(url))
    if scheme.partition("+")[0] in _SQL:
        return _open_sql(url)
    databases = ", ".join(f"{name}://" for name in _SQL)
    raise StoreError(f"the guard's URL must begin with redis://, rediss://, {databases}")


def _open_sql(url: str) -> Store:
    try:
        from scannerjob.worker.sql_engine import open_engine
        from scannerjob.worker.sql_store import SqlStore
    except ImportError:
        what = "the guard's URL is that of a database, and SQLAlchemy is not installed"
        raise StoreError(f"{what}: pip install 'sqlalchemy>=2' and the database's driver") from None
    return SqlStore(open_engine(url, timeout=TIMEOUT), timeout=TIMEOUT)


def open_client(url: str) -> Redis:
    """A client of the Redis that the guard's URL names; otherwise as `open_store`."""
    url = url.strip()
    address, _, query = url.partition("?")
    options = dict(parse_qsl(query))
    _check_redis(url, options)
    tls = _tls(options) if url.startswith("rediss") else {}
    return open_redis(address, timeout=TIMEOUT, socket_keepalive=True, **tls)


def _check_redis(url: str, options: Mapping[str, str]) -> None:
    try:
        parts = urlsplit(url)
        readable = parts.port != 0 and (parts.path.strip("/") or "0").isdecimal()
    except ValueError:
        readable = False
    # An @ elsewhere belongs to a password that was not encoded.
    if not readable or url.count("@") != ("@" in parts.netloc) or parts.fragment:
        what = "special characters in USER and PASSWORD percent-encoded (@ is %40, / is %2F)"
        raise StoreError(f"the guard's URL cannot be read: expected {_REDIS}, {what}")
    if options and parts.scheme == "redis":
        raise StoreError("the guard's URL has options of TLS: it must begin with rediss://")
    if not _TLS_OPTIONS.issuperset(options):
        known = ", ".join(sorted(_TLS_OPTIONS))
        raise StoreError(f"the guard's URL has options beside {known}")


def _tls(options: Mapping[str, str]) -> dict[str, Any]:
    """In redis-py's words; the host is checked unless the URL says otherwise, in all versions."""
    # Celery writes CERT_NONE where redis-py has none.
    demand = options.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    if demand not in ("required", "optional", "none"):
        raise StoreError("the guard's URL has an ssl_cert_reqs beside required, optional, none")
    checked = options.get("ssl_check_hostname", "yes").lower() not in _NO and demand != "none"
    return {**options, "ssl_cert_reqs": demand, "ssl_check_hostname": checked}
