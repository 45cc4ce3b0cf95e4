"""The command line: `scannerjob`, and the same program as `kubectl scannerjob`."""

from __future__ import annotations


def main() -> None:
    """Run the command that the arguments name; exits 2 for a mistake in what it was given."""
    from scannerjob.cli.commands import app

    app()
