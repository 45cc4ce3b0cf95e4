"""What `kubectl explain` tells: every field is described, those to be written with an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CRD = Path(__file__).parents[2] / "crds" / "scannerjob.dev_scannerjobs.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(CRD.read_text())
(VERSION,) = DOCUMENT["spec"]["versions"]
SCHEMA: dict[str, Any] = VERSION["schema"]["openAPIV3Schema"]
# Kubernetes' own, which it describes itself.
OWN = ("apiVersion", "kind", "metadata")

Field = Mapping[str, Any]


def fields(schema: Field, path: str = "") -> Iterator[tuple[str, Field]]:
    """Each field below, by its path."""
    for name, field in schema.get("properties", {}).items():
        if path or name not in OWN:
            yield f"{path}.{name}", field
            yield from fields(field, f"{path}.{name}")
            yield from fields(field.get("items", {}), f"{path}.{name}[]")


FIELDS = dict(fields(SCHEMA))


def is_bounded(field: Field) -> bool:
    match field["type"]:
        case "string":
            return any(bound in field for bound in ("maxLength", "enum", "format"))
        case "array":
            return "maxItems" in field
        case "integer":
            return "minimum" in field or field.get("format") == "int64"
        case "object":
            return "additionalProperties" not in field or "maxProperties" in field
        case _:
            return True


def test_every_field_is_described() -> None:
    assert [path for path, field in FIELDS.items() if not field.get("description")] == []


def test_what_is_to_be_written_has_an_example() -> None:
    """But for what can only be one of a few words, and what has fields of its own."""
    written = {path: field for path, field in FIELDS.items() if path.startswith(".spec.")}
    values = {
        path: field
        for path, field in written.items()
        if field["type"] not in ("boolean", "object") and "enum" not in field
    }
    assert [path for path, field in values.items() if "example" not in field["description"]] == []


def test_every_field_is_bounded() -> None:
    assert [path for path, field in FIELDS.items() if not is_bounded(field)] == []


def test_every_column_is_described() -> None:
    columns = VERSION["additionalPrinterColumns"]
    assert [each["name"] for each in columns if not each.get("description")] == ["Age"]
