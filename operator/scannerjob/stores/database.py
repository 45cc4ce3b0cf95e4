"""The database a ledger is kept in: its URL, its connections, and how to speak of its errors."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from scannerjob.drivers import connect_args
from scannerjob.ports import ConfigurationError
from scannerjob.tls import database_arguments
from scannerjob.urls import error_line, host_of, parse_database_url

POOL_SIZE = 8

# SQLite's locks and the memory its processes share do not reach other hosts.
_NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "beegfs", "gpfs", "glusterfs"}
    | {"fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.s3fs", "fuse.gcsfuse", "fuse.rclone"}
)


class Database:
    """Connections to the database of a URL; `str()` of it says where that is, and no more."""

    def __init__(
        self, url: str, timeout: float, prepare: Callable[[Engine], None], *, create: bool = True
    ) -> None:
        """Raises ConfigurationError where the URL cannot be used. Connects to nothing yet.

        `prepare` is called before the first use and must be harmless if called again. Without
        `create` a SQLite file must be there.
        """
        self._text = url
        self._url = parse_database_url(url)
        self._file = _File(Path(str(self._url.database)), create) if _is_sqlite(self._url) else None
        self._engine = _engine(self._url, timeout, create)
        self._prepare = prepare
        self._prepared = False

    def __str__(self) -> str:
        return host_of(self._text)

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

    def describe(self, error: Exception) -> str:
        """The first line of what the driver says, without the URL's user and password."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        return error_line(str(cause) or type(cause).__name__, self._text)

    def close(self) -> None:
        """Close the connections in the pool."""
        self._engine.dispose()


class _File:
    """A SQLite file, which must stay the same one while it is used.

    SQLite goes on in a file that was removed, and a second process would begin another in its
    place: two ledgers, and twice the cap.
    """

    def __init__(self, path: Path, create: bool) -> None:
        self._path = path.absolute()
        self._identity: tuple[int, int] | None = None
        if not create and not self._path.is_file():
            raise no_ledger(f"the file {self._path}, which does not exist")
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


def no_ledger(place: str) -> ConfigurationError:
    """What is said where a ledger was expected."""
    return ConfigurationError(
        "NoLedger",
        f"no ledger is in {place}: expected the URL that `scannerjob run` was given as --state",
    )


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


def _engine(url: URL, timeout: float, create: bool) -> Engine:
    engine = create_engine(
        url,
        connect_args={**connect_args(url, timeout), **database_arguments(url, None)},
        isolation_level="AUTOCOMMIT",
        pool_size=POOL_SIZE,
        pool_pre_ping=True,
        hide_parameters=True,
    )
    if _is_sqlite(url):
        event.listen(engine, "connect", _do_not_lose)
    if _is_sqlite(url) and create:
        event.listen(engine, "connect", _do_not_block)
    return engine


def _do_not_lose(connection: Any, _: Any) -> None:
    """A power cut loses no commit."""
    connection.execute("PRAGMA synchronous = FULL")


def _do_not_block(connection: Any, _: Any) -> None:
    """Readers and the writer do not block each other. It stays so: not in a file of others."""
    connection.execute("PRAGMA journal_mode = WAL")
