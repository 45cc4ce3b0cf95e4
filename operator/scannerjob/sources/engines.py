"""One engine for each database, its calls in threads of its own, and a deadline for each call."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import SourceError
from scannerjob.sources.dialects import POOL_SIZE, Dialect, dialect_of
from scannerjob.sources.sockets import bytes_received, shut_down
from scannerjob.sources.sql import SqlSource
from scannerjob.threads import Threads
from scannerjob.tls import TLS_FAILED, CertificateFiles, database_arguments, explain
from scannerjob.urls import endpoint_identity, error_line, host_of, parse_database_url

_Result = TypeVar("_Result")
# A URL, and the certificates with which it is gone to.
_Place = tuple[str, CertificateFiles | None]

# The server is given so much longer to end a query by itself, which tells more than our giving up.
_MARGIN_SECONDS = 1.0
# As much as a thousand of the largest rows that can be sent. What a driver makes of them takes a
# few times as much memory.
MAX_BYTES = 64 * 1024**2
_WATCH_SECONDS = 0.02


class Databases:
    """The databases of all ScannerJobs: equal URLs with equal certificates share connections.

    In a cluster SQLite files and superusers are refused: the first belong to one machine, the
    second could run programs on the database's.
    """

    def __init__(self, *, in_cluster: bool = False) -> None:
        self._in_cluster = in_cluster
        # A database that no source refers to any more, as after a new password, closes by itself.
        self._servers: weakref.WeakValueDictionary[_Place, Server] = weakref.WeakValueDictionary()

    def open(
        self, url: str, spec: ScannerJobSpec, files: CertificateFiles | None = None
    ) -> SqlSource:
        """The rows of this spec's query; connects to nothing yet. Raises ConfigurationError.

        Keep it as long as these are the same: it remembers what it learned of the query.
        """
        place = url, files
        server = self._servers.get(place)
        if server is None:
            server = self._servers[place] = Server(url, files, in_cluster=self._in_cluster)
        return SqlSource(server, spec)

    def close(self) -> None:
        """Close the connections that are not in use; the others close when they are given back."""
        for server in list(self._servers.values()):
            server.close()


class Server:
    """One database: its connections, and the threads that wait for it.

    A database that hangs keeps its own threads waiting, and nobody else.
    """

    def __init__(
        self, url: str, files: CertificateFiles | None = None, *, in_cluster: bool
    ) -> None:
        """Raises ConfigurationError where the URL cannot be used, or not with certificates."""
        parsed = parse_database_url(url, local_files=not in_cluster)
        self.in_cluster = in_cluster
        self.identity = endpoint_identity(url)
        self.dialect: Dialect = dialect_of(parsed)
        self._url = url
        self._host = host_of(url)
        self._files = files
        self._engine = self.dialect.engine(parsed, database_arguments(parsed, files))
        self._threads = Threads(POOL_SIZE)
        self._finalizer = weakref.finalize(self, self._engine.dispose)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._finalizer()

    async def run(self, work: Callable[[Connection], _Result], seconds: float) -> _Result:
        """What `work` gives, within little more than so many seconds. Raises SourceError."""
        call = _Call(self.dialect.socket)
        driver_error = self._engine.dialect.loaded_dbapi.Error
        watching = asyncio.create_task(call.watch())
        try:
            return await self._threads.run(
                lambda: self._retried(call, work), seconds + _MARGIN_SECONDS
            )
        except TimeoutError:
            raise self._late(call, seconds) from None
        except (SQLAlchemyError, driver_error, OSError, UnicodeError) as error:
            raise self._explained(error, call) from None
        finally:
            watching.cancel()
            call.abandon()

    def _retried(self, call: _Call, work: Callable[[Connection], _Result]) -> _Result:
        """A connection may have died in the pool: then once more, with a new one."""
        try:
            return self._once(call, work)
        except DBAPIError as error:
            if not error.connection_invalidated or call.abandoned:
                raise
        return self._once(call, work)

    def _once(self, call: _Call, work: Callable[[Connection], _Result]) -> _Result:
        call.stage = Stage.CONNECTING
        with self._engine.connect() as connection, call.using(connection):
            return work(connection)

    def _late(self, call: _Call, seconds: float) -> SourceError:
        match call.stage:
            case Stage.WAITING:
                what = f"all {POOL_SIZE} connections to it are in use and do not come back"
                return SourceError("DatabaseUnreachable", f"{self._host}: {what}")
            case Stage.CONNECTING:
                what = "it gave no answer to an attempt to connect"
                return SourceError("DatabaseUnreachable", f"{self._host}: {what}")
            case Stage.RUNNING:
                what = f"no answer to the query within queryTimeout ({seconds:g} s)"
                return SourceError("QueryTimeout", f"{self._host}: {what}")

    def _explained(self, error: Exception, call: _Call) -> SourceError:
        """An error of SQLAlchemy's or of a driver's, in one line that shows no secret."""
        if call.too_large:
            what = f"the rows take more than {MAX_BYTES // 1024**2} MiB: select less of each"
            return SourceError("ResultTooLarge", f"{self._host}: {what}")
        invalidated = isinstance(error, DBAPIError) and error.connection_invalidated
        cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
        if meaning := self._explained_by_tls(cause, call):
            return SourceError(TLS_FAILED, f"{self._host}: {meaning}")
        reason = self.dialect.reason(cause)
        if invalidated or (reason is None and call.stage is not Stage.RUNNING):
            reason = "DatabaseUnreachable"
        if reason == "AuthenticationFailed":
            # What databases say of this names the user.
            message = (
                "the user or the password is refused, has no right to this database, or none "
                "without a client certificate"
            )
        else:
            message = error_line(self.dialect.message(cause), self._url)
        return SourceError(reason or "QueryFailed", f"{self._host}: {message}")

    def _explained_by_tls(self, cause: BaseException, call: _Call) -> str | None:
        """Not of a query's own error, which may quote anything."""
        connecting = call.stage is not Stage.RUNNING
        return explain(self.dialect.message(cause), self._url) if connecting else None


