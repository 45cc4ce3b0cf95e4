from __future__ import annotations

import ipaddress
import json
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from scannerjob.model.row import (
    MAX_KEY_BYTES,
    Presence,
    Row,
    Rows,
    UnusableRow,
    canonical_key,
    key_parts,
    to_json,
)

_TOKYO = timezone(timedelta(hours=9))
_UUID = "0d3f0c9e-6f0a-4a53-9c6f-6a0a5e0f8a11"


@pytest.mark.parametrize(
    ("value", "form"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**53, 2**53),
        (2**53 + 1, "9007199254740993"),
        (-(2**63), "-9223372036854775808"),
        (1.5, 1.5),
        ("", ""),
        ("ü", "ü"),
        (Decimal("1.50"), "1.50"),
        (Decimal("NaN"), "NaN"),
        (UUID(_UUID), _UUID),
        (date(2026, 1, 31), "2026-01-31"),
        (time(12, 30), "12:30:00"),
        (datetime(2026, 1, 31, 12, 0, 0, 5), "2026-01-31T12:00:00.000005"),  # noqa: DTZ001
        (datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00+00:00"),
        (datetime(2026, 1, 31, 21, tzinfo=_TOKYO), "2026-01-31T12:00:00+00:00"),
        (timedelta(hours=25, milliseconds=500), 90000.5),
        (b"\x00\xff", "AP8="),
        (memoryview(b"ab"), "YWI="),
        ([1, Decimal(2), None], [1, "2", None]),
        ({"a": {"b": b"c"}, 1: 2}, {"a": {"b": "Yw=="}, "1": 2}),
        ({"b", "a"}, ["a", "b"]),
        (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8"),
    ],
)
def test_every_value_has_one_json_form(value: Any, form: Any) -> None:
    assert to_json(value) == form
    assert type(to_json(value)) is type(form)
    json.dumps(to_json(value), allow_nan=False)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [float("-inf")]])
def test_a_number_without_json_form_is_unusable(value: Any) -> None:
    with pytest.raises(UnusableRow, match="no JSON form"):
        to_json(value)


def test_a_key_is_its_columns_as_json() -> None:
    assert canonical_key([7, "ü", None, True]) == '[7,"ü",null,true]'
    assert key_parts('[7,"ü",null,true]') == [7, "ü", None, True]


def test_keys_that_look_alike_differ() -> None:
    parts: list[Any] = [1, "1", True, 1.0, "1 ", "true", None, "null"]
    assert len({canonical_key([part]) for part in parts}) == len(parts)


@pytest.mark.parametrize("letter", ["a", "ü", "日", "😀", '"'])
@pytest.mark.parametrize("length", [48, 49, 97, 98, 194, 195, 196, 197, 1000])
def test_a_key_is_never_too_long_and_never_ambiguous(letter: str, length: int) -> None:
    text = letter * length
    key = canonical_key([text])
    assert len(key.encode()) <= MAX_KEY_BYTES
    assert key == canonical_key([text])
    assert key != canonical_key([text + letter])
    assert key_parts(key) in ([text], None)


def test_a_shortened_key_cannot_be_read_back() -> None:
    assert key_parts(canonical_key(["x" * 300])) is None
    assert key_parts('{"a":1}') is None


def test_presence_is_unknown_unless_it_was_seen() -> None:
    seen = Row("[1]", {"id": 1})
    rows = Rows("h", rows=(seen,), absent=frozenset({"[2]"}), held_back=frozenset({"[3]"}))
    assert rows.presence("[1]") is Presence.PRESENT
    assert rows.presence("[2]") is Presence.ABSENT
    assert rows.presence("[3]") is Presence.PRESENT
    assert rows.presence("[4]") is Presence.UNKNOWN
    assert Rows("h", rows=(seen,), complete=True).presence("[4]") is Presence.ABSENT
    limited = Rows("h", rows=(seen,), complete=True, absence_knowable=False)
    assert limited.presence("[4]") is Presence.UNKNOWN
    assert limited.presence("[1]") is Presence.PRESENT
