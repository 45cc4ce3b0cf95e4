"""Reading from MySQL and MariaDB."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pymysql.constants import CR, ER, FIELD_TYPE
from sqlalchemy import URL, Connection, Engine, create_engine, event

from scannerjob.drivers import mysql_password
from scannerjob.model.plan import INDEXED, PlanEstimate, PlanFinding
from scannerjob.ports import SourceError
from scannerjob.sources import dialects
from scannerjob.sources.dialects import Dialect, Plan
from scannerjob.sources.parse import Statement
from scannerjob.sources.plans import (
    BY_CONDITION,
    BY_ORDER,
    MANY_ROWS,
    all_sorted,
    has_many_rows,
    read_whole,
    table_named,
    tables_of,
)

# TIMESTAMP is missing: where clocks are set back, two of its values have one text.
_EXACT_TYPES = frozenset(
    {
        *(FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG),
        *(FIELD_TYPE.LONGLONG, FIELD_TYPE.NEWDECIMAL, FIELD_TYPE.DATE, FIELD_TYPE.DATETIME),
        *(FIELD_TYPE.VARCHAR, FIELD_TYPE.VAR_STRING, FIELD_TYPE.STRING, FIELD_TYPE.ENUM),
        *(FIELD_TYPE.TINY_BLOB, FIELD_TYPE.MEDIUM_BLOB, FIELD_TYPE.LONG_BLOB, FIELD_TYPE.BLOB),
    }
)
_MARIADB_STATEMENT_TIMEOUT = 1969
_MYSQL_QUERY_TIMEOUT = 3024
_ACCESS_DENIED_NO_PASSWORD = 1698
# COM_RESET_CONNECTION (MySQL 5.7.3, MariaDB 10.2.4), which PyMySQL has no name for.
_RESET_CONNECTION = 0x1F
# FILE reads and writes files there, SUPER changes what protects it.
_POWERS = (
    "SELECT privilege_type FROM information_schema.user_privileges "
    "WHERE privilege_type IN ('FILE', 'SUPER') "
    "AND grantee = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''') "
    "ORDER BY privilege_type LIMIT 2"
)
# A table, or an index, from its start to its end.
_WHOLE = ("ALL", "index")
_REASONS = {
    ER.ACCESS_DENIED_ERROR: "AuthenticationFailed",
    ER.DBACCESS_DENIED_ERROR: "AuthenticationFailed",
    _ACCESS_DENIED_NO_PASSWORD: "AuthenticationFailed",
    _MARIADB_STATEMENT_TIMEOUT: "QueryTimeout",
    _MYSQL_QUERY_TIMEOUT: "QueryTimeout",
    ER.QUERY_INTERRUPTED: "QueryTimeout",
    ER.CON_COUNT_ERROR: "DatabaseUnreachable",
    ER.BAD_DB_ERROR: "DatabaseUnreachable",
    CR.CR_CONNECTION_ERROR: "DatabaseUnreachable",
    CR.CR_CONN_HOST_ERROR: "DatabaseUnreachable",
    CR.CR_SERVER_GONE_ERROR: "DatabaseUnreachable",
    CR.CR_SERVER_LOST: "DatabaseUnreachable",
}


class MySQL(Dialect):
    """PyMySQL, for both: a session's `sql_select_limit` caps the rows of the text as it is.

    A LIMIT around it would not do: MariaDB then drops its ORDER BY.
    """

    grammar = "mysql"
    placeholder = "%s"
    streams = False

    def engine(self, url: URL, tls: Mapping[str, Any]) -> Engine:
        """An engine whose sessions are as new whenever they are given back."""
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=dialects.KEPT_OPEN,
            max_overflow=dialects.POOL_SIZE - dialects.KEPT_OPEN,
            pool_recycle=dialects.RECYCLE_SECONDS,
            # There is no transaction to end, each statement is its own; and see below.
            pool_reset_on_return=None,
            skip_autocommit_rollback=True,
            hide_parameters=True,
            connect_args={
                **tls,
                # In any other, two different keys could look the same.
                "charset": "utf8mb4",
                "password": mysql_password(url),
                "connect_timeout": dialects.CONNECT_SECONDS,
                "read_timeout": dialects.CONNECT_SECONDS,
                "write_timeout": dialects.CONNECT_SECONDS,
            },
        )
        event.listen(engine, "reset", _leave_nothing)
        return engine

    def begin(self, connection: Connection, seconds: float, limit: int) -> None:
        """Make it read-only, and set its limits: all that a reset session has lost."""
        raw: Any = connection.connection.dbapi_connection
        # PyMySQL takes it with the connection only, which serves queries of different patience. It
        # is the last resort, by which a thread ends that nobody waits for any more.
        raw._read_timeout = seconds + 2
        if getattr(connection.dialect, "is_mariadb", False):
            timeout = f"max_statement_time = {seconds}"
        else:
            timeout = f"max_execution_time = {max(1, round(seconds * 1000))}"
        connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
        settings = f"SESSION autocommit = 1, SESSION sql_select_limit = {limit}, SESSION {timeout}"
        connection.exec_driver_sql(f"SET NAMES utf8mb4, {settings}")

    def plan(self, connection: Connection, statement: Statement, *, in_cluster: bool) -> Plan:
        """Wrap what has a LIMIT of its own, which goes before the session's."""
        warnings = tuple(_privilege_warnings(connection, in_cluster=in_cluster))
        return Plan(wrap=statement.limited, warnings=warnings)

    def finding(
        self, connection: Connection, statement: Statement, *, complete: bool
    ) -> PlanFinding | None:
        """By EXPLAIN, whose number of rows is the limit's where reading may stop there."""
        steps = _explain(connection, statement)
        sorted_rows = max((_rows(step) for step in steps if "filesort" in step["Extra"]), default=0)
        for step in filter(_reads_whole_for_some, steps):
            table = table_named(connection, statement, step["table"])
            if has_many_rows(connection, table):
                return read_whole(table, BY_CONDITION) if complete or sorted_rows else None
        if sorted_rows > MANY_ROWS:
            return all_sorted(tables_of(statement), BY_ORDER)
        return INDEXED

    def estimate(self, connection: Connection, statement: Statement) -> PlanEstimate:
        """By EXPLAIN and what the server says of its cost: of a UNION or a subquery, nothing."""
        steps = _explain(connection, statement)
        _, cost = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Last_query_cost'").one()
        return PlanEstimate(float(cost) or None, _rows_given(steps))

    def reason(self, error: BaseException) -> str | None:
        """By the number of the error."""
        number = error.args[0] if error.args else None
        return _REASONS.get(number, "QueryFailed") if isinstance(number, int) else None

    def message(self, error: BaseException) -> str:
        """Without the number."""
        return str(error.args[-1]) if error.args else str(error)

    def socket(self, connection: Any) -> int:
        """That of PyMySQL, which has none any more once it is closed."""
        return int(connection._sock.fileno())

    def key_types(self, values: Collection[Any], type_code: Any) -> Collection[type]:
        """None for types with several values of one text, or several texts of one value."""
        return super().key_types(values, type_code) if type_code in _EXACT_TYPES else ()


