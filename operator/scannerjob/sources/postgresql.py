"""Reading from PostgreSQL, directly or through PgBouncer in transaction mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import timedelta
from functools import cache
from typing import Any

import psycopg
from psycopg import postgres, pq
from psycopg.abc import AdaptContext, Buffer, Loader
from sqlalchemy import URL, Connection, Engine, create_engine, event

from scannerjob.model.plan import INDEXED, PlanEstimate, PlanFinding
from scannerjob.model.row import Unreadable
from scannerjob.ports import SourceError
from scannerjob.sources import dialects
from scannerjob.sources.dialects import Dialect, Plan
from scannerjob.sources.parse import Statement
from scannerjob.sources.plans import MANY_ROWS, all_sorted, read_whole


def _oids(*names: str) -> frozenset[int]:
    return frozenset(postgres.types[name].oid for name in names)


# Types of which a value finds exactly itself.
_EXACT_TYPES = _oids(
    *("int2", "int4", "int8", "oid", "numeric", "bool", "uuid", "bytea"),
    *("text", "varchar", "bpchar", "name"),
)
# Types of which a text does, also where it stands for what Python has no value for.
_EXACT_AS_TEXT = _oids("date", "timestamp", "timestamptz")
# Above are enums, citext and other types of extensions: psycopg has them as the text they came as.
_FIRST_USER_DEFINED_OID = 16384
# Types with values that Python's have no place for: infinity, BC, 24:00.
_TIME_TYPES = _oids("date", "time", "timetz", "timestamp", "timestamptz", "interval")
_JSON_TYPES = _oids("json", "jsonb")
# psycopg has no SQLSTATE for what a server says before there is a connection.
_REFUSES_LOGIN = re.compile(r'authentication|password|pg_hba|role "')

# In the planner's units, about one for each page read: less is not worth an index.
_WORTH_AN_INDEX = 5000
_PASS_THROUGH = ("Subquery Scan", "Result")
_SCANS = ("Seq Scan", "Index Scan", "Index Only Scan")
# The rest of a long condition is not worth its place in a message.
_SHOWN_CONDITION = 200


class PostgreSQL(Dialect):
    """psycopg 3. Rows come from a cursor on the server, so that it need not compute all of them."""

    grammar = "postgres"
    placeholder = "%s"
    streams = True

    def engine(self, url: URL, tls: Mapping[str, Any]) -> Engine:
        """An engine that needs no session of its own on the server."""
        engine = create_engine(
            url,
            isolation_level="AUTOCOMMIT",
            pool_size=dialects.KEPT_OPEN,
            max_overflow=dialects.POOL_SIZE - dialects.KEPT_OPEN,
            pool_recycle=dialects.RECYCLE_SECONDS,
            pool_reset_on_return=None,
            hide_parameters=True,
            use_native_hstore=False,
            connect_args={
                **tls,
                "connect_timeout": dialects.CONNECT_SECONDS,
                # A host that vanished says nothing: the kernel must find out.
                "keepalives_idle": 10,
                "keepalives_interval": 5,
                "keepalives_count": 4,
                "tcp_user_timeout": 30_000,
                "client_encoding": "utf8",
                # PgBouncer gives each transaction another session: nothing prepared is found again.
                "prepare_threshold": None,
            },
        )
        event.listen(engine, "connect", _load_leniently)
        event.listen(engine, "reset", _leave_nothing)
        return engine

    def begin(self, connection: Connection, seconds: float, limit: int) -> None:
        """Begin a transaction; what is set in it ends with it."""
        milliseconds = max(1, round(seconds * 1000))
        connection.exec_driver_sql(
            "BEGIN READ ONLY;"
            f"SET LOCAL statement_timeout = {milliseconds};"
            f"SET LOCAL idle_in_transaction_session_timeout = {milliseconds};"
            # The only style that psycopg reads times with a zone in.
            "SET LOCAL datestyle = ISO",
            execution_options={"no_parameters": True},
        )

    def plan(self, connection: Connection, statement: Statement, *, in_cluster: bool) -> Plan:
        """Ask for the role and for the server's plan.

        EXPLAIN refuses what is more than one statement, which the parser may have let through.
        """
        warnings = tuple(_superuser_warning(connection, in_cluster=in_cluster))
        last = _last_step(_explain(connection, statement))
        return Plan(wrap=last.get("Node Type") == "Sort", warnings=warnings)

    def finding(
        self, connection: Connection, statement: Statement, *, complete: bool
    ) -> PlanFinding | None:
        """By EXPLAIN and its estimates: what is not worth an index is not spoken of."""
        root = _explain(connection, statement)
        return next(_costs(root), INDEXED)

    def estimate(self, connection: Connection, statement: Statement) -> PlanEstimate:
        """As EXPLAIN has them in its first line."""
        root = _explain(connection, statement)
        return PlanEstimate(root.get("Total Cost"), root.get("Plan Rows"))

    def reason(self, error: BaseException) -> str | None:
        """By SQLSTATE class (PostgreSQL's manual, appendix A)."""
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith("28") or (not state and _REFUSES_LOGIN.search(str(error))):
            return "AuthenticationFailed"
        if state == "57014":  # query_canceled
            return "QueryTimeout"
        if state.startswith(("08", "53", "57P")):
            return "DatabaseUnreachable"
        return "QueryFailed" if state else None

    def socket(self, connection: Any) -> int:
        """That of libpq."""
        return int(connection.fileno())

    def key_types(self, values: Collection[Any], type_code: Any) -> Collection[type]:
        """None for types with several values of one text, or several texts of one value."""
        if type_code in _EXACT_AS_TEXT:
            return (str,)
        exact = type_code in _EXACT_TYPES or type_code >= _FIRST_USER_DEFINED_OID
        return super().key_types(values, type_code) if exact else ()


def _leave_nothing(connection: psycopg.Connection[Any], *_: Any) -> None:
    """End the transaction, and with it all settings; locks of a session outlast it.

    One message, so that PgBouncer gives both to the session in which the query ran.
    """
    if not connection.closed:
        connection.execute("ROLLBACK; SELECT pg_advisory_unlock_all()")


def _load_leniently(connection: psycopg.Connection[Any], _: Any) -> None:
    """Have values that Python cannot hold arrive all the same; they would fail the whole query."""
    instead = {**dict.fromkeys(_TIME_TYPES, _as_text), **dict.fromkeys(_JSON_TYPES, _unreadable)}
    for oid, otherwise in instead.items():
        strict = connection.adapters.get_loader(oid, pq.Format.TEXT)
        if strict is not None:
            connection.adapters.register_loader(oid, _lenient(strict, otherwise))


def _as_text(data: bytes) -> Any:
    """PostgreSQL's own text of a time."""
    return data.decode()


def _unreadable(data: bytes) -> Any:
    return Unreadable("its JSON is nested too deeply, or has a number of thousands of digits")


@cache  # psycopg keeps each class that it was ever given: one for each connection is a leak
def _lenient(strict: type[Loader], otherwise: Callable[[bytes], Any]) -> type[Loader]:
    class Lenient(psycopg.adapt.Loader):
        def __init__(self, oid: int, context: AdaptContext | None = None) -> None:
            super().__init__(oid, context)
            self._strict = strict(oid, context)

        def load(self, data: Buffer) -> Any:
            try:
                value = self._strict.load(data)
            except (psycopg.Error, ValueError, ArithmeticError, RuntimeError):
                # A RuntimeError is nesting, or an interval in a style that psycopg does not know.
                return otherwise(bytes(data))
            # An interval without end is taken for an empty one.
            endless = isinstance(value, timedelta) and b"infinity" in bytes(data)
            return otherwise(bytes(data)) if endless else value

    return Lenient


# Its own name first. A query can take on whatever role it is a member of.
_POWERFUL_ROLE = """
    SELECT rolname FROM pg_roles
    WHERE (rolsuper OR rolname IN
        ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files'))
    AND pg_has_role(session_user, oid, 'MEMBER')
    ORDER BY rolname <> session_user, rolname LIMIT 1
"""


def _superuser_warning(connection: Connection, *, in_cluster: bool) -> Iterator[str]:
    powerful = connection.exec_driver_sql(_POWERFUL_ROLE).scalar()
    if powerful is None:
        return
    message = (
        f"the database's role can act as {powerful}, and so run programs or read and write files "
        "there: use one that may only read what the query needs"
    )
    if in_cluster:
        raise SourceError("SuperuserRefused", message)
    yield message


def _explain(connection: Connection, statement: Statement) -> Mapping[str, Any]:
    """The plan's root, as it is for a cursor: with preference for the first rows."""
    raw: psycopg.Connection[Any] = connection.connection.dbapi_connection  # type: ignore[assignment]
    with raw.cursor() as cursor:
        # Binary only because psycopg then uses the protocol that refuses a second statement.
        text = f"EXPLAIN (FORMAT JSON) DECLARE scannerjob CURSOR FOR {statement.text}"
        cursor.execute(text.encode(), binary=True)
        row = cursor.fetchone()
    root: Mapping[str, Any] = row[0][0]["Plan"] if row else {}
    return root


def _nodes(root: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield root
    for child in root.get("Plans", ()):
        yield from _nodes(child)


def _last_step(root: Mapping[str, Any], *passing: str) -> Mapping[str, Any]:
    """The node that gives the rows, beneath those that only pass them on."""
    node = root
    while node.get("Node Type") in (*_PASS_THROUGH, *passing) and node.get("Plans"):
        node = node["Plans"][0]
    return node


def _costs(root: Mapping[str, Any]) -> Iterator[PlanFinding]:
    """What makes a look dear, the worst first."""
    for node in filter(_reads_whole_for_few, _nodes(root)):
        condition = node["Filter"][:_SHOWN_CONDITION]
        remedy = (
            f"add an index on what is compared in {condition}, best a partial one: CREATE INDEX ON "
            f"{node['Relation Name']} (the columns of ORDER BY, or else the key) WHERE {condition}"
        )
        yield read_whole(node["Relation Name"], remedy)
    last = _last_step(root, "Limit")
    if last.get("Node Type") == "Sort" and last["Plan Rows"] > MANY_ROWS:
        yield all_sorted(_tables(last), ", ".join(last["Sort Key"])[:_SHOWN_CONDITION])


def _reads_whole_for_few(node: Mapping[str, Any]) -> bool:
    """Whether a table, or an index, is read from end to end for few rows."""
    by_condition = "Filter" in node and "Index Cond" not in node
    if not by_condition or node.get("Node Type") not in _SCANS:
        return False
    cost, rows = node["Total Cost"], node["Plan Rows"]
    # Fewer rows than units of cost are less than 2% of the table: an index would have been taken.
    return bool(cost > _WORTH_AN_INDEX and rows < cost)


def _tables(root: Mapping[str, Any]) -> str:
    names = (node.get("Relation Name") for node in _nodes(root))
    return ", ".join(dict.fromkeys(filter(None, names))) or "the query"
