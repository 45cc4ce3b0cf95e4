"""values.yaml, its schema and the table in the chart's README say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import yaml

from tests.support.helm import CHART

TEXT = (CHART / "values.yaml").read_text()
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
TYPES = {bool: "bool", int: "int", str: "string", list: "list", dict: "object"}


def descriptions() -> Iterator[tuple[str, str]]:
    """The path of each value that values.yaml describes, and what it says."""
    parent, comment = "", ""
    for line in TEXT.splitlines():
        text = line.strip()
        if text.startswith("# -- "):
            comment = text.removeprefix("# -- ")
        elif text.startswith("# "):
            comment += text.removeprefix("#")
        elif text:
            nested, name = line.startswith(" "), text.partition(":")[0]
            parent = parent if nested else name
            if comment:
                yield (f"{parent}.{name}" if nested else name), comment
            comment = ""


def value(path: str) -> Any:
    found: Any = VALUES
    for name in path.split("."):
        found = found[name]
    return found


def row(path: str, description: str) -> str:
    default = value(path)
    return f"| {path} | {TYPES[type(default)]} | `{json.dumps(default)}` | {description} |"


def test_the_readme_has_a_row_for_each_value() -> None:
    lines = (CHART / "README.md").read_text().splitlines()
    table = lines[lines.index("| Key | Type | Default | Description |") :]
    assert table == [*table[:2], *(row(*described) for described in descriptions())]


def test_every_value_is_described_and_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    described = [path for path, _ in descriptions()]
    groups = sorted({path.partition(".")[0] for path in described if "." in path})
    leaves = [name for name in VALUES if name not in groups]
    leaves += [f"{group}.{name}" for group in groups for name in VALUES[group]]
    assert sorted(described) == sorted(leaves)
    assert sorted(schema) == sorted([*VALUES, "global"])
    for group in groups:
        assert sorted(schema[group]["properties"]) == sorted(VALUES[group])
