"""The command line: `scannerjob`, and the same program as `kubectl scannerjob`."""

from __future__ import annotations

import io
import os
import sys
from typing import NoReturn

# What goes on until it is stopped: an error that nothing foresaw needs its traceback there.
_SERVICES = ("run", "operator", "demo")


def main() -> None:
    """Run the command that the arguments name; exits 2 for a mistake in what it was given.

    A worker's installation, which has the library alone, is told what is missing.
    """
    try:
        _run()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "scannerjob"):
            raise
        _end(2, f"{module} is not installed: pip install 'scannerjob[operator]'")
    except BrokenPipeError:
        sys.exit(1)
    except (OSError, UnicodeError) as error:
        if sys.argv[1:] and sys.argv[1] in _SERVICES:
            raise
        _end(3 if isinstance(error, ConnectionError | TimeoutError) else 2, _told(error))


def _run() -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal that does not know a letter is shown its escape.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        from scannerjob.cli.commands import app

        app()
    finally:
        _flush()


def _flush() -> None:
    """Write what was printed now, while it can be said that it cannot be: not as Python ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        error.filename = "stdout"
        raise


def _told(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError):
        return f"expected text in UTF-8: {error}"
    return f"{error.filename or 'cannot go on'}: {error.strerror or error}"


def _end(code: int, line: str) -> NoReturn:
    from scannerjob.model.printable import printable, without_userinfo

    print(printable(without_userinfo(line)), file=sys.stderr)
    sys.exit(code)
