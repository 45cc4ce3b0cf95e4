"""Which row a person means by what they type."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scannerjob.cli.keys import find_item, keys_meant
from scannerjob.model.ledger import Ledger
from scannerjob.model.row import canonical_key, key_parts
from tests.unit.cases import item

Value = None | bool | int | str
VALUES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=300)


def found(text: str, *keys: str) -> str | None:
    known = find_item(text, Ledger(items=tuple(map(item, keys))))
    return known.key if known else None


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("17", "[17]"),
        ("17", '["17"]'),
        ("invoice-4", '["invoice-4"]'),
        ('"17"', '["17"]'),
        ("[17]", "[17]"),
        ('[ 17,  "de" ]', '[17,"de"]'),
        ("true", "[true]"),
        ("true", '["true"]'),
        ("{x", '["{x"]'),
        ("ä", '["ä"]'),
    ],
)
def test_a_key_is_known_by_its_value(text: str, key: str) -> None:
    assert found(text, "[1]", key) == key


def test_a_number_goes_before_a_text_that_looks_like_one() -> None:
    assert found("17", '["17"]', "[17]") == "[17]"


def test_one_that_is_not_there_is_not_found() -> None:
    assert found("17", "[1]", '["seventeen"]') is None


@pytest.mark.parametrize("text", ['"\\ud800"', '["\\ud800"]', "[" * 3000, "[" * 900 + "]" * 900])
def test_what_is_no_key_is_not_found(text: str) -> None:
    assert found(text, "[1]") is None
    assert key_parts("[" * 3000) is None


@given(st.lists(VALUES, min_size=1, max_size=3))
def test_every_key_is_found_as_it_stands_in_the_status(
    values: list[Value],
) -> None:
    key = canonical_key(values)

    assert key in keys_meant(key)
