"""What a database's plan for a query tells of the cost of each look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """Whether each look costs more the larger the table, or the backlog, has grown.

    SequentialScan: a table is read to its end for the few of its rows that match. Sort: all rows
    that match are sorted before the first is given. Indexed: neither. PlanUnknown: the database
    did not tell. The message names table and remedy.
    """

    reason: Literal["Indexed", "SequentialScan", "Sort", "PlanUnknown"]
    message: str = ""


INDEXED = PlanFinding("Indexed", "each look reads little more than the rows it gives")
PLAN_UNKNOWN = PlanFinding("PlanUnknown", "the database did not tell how it runs the query")
