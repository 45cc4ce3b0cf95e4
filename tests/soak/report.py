"""A report as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from tests.soak.growth import Growth
from tests.soak.run import Report
from tests.soak.sampling import Figure

_HEADER = (
    *("process", "figure", "start", "median of the second quarter", "median of the last quarter"),
    *("maximum", "slope per hour", "grows"),
)
_SCALE = {"MiB": 2.0**20, "KiB": 2.0**10}


def render(report: Report) -> str:
    """A table of all figures, and below it what was wrong."""
    lines = [_line(_HEADER), _line(["---"] * len(_HEADER))]
    lines += [_line(_cells(figure, growth)) for figure, growth in report.figures]
    done = (
        f"{report.rows:,} rows, {report.faults} faults, {report.guests} ScannerJobs came and went"
    )
    return "\n".join([*lines, "", done, *_found(report)])


def _cells(figure: Figure, growth: Growth) -> list[str]:
    scale = _SCALE.get(figure.unit, 1.0)
    name = f"{figure.name}, {figure.unit}" if figure.unit else figure.name
    values = (growth.start, growth.early, growth.late, growth.maximum)
    numbers = [f"{value / scale:.{0 if not figure.unit else 1}f}" for value in values]
    slope = f"{growth.slope / scale:+.2f}"
    return [figure.process, name, *numbers, slope, "GROWS" if growth.grows else ""]


def _found(report: Report) -> Iterator[str]:
    for figure, growth in report.figures:
        if growth.grows:
            yield f"- GROWS: {figure.name} of {figure.process}"
    for problem in report.problems:
        yield f"- WRONG: {problem}"
    if report.sound:
        yield "- nothing grows, nothing was wrong"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
