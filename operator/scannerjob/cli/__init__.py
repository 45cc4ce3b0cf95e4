"""The command line: `scannerjob`, and the same program as `kubectl scannerjob`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command that the arguments name; exits 2 for a mistake in what it was given.

    A worker's installation, which has the library alone, is told what is missing.
    """
    try:
        from scannerjob.cli.commands import app

        app()
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module in ("", "scannerjob"):
            raise
        print(f"{module} is not installed: pip install 'scannerjob[operator]'", file=sys.stderr)
        sys.exit(2)
