"""How a command ends: its exit code, and one line for each thing that is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import NoReturn

import typer

from scannerjob.model.printable import printable, without_userinfo

_EXAMPLE = "DIALECT://USER:PASSWORD@"


class Exit(IntEnum):
    """The exit codes of all commands."""

    DONE = 0
    NO = 1  # what was asked for is not there, did not come in time, or must not be
    MISTAKE = 2  # what was typed, or a file that was given, cannot be used
    UNREACHED = 3  # the cluster or a database could not be asked
    INTERRUPTED = 130  # by Ctrl-C


def refuse(problems: Iterable[str]) -> NoReturn:
    """What was given cannot be used: one line for each problem."""
    leave(Exit.MISTAKE, *problems)


def leave(code: Exit, *lines: str) -> NoReturn:
    """End with these lines on stderr: no password, and nothing that moves a cursor."""
    for line in lines:
        # What a URL looks like is told by one that lets nobody in.
        shown = _EXAMPLE.join(map(without_userinfo, line.split(_EXAMPLE)))
        print(printable(shown), file=sys.stderr)
    raise typer.Exit(code)


@contextmanager
def reaching(about: str = "") -> Iterator[None]:
    """Around what asks a cluster or a database: its errors are lines for people.

    They begin with what they are `about`, where that is not plain.
    """
    from scannerjob.model.ledger import LedgerError
    from scannerjob.model.spec import SpecError
    from scannerjob.ports import ConfigurationError, PortError, RefusedError

    begun = f"{about}: " if about else ""
    try:
        yield
    except (SpecError, LedgerError) as error:
        leave(Exit.NO, f"{begun}this ScannerJob cannot be read: {error}")
    except ConfigurationError as error:
        refuse([f"{begun}{error}"])
    except RefusedError as error:
        leave(Exit.NO, f"{begun}{error}")
    except PortError as error:
        leave(Exit.UNREACHED, f"{begun}{error}")
