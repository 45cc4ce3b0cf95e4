"""A planted bug: what a good engineer might have written in place of what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class StaleError(Exception):
    """The code has changed, so that a bug cannot be planted any more: write it anew."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Text that stands exactly once in a file, and what takes its place."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Bug:
    """A mistake in one file of `operator/scannerjob`, and why somebody may think it is right."""

    name: str
    why: str
    file: str
    edits: tuple[Edit, ...]

    def planted(self, text: str) -> str:
        """The file's text with this bug in it. Raises StaleError."""
        for edit in self.edits:
            found = text.count(edit.old)
            if found != 1:
                raise StaleError(f"{self.name}: {self.file} has {found} times: {edit.old.strip()}")
            text = text.replace(edit.old, edit.new)
        return text

    def plant(self, package: Path) -> None:
        """Put it into a copy of `operator/scannerjob`."""
        file = package / self.file
        file.write_text(self.planted(file.read_text()))


def bug(name: str, why: str, file: str, *edits: tuple[str, str]) -> Bug:
    """A bug by its edits, each of which is the old text and the new one."""
    return Bug(name, why, file, tuple(Edit(old, new) for old, new in edits))
