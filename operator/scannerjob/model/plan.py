"""What a database's plan for a query tells of the cost of each look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class PlanFinding:
    """Whether each look costs more the larger the table, or the backlog, has grown.

    SequentialScan: a table is read to its end for the few of its rows that match. Sort: all rows
    that match are sorted before the first is given. Indexed: neither. PlanUnknown: the database
    did not tell. `told` says so of which table, and `index` which one would help.
    """

    reason: Literal["Indexed", "SequentialScan", "Sort", "PlanUnknown"]
    told: str = ""
    index: str = ""

    @property
    def message(self) -> str:
        """What is to be known, and what to do about it."""
        return ": ".join(filter(None, (self.told, self.index)))


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """What the database expects of the whole query, all rows that match; None where it is silent.

    The cost is in units of its planner's own, and can be compared with others of that database.
    """

    cost: float | None = None
    rows: int | None = None


INDEXED = PlanFinding("Indexed", "each look reads little more than the rows it gives")
PLAN_UNKNOWN = PlanFinding("PlanUnknown", "the database did not tell how it runs the query")
