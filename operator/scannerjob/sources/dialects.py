"""What differs between databases when rows are read from them: one class, and file, for each."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import URL, Connection, CursorResult, Engine

from scannerjob.model.plan import PlanEstimate, PlanFinding
from scannerjob.ports import ConfigurationError
from scannerjob.sources.parse import Statement
from scannerjob.sources.records import Result

POOL_SIZE = 10
# Connections beyond these are closed when they are given back.
KEPT_OPEN = 2
# Before a firewall or a load balancer forgets an idle connection.
RECYCLE_SECONDS = 300
CONNECT_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """How a statement is to be run, and what its author should know of it.

    `wrap`: with a LIMIT around it.
    """

    wrap: bool = False
    warnings: tuple[str, ...] = ()


class Dialect(abc.ABC):
    """One kind of database. All but `engine` is called in threads, each with its own connection."""

    grammar: str
    """What sqlglot calls it."""
    placeholder: str
    streams: bool
    """Whether the driver would otherwise fetch a result whole."""

    @abc.abstractmethod
    def engine(self, url: URL, tls: Mapping[str, Any]) -> Engine:
        """An engine with at most POOL_SIZE connections, in autocommit mode; connects to nothing.

        `tls` is what the driver is told of TLS, beside the URL.
        """

    @abc.abstractmethod
    def begin(self, connection: Connection, seconds: float, limit: int) -> None:
        """Prepare for one statement that only reads; it may take so long, and need give so much."""

    @abc.abstractmethod
    def plan(self, connection: Connection, statement: Statement, *, in_cluster: bool) -> Plan:
        """How to run this statement; raises SourceError if it must not be run."""

    @abc.abstractmethod
    def finding(
        self, connection: Connection, statement: Statement, *, complete: bool
    ) -> PlanFinding | None:
        """What a look at this statement costs; None where that cannot be told yet.

        `complete`: the last one came to the end of the rows that match. One that did not has
        stopped early, and may have been cheap without any index.
        """

    def estimate(self, connection: Connection, statement: Statement) -> PlanEstimate:
        """What the database expects of the whole statement; nothing of what it does not tell."""
        del connection, statement
        return PlanEstimate()

    @abc.abstractmethod
    def reason(self, error: BaseException) -> str | None:
        """What a driver's error means, by SourceError's reasons; None where it says too little."""

    def message(self, error: BaseException) -> str:
        """What the database itself says of an error."""
        return str(error)

    def socket(self, connection: Any) -> int | None:
        """The file descriptor by which a driver's connection reaches its server.

        None where there is no server. May raise anything of a connection that is closed already.
        """
        del connection
        return None

    def key_types(self, values: Collection[Any], type_code: Any) -> Collection[type]:
        """The types that a key column's values can have; none where looking them up is not certain.

        `values` are those that were read, `type_code` is the driver's for the column.
        """
        del type_code
        return {type(value) for value in values if value is not None}

    def scan(self, connection: Connection, statement: Statement, plan: Plan, limit: int) -> Result:
        """The statement's first rows, in its order."""
        text = statement.wrapped(f"LIMIT {limit}") if plan.wrap else statement.text
        # Without parameters a driver leaves % and : and ? alone.
        options = {"no_parameters": True, "stream_results": self.streams, "max_row_buffer": limit}
        return _take(connection.exec_driver_sql(text, execution_options=options), limit)

    def look_up(
        self,
        connection: Connection,
        statement: Statement,
        condition: str,
        binds: Sequence[Any],
        limit: int,
    ) -> Result:
        """The statement's rows under this condition, in no order."""
        text = self.escaped(statement.wrapped("WHERE ")) + condition
        return _take(connection.exec_driver_sql(text, tuple(binds)), limit)

    def escaped(self, text: str) -> str:
        """The text as the driver wants it in a statement with parameters."""
        return text.replace("%", "%%")


def _take(cursor: CursorResult[Any], limit: int) -> Result:
    description = cursor.cursor.description or ()
    rows = cursor.fetchmany(limit)
    cursor.close()
    return Result(
        columns=tuple(column[0] for column in description),
        type_codes=tuple(column[1] for column in description),
        rows=rows,
        complete=len(rows) < limit,
    )


def dialect_of(url: URL) -> Dialect:
    """The dialect for a URL; raises ConfigurationError if its driver is not installed."""
    family = url.get_backend_name()
    try:
        match family:
            case "postgresql":
                from scannerjob.sources.postgresql import PostgreSQL

                return PostgreSQL()
            case "mysql":
                from scannerjob.sources.mysql import MySQL

                return MySQL()
            case _:
                from scannerjob.sources.sqlite import SQLite

                return SQLite()
    except ModuleNotFoundError:
        message = f"no driver for {family} is installed: pip install 'scannerjob[{family}]'"
        raise ConfigurationError("DriverMissing", message) from None
