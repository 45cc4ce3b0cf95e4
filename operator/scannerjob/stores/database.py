"""The database a ledger is kept in: its URL, its connections, and how to speak of its errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from scannerjob.ports import ConfigurationError

POOL_SIZE = 8

_DRIVERS = {
    "sqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
# SQLite's locks and the memory its processes share do not reach other hosts.
_NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "gpfs", "glusterfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
)


class Database:
    """Connections to the database of a URL; `str()` of it shows no user and no password."""

    def __init__(self, url: str, timeout: float, prepare: Callable[[Engine], None]) -> None:
        """Raises ConfigurationError where the URL cannot be used. Connects to nothing yet.

        `prepare` is called before the first use and must be harmless if called again.
        """
        self._url = _parse(url)
        self._file = _File(Path(str(self._url.database))) if _is_sqlite(self._url) else None
        self._engine = _engine(self._url, timeout)
        self._prepare = prepare
        self._prepared = False

    def __str__(self) -> str:
        url = self._url
        shown = URL.create(
            url.get_backend_name(), host=url.host, port=url.port, database=url.database
        )
        return str(shown)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """A connection from the pool, tried before it is handed out.

        Raises SQLAlchemyError, and ConfigurationError where a file in use is no longer there.
        """
        if self._file:
            self._file.check()
        if not self._prepared:
            self._prepare(self._engine)
            self._prepared = True
        with self._engine.connect() as connection:
            yield connection

    def describe(self, error: SQLAlchemyError) -> str:
        """The first line of what the driver says, without the URL's user and password."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        line = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        for secret in filter(None, (self._url.username, self._url.password)):
            line = re.sub(rf"(?<!\w){re.escape(str(secret))}(?!\w)", "***", line)
        return line

    def close(self) -> None:
        """Close the connections in the pool."""
        self._engine.dispose()


class _File:
    """A SQLite file, which must stay the same one while it is used.

    SQLite goes on in a file that was removed, and a second process would begin another in its
    place: two ledgers, and twice the cap.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._identity: tuple[int, int] | None = None
        if not self._path.parent.is_dir():
            raise ConfigurationError(
                "InvalidURL", f"ledger file {self._path}: its directory does not exist; create it"
            )
        filesystem = filesystem_of(self._path, Path("/proc/mounts"))
        if filesystem in _NETWORK_FILESYSTEMS:
            raise ConfigurationError(
                "NetworkFilesystem",
                f"ledger file {self._path} is on a network filesystem ({filesystem}), where SQLite "
                "cannot lock: use a local disk, or a PostgreSQL or MariaDB database",
            )

    def check(self) -> None:
        """Raises ConfigurationError if the file is not the one that was there at the first call."""
        identity = self._look()
        if self._identity is None:
            self._identity = identity
        elif identity != self._identity:
            raise ConfigurationError(
                "LedgerLost",
                f"ledger file {self._path} was removed or replaced while it was in use: put it "
                "back, or restart to begin a new one once nothing that was launched still runs",
            )

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino


def filesystem_of(path: Path, mounts: Path) -> str | None:
    """The type of the filesystem `path` is on, by a table such as /proc/mounts; None if unknown."""
    if not mounts.exists():
        return None
    folder = Path(os.path.realpath(path.parent))
    longest, found = 0, None
    for line in mounts.read_text().splitlines():
        _, place, kind, *_ = line.split(" ")
        place = _unescape(place)
        # Of two mounts at one place, the later hides the earlier.
        if folder.is_relative_to(place) and len(place) >= longest:
            longest, found = len(place), kind
    return found


def _unescape(place: str) -> str:
    """A path as /proc/mounts writes it: blanks and backslashes are octal there (getmntent(3))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), place)


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _parse(url: str) -> URL:
    """The URL with the driver that is installed; no part of it is shown if it is refused."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _invalid("cannot be read: expected DIALECT://USER:PASSWORD@HOST/DATABASE") from None
    driver = _DRIVERS.get(parsed.get_backend_name())
    if driver is None or parsed.drivername not in {parsed.get_backend_name(), driver}:
        known = ", ".join(_DRIVERS)
        raise _invalid(f"begins with {parsed.drivername}: expected one of {known}")
    if _is_sqlite(parsed) and parsed.database in (None, "", ":memory:"):
        raise _invalid("would keep it in memory: expected sqlite:///PATH")
    return parsed.set(drivername=driver)


def _invalid(what: str) -> ConfigurationError:
    return ConfigurationError("InvalidURL", f"the ledger's URL {what}")


def _engine(url: URL, timeout: float) -> Engine:
    engine = create_engine(
        url,
        connect_args=_connect_args(url, timeout),
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    if _is_sqlite(url):
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _connect_args(url: URL, timeout: float) -> dict[str, Any]:
    match url.get_backend_name():
        case "sqlite":
            return {"timeout": timeout}  # how long to wait for another process's write
        case "postgresql":
            return {
                "connect_timeout": max(2, round(timeout)),
                "tcp_user_timeout": round(timeout * 1000),
                "keepalives_idle": max(1, round(timeout)),
                # PgBouncer in transaction mode knows no prepared statements of ours.
                "prepare_threshold": None,
            }
        case _:
            return {f"{step}_timeout": timeout for step in ("connect", "read", "write")}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """WAL: readers and the writer do not block each other. FULL: a power cut loses no commit."""
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()
