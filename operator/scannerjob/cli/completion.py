"""What the shell completes: names, rows, and all of it behind `kubectl scannerjob`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# No longer than a person waits for a key to do something.
_WITHIN = 2.0


def names(ctx: Any, incomplete: str) -> list[str]:
    """The ScannerJobs whose names begin so; none where they cannot be asked for soon."""
    return _soon(_names(_where(ctx), incomplete), incomplete)


def keys(ctx: Any, incomplete: str) -> list[str]:
    """The rows that are remembered of the ScannerJob that is named, as a shell takes them."""
    return _soon(_keys(_where(ctx), str(ctx.params.get("name"))), incomplete)


def _where(ctx: Any) -> Any:
    from scannerjob.cli.places import Where

    said = ctx.params
    kubeconfig = said.get("kubeconfig")
    return Where(
        said.get("namespace"),
        said.get("state"),
        said.get("context"),
        str(kubeconfig) if kubeconfig else None,
    )


def _soon(asked: Coroutine[Any, Any, list[str]], incomplete: str) -> list[str]:
    import asyncio

    # Whatever is wrong is told by the command itself.
    with suppress(Exception):
        found = asyncio.run(asyncio.wait_for(asked, _WITHIN))
        return [each for each in found if each.startswith(incomplete)]
    return []


async def _names(where: Any, incomplete: str) -> list[str]:
    from scannerjob.cli.places import opened

    namespace, slash, _ = incomplete.partition("/")
    async with opened(where) as place:
        found = await place.store.list(namespace if slash else place.namespace)
    return [str(each.ref) if slash else each.ref.name for each in found]


async def _keys(where: Any, named: str) -> list[str]:
    from scannerjob.cli.keys import typed
    from scannerjob.cli.places import opened
    from scannerjob.model.ledger import ledger_from_status

    where, name = where.of(named)
    async with opened(where) as place:
        found = await place.named(name)
    ledgers = [ledger_from_status(each.status) for each in found]
    rows = [typed(item.key) for ledger in ledgers if ledger for item in ledger.items]
    return [row for row in rows if shlex.quote(row) == row]


def complete_for_kubectl() -> None:
    """As `kubectl_complete-scannerjob`, which kubectl runs to complete `kubectl scannerjob`.

    It is given the words after that, the last one as far as it was typed, and prints what may stand
    there, and in the end whether a file may (cobra's ShellCompDirectiveDefault) or not (its
    ShellCompDirectiveNoFileComp).
    """
    from scannerjob.cli.commands import app

    typed = sys.argv[1:]
    words = ["scannerjob", *typed]
    os.environ |= {
        "_SCANNERJOB_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    with suppress(SystemExit):
        app(args=[], prog_name="scannerjob")
    print(":0" if _may_be_file(typed) else ":4")


def _may_be_file(words: Sequence[str]) -> bool:
    """Whether the last of these words stands where the command takes a file or a directory."""
    if len(words) < 2 or words[-1].startswith("-"):
        return False
    before = words[-2] if words[-2].startswith("-") else ""
    return before in _paths_of(words[0])


def _paths_of(command: str) -> Iterator[str]:
    """The options of this command that are followed by a path; `""` if its arguments are paths."""
    from typing import get_args, get_type_hints

    from scannerjob.cli.commands import app

    for each in app.registered_commands:
        if each.callback and (each.name or each.callback.__name__) == command:
            hints = get_type_hints(each.callback, include_extras=True)
            for name, hint in hints.items():
                kind, *said = get_args(hint) or (hint,)
                if Path in (kind, *get_args(kind)):
                    yield from _spellings(name, said[0])


def _spellings(name: str, said: Any) -> Iterable[str]:
    """How a parameter is written, by what Typer was told of it."""
    from typer.models import ArgumentInfo

    if isinstance(said, ArgumentInfo):
        return [""]
    written = [each for each in (said.default, *(said.param_decls or ())) if _is_option(each)]
    return written or [f"--{name.replace('_', '-')}"]


def _is_option(text: Any) -> bool:
    return isinstance(text, str) and text.startswith("-")
