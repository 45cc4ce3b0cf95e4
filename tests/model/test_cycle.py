"""The whole cycle against a world in which everything fails: no promise may break, in any order.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import Phase

from scannerjob import scan
from scannerjob.model import book, decide, settle
from scannerjob.model.book import Book
from scannerjob.model.row import Rows
from scannerjob.observer import Observer
from scannerjob.ports import ConflictError, SourceError, UnknownOutcomeError
from scannerjob.scan import Scanner
from tests.model.basics import Violation
from tests.model.machine import CHANGES, STEPS, STEPS_PER_WALK, Cycle, run


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails() -> None:
    run(max_examples=max(1, STEPS // STEPS_PER_WALK), print_blob=True)


# What must be found: each of these breaks one rule.


def _orphans_are_taken_for_unsent(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Book, "claim_again", lambda self, item, row: self.claim(row, 1, item.id + "x"))


def _lost_writes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Scanner, "_claim", _claim_whatever_becomes_of_it)


async def _claim_whatever_becomes_of_it(
    scanner: Any, snapshot: Any, status: Any, decision: Any
) -> Any:
    with suppress(ConflictError, UnknownOutcomeError):
        await scanner._store.write(snapshot, status)
    return status


def _lives_are_over_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(settle, "life_is_over", lambda item, facts: item.until is not None)


def _a_look_that_failed_shows_no_rows(patch: pytest.MonkeyPatch) -> None:
    async def look(scanner: Any, connections: Any, *_: Any) -> Rows:
        try:
            return cast(Rows, await connections.source.scan(1000))
        except SourceError:
            return Rows(connections.source.query_hash, complete=True, key=("id",))

    patch.setattr(Observer, "_look", look)


def _waiting_rows_are_never_due(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "_retry", lambda book, facts, new_id: iter(()))


def _moved_brokers_are_taken_over_at_once(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "endpoint_changed", lambda ledger, facts: False)


def _key_columns_do_not_matter(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(decide, "key_changed", lambda *_: False)


def _one_loss_is_accepted_for_all(patch: pytest.MonkeyPatch) -> None:
    begin = scan._lost_ledger
    patch.setattr(scan, "_lost_ledger", lambda *seen: replace(begin(*seen), handled_requests={}))


def _rests_are_cut_to_the_second(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(book, "whole", lambda moment: moment and moment.replace(microsecond=0))


def _deletion_stops_nothing(patch: pytest.MonkeyPatch) -> None:
    hold = Observer._hold
    patch.setattr(Observer, "_hold", lambda self, seen: hold(self, replace(seen, deleting=False)))


def _rows_that_left_settle_what_is_told(patch: pytest.MonkeyPatch) -> None:
    settles = settle._leaving_settles
    patch.setattr(settle, "_leaving_settles", lambda item, facts, told: settles(item, facts, False))


# A world without what hides a mistake of brokers.
_PLAIN = {
    "republish": False,
    "outcomes": False,
    "flips": False,
    "loses_ledgers": False,
    "unfetchable": 0,
    "cooldown": "0s",
}

# Where each is found soonest: in what kind of world, and by what happens there besides faults.
MISTAKES: dict[Callable[[pytest.MonkeyPatch], None], tuple[dict[str, Any], list[str]]] = {
    _orphans_are_taken_for_unsent: ({}, ["crash"]),
    _lost_writes_are_forgotten: ({}, CHANGES),
    _lives_are_over_at_once: ({}, CHANGES),
    _a_look_that_failed_shows_no_rows: (
        {"outcomes": False, "flips": False, "loses_ledgers": False, "cooldown": "0s"},
        ["rows return"],
    ),
    _waiting_rows_are_never_due: ({}, CHANGES),
    _moved_brokers_are_taken_over_at_once: (
        {**_PLAIN, "idempotent": True, "rows": 4, "cap": 3},
        ["broker"],
    ),
    _key_columns_do_not_matter: ({"rows": 3}, ["key"]),
    _one_loss_is_accepted_for_all: ({"loses_ledgers": True}, ["wipe", "accept"]),
    _rests_are_cut_to_the_second: ({"cooldown": "2s"}, ["rows return"]),
    _deletion_stops_nothing: ({}, ["delete"]),
    _rows_that_left_settle_what_is_told: ({"flips": True}, ["rows return"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_finds(mistake: Callable[[pytest.MonkeyPatch], None]) -> None:
    setup, changes = MISTAKES[mistake]
    machine = type("Focused", (Cycle,), {"setup": setup, "changes": changes})
    with pytest.MonkeyPatch.context() as patch:
        mistake(patch)
        with pytest.raises(Violation):
            run(
                machine, max_examples=2000, derandomize=True, phases=[Phase.generate], database=None
            )
