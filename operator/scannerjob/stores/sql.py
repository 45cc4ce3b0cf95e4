"""The ledger in a table of a SQL database: SQLite, PostgreSQL, MySQL or MariaDB.

Every change is one statement of its own (autocommit). No lock is ever held between two round
trips, so that a process which freezes in the middle cannot block another; and what a crash can
leave behind is named where two statements belong together.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar
from uuid import uuid4

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    Text,
    and_,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.sql import ColumnElement

from scannerjob.model.requests import MAX_NONCE
from scannerjob.ports import ConflictError, Ref, Snapshot, UnknownOutcomeError
from scannerjob.stores import reference
from scannerjob.stores.database import POOL_SIZE, Database, no_ledger
from scannerjob.threads import Threads
from scannerjob.urls import host_of

_Result = TypeVar("_Result")

# Beside the requests of model.requests: not heeded once, but true as long as it stands there.
_SUSPEND = "suspend"

# MySQL's TEXT ends at 64 KiB.
_Json = Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb")
_metadata = MetaData()


def _table(name: str, *columns: Column[Any]) -> Table:
    """A table of one row, or some, for each ScannerJob; the lengths are Kubernetes' own."""
    namespace = Column("namespace", String(63), primary_key=True)
    own_name = Column("name", String(253), primary_key=True)
    return Table(name, _metadata, namespace, own_name, *columns)


