"""What commands print: columns for people, JSON and YAML for programs; colour where one looks."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

import typer

_GAP = "   "
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


class Output(StrEnum):
    """How something is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def emit(output: Output, data: Any, table: Callable[[], Iterable[str]]) -> None:
    """Print `data` for a program, or the lines of the table for a person.

    A person may look at what is for programs as well: all that is not ASCII is escaped there.
    """
    match output:
        case Output.JSON:
            # JSON takes DEL for a letter.
            print(json.dumps(data, indent=2).replace("\x7f", r"\u007f"))
        case Output.YAML:
            import yaml

            print(yaml.safe_dump(data, sort_keys=False, allow_unicode=False), end="")
        case Output.TABLE:
            for line in table():
                print(line)


def columns(
    header: Sequence[str], rows: Iterable[Sequence[object]], wrong: Iterable[bool] = ()
) -> Iterator[str]:
    """These rows under their header, each column as wide as its widest cell.

    `wrong` says of each row whether it stands out.
    """
    from rich.cells import cell_len

    from scannerjob.model.printable import printable

    cells = [[printable(str(cell)) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(header, *cells, strict=True)]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell + " " * (width - cell_len(cell)) for cell, width in zip(row, widths, strict=True)
        )
        return _GAP.join(padded).rstrip()

    yield styled(line(header), bold=True)
    for row, stands_out in zip(cells, list(wrong) or [False] * len(cells), strict=True):
        yield styled(line(row), fg="red") if stands_out else line(row)


def fields(named: Iterable[tuple[str, object]]) -> Iterator[str]:
    """A line for each name and what it is; nothing for what is empty."""
    from scannerjob.model.printable import printable

    shown = [(name, printable(str(value))) for name, value in named if value not in (None, "")]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        yield f"{styled(name.ljust(width), bold=True)}{_GAP}{value}"


def for_terminal(line: str) -> str:
    """A line that others wrote, made printable if a person looks at it; its tabs are kept."""
    if not is_terminal():
        return line
    from scannerjob.model.printable import printable

    return "\t".join(map(printable, line.removesuffix("\r").split("\t")))


def styled(text: str, **style: Any) -> str:
    """The text in bold or in a colour, if a person looks at it."""
    return typer.style(text, **style) if is_terminal() else text


def is_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def ago(moment: datetime | None, now: datetime) -> str:
    """How long ago: `90s`, `12m`, `5h`; empty for what never was."""
    return "" if moment is None else brief(now - moment)


def brief(duration: timedelta) -> str:
    """In the largest unit of which there are at least two: as kubectl tells ages."""
    seconds = max(0, round(duration.total_seconds()))
    size, unit = next((each for each in _UNITS if seconds >= 2 * each[0]), _UNITS[-1])
    return f"{seconds // size}{unit}"


def utc_now() -> datetime:
    """The wall clock."""
    return datetime.now(UTC)
