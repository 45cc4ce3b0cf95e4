"""The record of what was tried: one line of JSON for each trial, with its seed and its verdict.

It is appended to, so that a campaign goes on where the last one ended, and what was counted can be
told from the file alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]


class Record:
    """A file of such lines; several processes may append to it at once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def append(self, kind: str, seed: int | str, *, kept: bool, **more: Any) -> None:
        """Add a line."""
        verdict = "kept" if kept else "broken"
        head = {"kind": kind, "seed": seed, "verdict": verdict}
        line = {**head, **more, "tree": tree(), "date": datetime.now(UTC).date().isoformat()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(json.dumps(line) + "\n")

    def lines(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """Those of one kind."""
        if self.file.exists():
            for text in self.file.read_text().splitlines():
                line = json.loads(text)
                if line["kind"] == kind:
                    yield line

    def of_this_code(self, kind: str) -> Iterator[Mapping[str, Any]]:
        """Those of one kind that tell of the code as it is."""
        return (line for line in self.lines(kind) if line["tree"] == tree())


# What only shows things to people, of the operator's folder: it keeps and breaks no promise.
_SHOWS = ("cli/", "demo/", "logs.py")


@cache
def tree() -> str:
    """Which code was tried: a hash of the operator's files, as they are committed."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    files = git("ls-tree", "-r", "HEAD:operator/scannerjob").splitlines()
    tried = [file for file in files if not file.partition("\t")[2].startswith(_SHOWS)]
    name = hashlib.sha256("\n".join(tried).encode()).hexdigest()[:12] if tried else "unknown"
    return f"{name}-dirty" if git("status", "--porcelain", "operator/scannerjob") else name
