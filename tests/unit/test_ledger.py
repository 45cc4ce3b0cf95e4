"""The ledger as it stands in status."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scannerjob.model.ledger import (
    LedgerError,
    Phase,
    format_time,
    ledger_from_status,
    ledger_to_status,
    parse_time,
)
from tests.unit.cases import ENDPOINTS, NOW, ago, item, later, ledger

FULL = ledger(
    item("a", Phase.CLAIMED, sends=2, claimed=ago(90), until=later(9), query_hash="q0"),
    item("b"),
    item("c", Phase.COOLING),
    item("d", Phase.WAITING, attempt=2, until=later(9), reason="Lost"),
    item("e", Phase.PARKED, attempt=3, reason="Failed"),
    succeeded=1,
    failed=2,
    lost=3,
    last_launch=ago(60),
    last_settled=ago(30),
    lost_at=ago(99),
    handled_requests={"accept-lost-ledger": "nonce"},
)


def test_it_is_read_back_as_it_was_written() -> None:
    status = json.loads(json.dumps(ledger_to_status(FULL)))

    assert ledger_from_status(status) == FULL


def test_the_counts_stand_beside_the_items() -> None:
    status = ledger_to_status(FULL)

    counts = ("active", "waiting", "parked", "cooling", "launched", "succeeded", "failed", "lost")
    assert [status[name] for name in counts] == [2, 1, 1, 1, 1, 1, 2, 3]


def test_nothing_that_is_empty_is_written() -> None:
    status = ledger_to_status(ledger(item("b")))

    assert None not in status.values()
    assert status["items"] == [
        {
            "key": "b",
            "id": "id-b",
            "phase": "Launched",
            "attempt": 1,
            "sends": 1,
            "since": "2030-01-01T11:59:00Z",
        }
    ]


def test_a_status_without_a_ledger_has_none() -> None:
    assert ledger_from_status({"conditions": []}) is None


def test_a_newer_ledger_is_refused() -> None:
    with pytest.raises(LedgerError, match=r"ledgerVersion is 2.*upgrade"):
        ledger_from_status(ledger_to_status(FULL) | {"ledgerVersion": 2})


def _item(**fields: Any) -> dict[str, Any]:
    (entry,) = ledger_to_status(ledger(item("a")))["items"]
    return {name: value for name, value in {**entry, **fields}.items() if value is not None}


@pytest.mark.parametrize(
    "items",
    [
        None,
        5,
        ["a"],
        [_item(id=None)],
        [_item(phase="Running")],
        [_item(attempt="one")],
        [_item(since=None)],
        [_item(since=5)],
        [_item(since="yesterday")],
        [_item(since="2030-01-01T11:59:00")],
        [_item(until="2030-01-01T11:59:00")],
        [_item(), _item(id="another")],
        # To reckon with these, or to count them up, would fail.
        [_item(since="9999-12-31T23:59:59Z")],
        [_item(until="0001-01-01T00:00:00+14:00")],
        [_item(attempt=2**31 - 1)],
        [_item(sends=2**31 - 1)],
        [_item(sends=-1)],
    ],
)
def test_a_damaged_ledger_is_refused(items: Any) -> None:
    with pytest.raises(LedgerError, match=r"the ledger in status cannot be read"):
        ledger_from_status(ledger_to_status(FULL) | {"items": items})


@pytest.mark.parametrize("counter", ["launched", "succeeded", "failed", "lost"])
@pytest.mark.parametrize("value", [-1, 2**63 - 1, "many", None])
def test_a_counter_that_cannot_be_counted_on_is_refused(counter: str, value: Any) -> None:
    with pytest.raises(LedgerError, match=r"the ledger in status cannot be read"):
        ledger_from_status(ledger_to_status(FULL) | {counter: value})


def test_times_are_written_to_the_second_in_utc() -> None:
    assert format_time(NOW.replace(microsecond=999)) == "2030-01-01T12:00:00Z"
    assert parse_time("2030-01-01T14:00:00+02:00") == NOW
    assert (format_time(None), parse_time(None)) == (None, None)


def test_claimed_and_launched_hold_a_slot() -> None:
    assert [each.key for each in FULL.outstanding] == ["a", "b"]


def test_an_item_that_was_claimed_once_was_first_claimed_then() -> None:
    assert item("a").first_claimed == ago(60)
    assert replace(item("a"), claimed=ago(99)).first_claimed == ago(99)
    assert FULL.endpoints == ENDPOINTS
