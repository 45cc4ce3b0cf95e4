"""A table of figures as Markdown, and the bars that they have to reach."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Rows under a header; `bars` says of each claim whether this run's figures reach it."""

    title: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    bars: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def bars_reached(self) -> bool:
        return all(reached for _, reached in self.bars)

    def render(self) -> str:
        lines = [f"\n## {self.title}\n", _line(self.header), _line(["---"] * len(self.header))]
        lines += [_line(row) for row in self.rows]
        lines += [""] + [f"- {'reached' if ok else 'MISSED'}: {bar}" for bar, ok in self.bars]
        return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that this share of all do not exceed."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
