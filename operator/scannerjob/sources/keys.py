"""Looking rows up by their keys, such that not finding one proves that it is not there.

A key is JSON; what the driver read from the column was not. The values that are looked for must
include, by the database's own comparison, every value that has this JSON form. Where that is not
certain, the key is not looked for.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from scannerjob.model.row import Json, key_parts, to_json

# Floats, times, intervals and what databases have types of their own for are missing: two of them
# can look the same and differ, or be equal and look different.
_PARSERS: Mapping[type, Callable[[Any], Any]] = {
    bool: bool,
    int: int,
    str: str,
    Decimal: Decimal,
    UUID: UUID,
    date: date.fromisoformat,
    datetime: datetime.fromisoformat,
    bytes: base64.b64decode,
}
_Types = Collection[type]


@dataclass(frozen=True, slots=True)
class Lookup:
    """A condition for some keys and the values of its placeholders, in their order."""

    keys: tuple[str, ...]
    condition: str
    binds: tuple[Any, ...]


def lookup(
    keys: Iterable[str], columns: Sequence[str], types: Sequence[_Types], placeholder: str
) -> Lookup | None:
    """The condition that one of these keys stands in `columns`; None if none can be sought.

    `columns` are quoted, `types` are those of the values in each of them.
    """
    sought = {key: values for key in keys if (values := _values(key, types))}
    if not sought:
        return None
    groups = list(sought.values())
    if len(columns) == 1:
        # One list, which is what databases search an index for best.
        groups = [[[value for [values] in groups for value in values]]]
    terms = [
        " AND ".join(
            _in(name, len(values), placeholder) for name, values in zip(columns, group, strict=True)
        )
        for group in groups
    ]
    binds = tuple(value for group in groups for values in group for value in values)
    return Lookup(tuple(sought), " OR ".join(f"({term})" for term in terms), binds)


def can_be_sought(key: str, types: Sequence[_Types]) -> bool:
    """Whether `lookup` would look for this key; `types` as there."""
    return _values(key, types) is not None


def _in(column: str, count: int, placeholder: str) -> str:
    return f"{column} IN ({', '.join([placeholder] * count)})"


def _values(key: str, types: Sequence[_Types]) -> list[list[Any]] | None:
    """For each key column the values that may stand there; None where they cannot be told."""
    parts = key_parts(key)
    if parts is None or len(parts) != len(types):
        return None
    values = [_candidates(part, kinds) for part, kinds in zip(parts, types, strict=True)]
    return values if all(values) else None


def _candidates(part: Json, types: _Types) -> list[Any]:
    """The values of these types that have this JSON form."""
    values = (_parsed(part, kind) for kind in types)
    return [value for value in values if value is not None and _is_form(part, value)]


def _parsed(part: Json, kind: type) -> Any:
    try:
        return _PARSERS[kind](part)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        return None


def _is_form(part: Json, value: Any) -> bool:
    form = to_json(value)
    # In Python 1 == True == 1.0.
    return form == part and type(form) is type(part)
