"""What is said of plans whose cost grows, and when a table is large enough to say it."""

from __future__ import annotations

from sqlalchemy import Connection

from scannerjob.model.plan import PlanFinding
from scannerjob.sources.parse import Statement

# To read fewer rows than these costs about as much as to ask for them.
MANY_ROWS = 10_000
BY_CONDITION = "add an index on what WHERE compares, then on what ORDER BY sorts by"
BY_ORDER = "what ORDER BY sorts by"


def read_whole(table: str, remedy: str) -> PlanFinding:
    """A table is read to its end for few of its rows."""
    cost = f"each look reads all of table {table}, and takes longer as it grows"
    return PlanFinding("SequentialScan", cost, remedy)


def all_sorted(table: str, order: str) -> PlanFinding:
    """All rows that match are sorted for the first few of them."""
    cost = f"each look sorts all rows of {table} that match, and takes longer the more there are"
    remedy = f"add an index on what WHERE compares, then on {order}"
    return PlanFinding("Sort", cost, remedy)


def tables_of(statement: Statement) -> str:
    """The tables that the query itself names."""
    return ", ".join(dict.fromkeys(statement.tables.values())) or "the query"


def table_named(connection: Connection, statement: Statement, name: str) -> str:
    """The table that a plan calls so, by its alias or as one that a view reads; quoted."""
    own = statement.tables.get(name)
    return own or connection.dialect.identifier_preparer.quote_identifier(name)


def has_many_rows(connection: Connection, relation: str) -> bool:
    """Whether there are more than MANY_ROWS; at the cost of reading so many, where there are.

    `relation` is a quoted name, or a query in parentheses.
    """
    some = f"SELECT 1 FROM {relation} AS s LIMIT {MANY_ROWS + 1}"
    counted = connection.exec_driver_sql(
        f"SELECT count(*) FROM ({some}) AS t", execution_options={"no_parameters": True}
    )
    return int(counted.scalar_one()) > MANY_ROWS
