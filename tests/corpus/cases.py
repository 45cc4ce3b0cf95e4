"""Specs as people write them, good and bad: whoever reads them must accept and refuse the same.

A bad one names, in its first line, what a refusal must mention.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_EXPECTED = "# expected: "


@dataclass(frozen=True)
class Case:
    name: str
    spec: Any
    expected: str = ""

    def __str__(self) -> str:
        return self.name


def _read(file: Path) -> Case:
    text = file.read_text()
    first = text.splitlines()[0]
    expected = first.removeprefix(_EXPECTED) if first.startswith(_EXPECTED) else ""
    return Case(file.stem, yaml.safe_load(text), expected)


def _folder(name: str) -> list[Case]:
    return [_read(file) for file in sorted((Path(__file__).parent / name).glob("*.yaml"))]


GOOD = _folder("good")
BAD = [
    *_folder("bad"),
    Case("query-too-long", {**GOOD[0].spec, "query": "x" * 32769}, "spec.query"),
]
