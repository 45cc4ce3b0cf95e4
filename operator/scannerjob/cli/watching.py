"""`status`: once, or as a live table."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from scannerjob.cli.places import Place, Where, opened
from scannerjob.cli.printing import Output, emit, is_terminal, utc_now
from scannerjob.cli.summary import details, overview, report, summary
from scannerjob.model.printable import printable
from scannerjob.model.spec import KIND
from scannerjob.ports import Snapshot, UnknownOutcomeError

_EVERY = 1.0


async def show(
    where: Where, name: str | None, *, everywhere: bool, watch: bool, output: Output
) -> None:
    """Print how they are; with `watch` again and again, where somebody looks in place."""
    async with opened(where) as place:
        if watch:
            await _watch(place, name, everywhere=everywhere)
            return
        found = await _found(place, name, everywhere=everywhere)
        emit(output, _data(found, name), lambda: _lines(place, found, name, everywhere=everywhere))


async def _watch(place: Place, name: str | None, *, everywhere: bool) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    # Somebody looks: one table that changes. Else, each that differs from the last.
    console, before, problem = Console(highlight=False), "", ""
    found = await _found(place, name, everywhere=everywhere)
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while True:
            text = "\n".join(_lines(place, found, name, everywhere=everywhere)) + problem
            if is_terminal():
                live.update(Text.from_ansi(text), refresh=True)
            elif text != before:
                print(text, flush=True)
            before = text
            await asyncio.sleep(_EVERY)
            try:
                found, problem = await _found(place, name, everywhere=everywhere), ""
            except UnknownOutcomeError as error:
                problem = f"\n\nnot up to date: {printable(str(error))}"


async def _found(place: Place, name: str | None, *, everywhere: bool) -> list[Snapshot]:
    return [await place.find(name)] if name else await place.listed(everywhere=everywhere)


def _data(found: list[Snapshot], name: str | None) -> Any:
    return details(found[0]) if name else [summary(each) for each in found]


def _lines(
    place: Place, found: list[Snapshot], name: str | None, *, everywhere: bool
) -> Iterator[str]:
    now: datetime = utc_now()
    if name:
        yield from report(found[0], now)
    elif found:
        several = len({each.ref.namespace for each in found}) > 1
        yield from overview(found, now, everywhere=everywhere or several)
    else:
        yield f"no {KIND}s in {(None if everywhere else place.namespace) or 'any namespace'}"