def _leave_nothing(connection: Any, *_: Any) -> None:
    """Have the server forget variables, locks and settings that a query left in its session."""
    if connection.open:
        connection._execute_command(_RESET_CONNECTION, b"")
        connection._read_ok_packet()


def _privilege_warnings(connection: Connection, *, in_cluster: bool) -> Iterator[str]:
    """What the user may do to files of the database's machine, or to whatever protects it."""
    granted = connection.exec_driver_sql(_POWERS).scalars().all()
    if not granted:
        return
    powers = f"the database's user has the privilege {' and '.join(granted)}"
    advice = "use one that may only read what the query needs"
    if in_cluster:
        raise SourceError("SuperuserRefused", f"{powers}: {advice}")
    yield f"{powers}: {advice}"


def _explain(connection: Connection, statement: Statement) -> Sequence[Mapping[str, Any]]:
    """The tables in the order in which they are read."""
    rows = connection.exec_driver_sql(
        f"EXPLAIN {statement.text}", execution_options={"no_parameters": True}
    )
    return [{**row, "Extra": row["Extra"] or ""} for row in rows.mappings()]


def _reads_whole_for_some(step: Mapping[str, Any]) -> bool:
    """Whether a table is read to its end for rows that no index could find.

    Names in angle brackets are results of other steps.
    """
    is_table = step["table"] is not None and not step["table"].startswith("<")
    by_condition = "Using where" in step["Extra"] and step["possible_keys"] is None
    return is_table and step["type"] in _WHOLE and by_condition


def _rows_given(steps: Sequence[Mapping[str, Any]]) -> int | None:
    """How many rows a plain SELECT is expected to give: MariaDB does not say how many it drops."""
    if any(step["select_type"] != "SIMPLE" or step["rows"] is None for step in steps):
        return None
    return round(math.prod(_rows(step) * float(step.get("filtered", 100)) / 100 for step in steps))


def _rows(step: Mapping[str, Any]) -> int:
    return int(step["rows"] or 0)
