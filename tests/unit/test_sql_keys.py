from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scannerjob.model.row import canonical_key, key_parts, to_json
from scannerjob.sources.keys import lookup

_EXACT = st.one_of(
    st.booleans(),
    st.integers(),
    st.text(),
    st.decimals(),
    st.uuids(),
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.just(UTC)),
    st.binary(),
)


@given(_EXACT)
def test_what_is_looked_for_is_what_was_read(value: Any) -> None:
    key = canonical_key([to_json(value)])
    found = lookup([key], ["k"], [{type(value)}], "?")
    if key_parts(key) is not None:
        assert found is not None
        assert [to_json(bind) for bind in found.binds] == [to_json(value)]
        assert [type(bind) for bind in found.binds] == [type(value)]


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("[1.5]", float),
        ("[90000.5]", object),
        ('["1"]', int),
        ("[1]", str),
        ("[true]", int),
        ("[1]", bool),
        ("[null]", str),
        ('["no uuid"]', UUID),
        ('["2026-02-30"]', date),
        ('["2026-01-01"]', datetime),
        ('["2026-01-01T00:00:00+09:00"]', datetime),
        ('["1,5"]', Decimal),
        ('["not base64"]', bytes),
        ('["YWI"]', bytes),
        ('[{"a":1}]', str),
        ("[[1]]", str),
        ("[1,2]", int),
        ("[]", int),
        ("{}", int),
        ("no JSON", str),
        (canonical_key(["x" * 300]), str),
    ],
)
def test_a_key_that_cannot_be_turned_back_with_certainty_is_not_looked_for(
    key: str, kind: type
) -> None:
    assert lookup([key], ["k"], [{kind}], "?") is None


def test_no_type_is_known_before_a_row_was_read() -> None:
    assert lookup(["[1]"], ["k"], [set()], "?") is None
    assert lookup(["[1]"], ["k"], [], "?") is None


def test_one_column_is_asked_for_in_one_list() -> None:
    found = lookup(["[1]", "[2]", '["x"]'], ['"k"'], [{int}], "?")
    assert found is not None
    assert found.keys == ("[1]", "[2]")
    assert found.condition == '("k" IN (?, ?))'
    assert found.binds == (1, 2)


def test_several_columns_are_asked_for_row_by_row() -> None:
    found = lookup(['[1,"a"]', '[2,"b"]'], ["i", "t"], [{int}, {str}], "%s")
    assert found is not None
    assert found.condition == "(i IN (%s) AND t IN (%s)) OR (i IN (%s) AND t IN (%s))"
    assert found.binds == (1, "a", 2, "b")


@pytest.mark.parametrize(
    ("key", "binds"),
    [
        ('["90071992547409930"]', {90071992547409930, "90071992547409930"}),
        ('["YWI="]', {"YWI=", b"ab"}),
        ('["a"]', {"a"}),
        ("[1]", {1}),
    ],
)
def test_where_a_column_can_hold_several_types_all_are_asked_for(
    key: str, binds: set[object]
) -> None:
    found = lookup([key], ["k"], [(int, str, bytes)], "?")
    assert found is not None
    assert set(found.binds) == binds
