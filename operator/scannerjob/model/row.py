"""Rows as the rest of the program sees them: JSON-safe values under a canonical key."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Any, TypeAlias
from uuid import UUID

MAX_KEY_BYTES = 200
MAX_ROW_BYTES = 64 * 1024
# Beyond 2**53 a JSON reader that uses doubles, as most do, would change the number.
_MAX_SAFE_INTEGER = 2**53
# As what kombu writes, in JSON, a value for which JSON has no form.
_DISGUISE = {"__type__", "__value__"}

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


class UnusableRow(ValueError):
    """A row that is held back, alone: its key or one of its values cannot be used."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What stands for a value that a driver could not read, and why it could not."""

    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the query: JSON-safe `values` by column alias, and the `key` it is known by."""

    key: str
    values: Mapping[str, Json]


def to_json(value: Any) -> Json:
    """The JSON form of a database value; raises UnusableRow where it has none.

    Dates and times become ISO 8601, Decimal and UUID text, bytes base64, and integers beyond
    2**53 text, so that no reader rounds them.
    """
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= _MAX_SAFE_INTEGER else str(value)
        case float():
            if not math.isfinite(value):
                raise UnusableRow(f"the value {value} has no JSON form")
            return value
        case datetime() if value.tzinfo is not None:
            # One moment has one text, in whatever zone a session shows it: it may be part of a key.
            return value.astimezone(UTC).isoformat()
        case datetime() | date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case Unreadable():
            raise UnusableRow(value.why)
        case Mapping() if value.keys() == _DISGUISE:
            raise UnusableRow("Celery takes an object of __type__ and __value__ for something else")
        case Mapping():
            return {str(name): to_json(part) for name, part in value.items()}
        case list() | tuple():
            return [to_json(part) for part in value]
        case set() | frozenset():
            return sorted((to_json(part) for part in value), key=str)
        case _:
            # What a driver has a type of its own for (an IP network, a range): its text is its
            # form.
            return str(value)


def canonical_key(parts: Sequence[Json]) -> str:
    """The text a row is known by: its key columns as a JSON array, at most 200 bytes long."""
    text = json.dumps(list(parts), separators=(",", ":"), ensure_ascii=False)
    raw = text.encode()
    if len(raw) <= MAX_KEY_BYTES:
        return text
    digest = hashlib.sha256(raw).hexdigest()
    prefix = raw[: MAX_KEY_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{prefix}#{digest}"


def key_parts(key: str) -> list[Json] | None:
    """The key columns' JSON values, or None where the key was too long to be kept whole."""
    try:
        parts = json.loads(key)
    except (ValueError, RecursionError):
        return None
    return parts if isinstance(parts, list) else None


class Presence(StrEnum):
    """Whether a row still matches the query, as far as it could be told."""

    PRESENT = "present"
    ABSENT = "absent"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rows:
    """What one look at the database told.

    `rows` stand in the user's order; `fetched` were looked for by key. `complete` says that nothing
    lies beyond `rows`, so that a key which is not among them is absent; `absent` holds the keys
    that a look by key did not find. Where the query has a LIMIT of its own, `absence_knowable` is
    False: a row that is not shown may only lie beyond the limit. `problems` names the rows that
    were held back, `held_back` has their keys where they have one, and `blocked` says that nothing
    usable was found in as many rows as are ever read. `key` names the columns that the rows are
    known by.
    """

    query_hash: str
    rows: tuple[Row, ...] = ()
    complete: bool = False
    absence_knowable: bool = True
    fetched: tuple[Row, ...] = ()
    absent: frozenset[str] = frozenset()
    held_back: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()
    blocked: bool = False
    key: tuple[str, ...] = ()

    @cached_property
    def _by_key(self) -> Mapping[str, Row]:
        return {row.key: row for row in (*self.rows, *self.fetched)}

    def find(self, key: str) -> Row | None:
        """The row of this key, if it was read and is usable."""
        return self._by_key.get(key)

    def presence(self, key: str) -> Presence:
        """Whether the row of this key matches; UNKNOWN unless it was seen or looked for in vain."""
        if key in self._by_key or key in self.held_back:
            return Presence.PRESENT
        if not self.absence_knowable:
            return Presence.UNKNOWN
        return Presence.ABSENT if self.complete or key in self.absent else Presence.UNKNOWN
