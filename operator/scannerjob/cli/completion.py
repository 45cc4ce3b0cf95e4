"""What the shell completes: the names of ScannerJobs, and all of it behind `kubectl scannerjob`."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from typing import Any

# No longer than a person waits for a key to do something.
_WITHIN = 2.0


def names(ctx: Any, incomplete: str) -> list[str]:
    """The ScannerJobs whose names begin so; none where they cannot be asked for soon."""
    import asyncio

    from scannerjob.cli.places import Where

    said = ctx.params
    kubeconfig = said.get("kubeconfig")
    where = Where(
        said.get("namespace"),
        said.get("state"),
        said.get("context"),
        str(kubeconfig) if kubeconfig else None,
    )
    # Whatever is wrong is told by the command itself.
    with suppress(Exception):
        found = asyncio.run(asyncio.wait_for(_names(where, incomplete), _WITHIN))
        return [name for name in found if name.startswith(incomplete)]
    return []


async def _names(where: Any, incomplete: str) -> list[str]:
    from scannerjob.cli.places import opened

    namespace, slash, _ = incomplete.partition("/")
    async with opened(where) as place:
        found = await place.store.list(namespace if slash else place.namespace)
    return [str(each.ref) if slash else each.ref.name for each in found]


def complete_for_kubectl() -> None:
    """As `kubectl_complete-scannerjob`, which kubectl runs to complete `kubectl scannerjob`.

    It is given the words after that, the last one as far as it was typed, and prints what may stand
    there, and in the end that no file may (cobra's ShellCompDirectiveNoFileComp).
    """
    from scannerjob.cli.commands import app

    words = ["scannerjob", *sys.argv[1:]]
    os.environ |= {
        "_SCANNERJOB_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    with suppress(SystemExit):
        app(args=[], prog_name="scannerjob")
    print(":4")