class Stage(Enum):
    """How far a call has come."""

    WAITING = auto()
    CONNECTING = auto()
    RUNNING = auto()


class _Call:
    """One call in a thread, and how to end it from outside.

    `socket` gives the file descriptor of a driver's connection, if it has one.
    """

    def __init__(self, socket: Callable[[Any], int | None]) -> None:
        self.stage = Stage.WAITING
        self.abandoned = False
        self.too_large = False
        self._socket = socket
        self._connection: Any = None
        self._received_before = 0
        self._lock = threading.Lock()

    @contextmanager
    def using(self, connection: Connection) -> Iterator[None]:
        """Note that this connection is the one to sever, until it goes back to the pool."""
        with self._lock:
            if self.abandoned:
                raise TimeoutError("nobody waits for this call any more")
            self._connection = connection.connection.dbapi_connection
            self._received_before = self._received()
        self.stage = Stage.RUNNING
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    async def watch(self) -> None:
        """End it once more has come than one call may bring. Drivers take whatever comes."""
        while not self.too_large:
            await asyncio.sleep(_WATCH_SECONDS)
            with self._lock:
                self.too_large = self._received() - self._received_before > MAX_BYTES
        self.abandon()

    def abandon(self) -> None:
        """Nobody waits for it any more: free its thread. Harmless after its end."""
        with self._lock:
            self.abandoned = True
            if (descriptor := self._descriptor()) is not None:
                with suppress(OSError):
                    shut_down(descriptor)

    def _received(self) -> int:
        descriptor = self._descriptor()
        return (bytes_received(descriptor) or 0) if descriptor is not None else 0

    def _descriptor(self) -> int | None:
        # Whatever a driver raises of a connection that it has closed.
        with suppress(Exception):
            return self._socket(self._connection) if self._connection is not None else None
        return None
