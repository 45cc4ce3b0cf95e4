"""The commands of a README, so that a test runs the very ones that a reader copies."""

import re
from collections.abc import Iterator
from pathlib import Path


def commands(readme: Path, section: str) -> list[str]:
    """What stands after a `$` in the console blocks of one section, in order."""
    text = readme.read_text()
    found = re.search(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not found:
        raise ValueError(f"{readme} has no section {section!r}")
    return list(_commands(found[1]))


def _commands(text: str) -> Iterator[str]:
    for block in re.findall(r"^```console\n(.*?)^```", text, re.M | re.S):
        # A line that ends in a backslash goes on in the next one.
        yield from re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.M)