_ledger = _table(
    "scannerjob_ledger",
    Column("uid", String(36), nullable=False),
    Column("generation", Integer, nullable=False),
    Column("spec", _Json, nullable=False),
    # Compared instead of the spec: a collation may hold texts for equal that are not.
    Column("spec_hash", String(64), nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", _Json, nullable=False),
)
# What changes with the spec, beside it.
_ANOTHER_SPEC = {name: _ledger.c[name] + 1 for name in ("generation", "version")}
# Apart from the ledger: a ledger without rows whose mark is there has vanished.
_marks = _table("scannerjob_mark")
_request = _table(
    "scannerjob_request",
    Column("request", String(63), primary_key=True),
    Column("nonce", String(MAX_NONCE), nullable=False),
)


class SqlStore:
    """A LedgerStore in three tables, `scannerjob_*`, which the first call creates.

    The specs come from documents (`apply`) and are kept beside the ledgers: processes that share a
    database share the spec that was applied last. Every call takes at most `timeout` seconds, and
    raises ConfigurationError where the database cannot be used, such as a file that was removed.
    """

    def __init__(self, url: str, timeout: float = 10.0, *, create: bool = True) -> None:
        """Raises ConfigurationError where `url` cannot be used; nothing is opened yet.

        Without `create` the tables must be there, and a SQLite file too.
        """
        prepare = _create_tables if create else _require_tables
        self._database = Database(url, timeout, prepare=prepare, create=create)
        self._threads = Threads(POOL_SIZE)
        self._timeout = timeout
        self._applied: dict[Ref, str] = {}

    def __str__(self) -> str:
        return str(self._database)

    async def apply(self, document: Mapping[str, Any]) -> Ref:
        """Create the ScannerJob of this document, or give it this spec and a new generation.

        Raises UnknownOutcomeError; to apply a document again is harmless.
        """
        ref, spec = reference(document), json.dumps(document["spec"], sort_keys=True)
        self._applied[ref] = spec
        await self._call(lambda connection: _apply(connection, ref, spec))
        return ref

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        """Ask the operator for something, as `scannerjob.dev/requested-NAME: NONCE` does.

        Raises UnknownOutcomeError; to repeat a request with its nonce is harmless.
        """
        await self._call(lambda connection: _put_request(connection, ref, name, nonce))

    async def suspend(self, ref: Ref, suspended: bool) -> None:
        """Let it launch nothing, whatever its document says, until that is taken back.

        Raises UnknownOutcomeError; to repeat it is harmless.
        """
        await self._call(lambda connection: _suspend(connection, ref, suspended))

    async def list(self, namespace: str | None) -> list[Snapshot]:
        """All ScannerJobs of a namespace, or of all, that were ever applied here.

        Raises UnknownOutcomeError.
        """
        return await self._call(lambda connection: _list(connection, namespace))

    async def requests(self) -> Mapping[tuple[Ref, str], str]:
        """The nonces of all that was asked for, by what it is. Raises UnknownOutcomeError."""
        return await self._call(_requests)

    async def read(self, ref: Ref) -> Snapshot | None:
        """See LedgerStore. A row deleted under a process that applied it is begun anew."""
        return await self._call(lambda connection: _read(connection, ref, self._applied.get(ref)))

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        """See LedgerStore."""
        return await self._call(lambda connection: _write(connection, snapshot, status))

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        """See LedgerStore."""
        return await self._call(lambda connection: _mark(connection, snapshot))

    async def close(self) -> None:
        """Close the connections. Calls that still hang are left to end by themselves."""
        self._database.close()

    async def _call(self, work: Callable[[Connection], _Result]) -> _Result:
        def connect_and_work() -> _Result:
            with self._database.connect() as connection:
                return work(connection)

        try:
            return await self._threads.run(connect_and_work, self._timeout)
        except TimeoutError:
            raise self._unknown(f"no answer within {self._timeout:g} s") from None
        except (SQLAlchemyError, OSError) as error:
            raise self._unknown(self._database.describe(error)) from None

    def _unknown(self, what: str) -> UnknownOutcomeError:
        return UnknownOutcomeError("LedgerUnreachable", f"ledger at {self._database}: {what}")


def _create_tables(engine: Engine) -> None:
    for table in _metadata.sorted_tables:
        try:
            table.create(engine, checkfirst=True)
        except DBAPIError:
            # Another process may have created it between the look and the CREATE TABLE.
            if not inspect(engine).has_table(table.name):
                raise


def _require_tables(engine: Engine) -> None:
    if not inspect(engine).has_table(_ledger.name):
        raise no_ledger(f"the database at {host_of(str(engine.url))}")


def _apply(connection: Connection, ref: Ref, spec: str) -> None:
    texts = {"spec": spec, "spec_hash": hashlib.sha256(spec.encode()).hexdigest()}
    first = {"uid": str(uuid4()), "generation": 1, "version": 1, "status": "{}"}
    _insert_once(connection, _ledger, ref, **first, **texts)
    changed = and_(_of(_ledger, ref), _ledger.c.spec_hash != texts["spec_hash"])
    connection.execute(update(_ledger).where(changed).values(**_ANOTHER_SPEC, **texts))


def _put_request(connection: Connection, ref: Ref, name: str, nonce: str) -> None:
    _insert_once(connection, _request, ref, request=name, nonce=nonce)
    requested = and_(_of(_request, ref), _request.c.request == name)
    connection.execute(update(_request).where(requested).values(nonce=nonce))


def _suspend(connection: Connection, ref: Ref, suspended: bool) -> None:
    _put_request(connection, ref, _SUSPEND, "true" if suspended else "")
    # Whoever has read the spec as it was loses its next write by this. Should the command die
    # before, that write may still be won, and what it launches was allowed when the spec was read.
    connection.execute(update(_ledger).where(_of(_ledger, ref)).values(**_ANOTHER_SPEC))


def _read(connection: Connection, ref: Ref, applied: str | None) -> Snapshot | None:
    row = connection.execute(select(_ledger).where(_of(_ledger, ref))).one_or_none()
    if row is None and applied is not None:
        _apply(connection, ref, applied)
        return _read(connection, ref, None)
    return None if row is None else _snapshot(connection, ref, row)


def _list(connection: Connection, namespace: str | None) -> list[Snapshot]:
    wanted = select(_ledger).order_by(_ledger.c.namespace, _ledger.c.name)
    if namespace is not None:
        wanted = wanted.where(_ledger.c.namespace == namespace)
    rows = connection.execute(wanted).all()
    return [_snapshot(connection, Ref(row.namespace, row.name), row) for row in rows]


def _requests(connection: Connection) -> dict[tuple[Ref, str], str]:
    rows = connection.execute(select(_request))
    return {(Ref(row.namespace, row.name), row.request): row.nonce for row in rows}


def _snapshot(connection: Connection, ref: Ref, row: Row[Any]) -> Snapshot:
    marked = connection.execute(select(_marks).where(_of(_marks, ref))).first() is not None
    requests = select(_request.c.request, _request.c.nonce).where(_of(_request, ref))
    asked = {row.request: row.nonce for row in connection.execute(requests)}
    suspended = {"suspend": True} if asked.pop(_SUSPEND, "") else {}
    return Snapshot(
        ref=ref,
        uid=row.uid,
        generation=row.generation,
        spec=json.loads(row.spec) | suspended,
        status=json.loads(row.status),
        version=str(row.version),
        marked=marked,
        requests=asked,
    )


def _write(connection: Connection, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
    text = json.dumps(status)
    version = _swap(connection, snapshot, status=text)
    return replace(snapshot, version=version, status=json.loads(text))


def _mark(connection: Connection, snapshot: Snapshot) -> Snapshot:
    version = _swap(connection, snapshot)
    # A crash here leaves a new version without a mark: whoever reads it marks it again.
    _insert_once(connection, _marks, snapshot.ref)
    return replace(snapshot, version=version, marked=True)


def _swap(connection: Connection, snapshot: Snapshot, **values: str) -> str:
    """The compare-and-swap: one UPDATE, which finds its row only as it was read."""
    version = int(snapshot.version)
    unchanged = and_(
        _of(_ledger, snapshot.ref),
        _ledger.c.uid == snapshot.uid,
        _ledger.c.version == version,
    )
    change = update(_ledger).where(unchanged).values(version=version + 1, **values)
    if connection.execute(change).rowcount != 1:
        raise ConflictError(f"{snapshot.ref} changed since it was read")
    return str(version + 1)


def _of(table: Table, ref: Ref) -> ColumnElement[bool]:
    return and_(table.c.namespace == ref.namespace, table.c.name == ref.name)


def _insert_once(connection: Connection, table: Table, ref: Ref, **values: Any) -> None:
    """Insert this row unless one of its primary key is there."""
    with contextlib.suppress(IntegrityError):
        connection.execute(insert(table).values(namespace=ref.namespace, name=ref.name, **values))
