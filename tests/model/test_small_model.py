"""Every order of everything, in a world small enough to try them all, and proof that it can fail.

SCANNERJOB_PROVE_STEPS=1000000 visits so many states of each kind of target.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from scannerjob.model import book, settle
from scannerjob.model.decide import decide
from scannerjob.model.facts import Decision, Fact, Facts, Observation, Report
from scannerjob.model.ledger import Item, Ledger
from scannerjob.model.spec import ScannerJobSpec
from tests.model.small import Broken, Model, explore

STATES = int(os.environ.get("SCANNERJOB_PROVE_STEPS", "15000"))
KINDS = list(itertools.product([True, False], repeat=3))

pytestmark = pytest.mark.timeout(24 * 3600)


@pytest.mark.parametrize(("idempotent", "outcomes", "lifetime"), KINDS)
def test_no_order_of_events_breaks_a_promise(
    idempotent: bool, outcomes: bool, lifetime: bool
) -> None:
    spells = (6, 40, 140) if lifetime else (6, 40, 960)
    model = Model(decide, idempotent, outcomes, lifetime, spells=spells)
    print(explore(model, STATES), "states")


def test_no_order_of_events_breaks_a_promise_where_rows_become_jobs() -> None:
    print(explore(_jobs(), STATES), "states")


def test_one_row_without_faults_is_explored_to_the_end() -> None:
    model = Model(decide, True, False, True, rows=1, faults=0, waits=1, spells=(6, 140))
    visited = explore(model, 10**6)
    print(visited, "states")
    assert visited > 10_000


# What must be found: each of these breaks the decision, the cycle or the target in one place.


def test_finds_a_cap_that_is_off_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        book.Book, "slot_is_free", lambda self: self.active <= self.spec.concurrency
    )
    assert "cap" in _found(_model())


def test_finds_that_conflicts_are_ignored() -> None:
    assert _found(replace(_model(), ignore_conflicts=True))


def test_finds_a_query_made_before_the_observation() -> None:
    model = Model(decide, True, True, True, rows=1, query_first=True, waits=0, faults=0)
    assert "finished row" in _found(model)


def test_finds_a_frozen_sender_that_sends_late() -> None:
    model = Model(decide, False, False, False, rows=1, spells=(960,), waits=1, late_is_sent=True)
    assert "after its slot was freed" in _found(model)


def test_finds_that_a_row_which_left_frees_a_claim_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(settle, "_leaving_settles", lambda item, facts, told: not told)
    assert "after its slot was freed" in _found(replace(_model(), idempotent=False, rows=1))


def test_finds_that_a_later_send_which_failed_frees_the_slot() -> None:
    def forgetful(
        spec: ScannerJobSpec,
        ledger: Ledger,
        facts: Facts,
        now: datetime,
        new_id: Callable[[], str],
    ) -> Decision:
        """Takes NOT_SENT of any send for proof of all."""
        reports = {i: _first(report) for i, report in facts.reports.items()}
        items = tuple(_first_send(item, reports) for item in ledger.items)
        return decide(
            spec, replace(ledger, items=items), replace(facts, reports=reports), now, new_id
        )

    model = replace(_model(), decide=forgetful, faults=2, rows=1, spells=(6,))
    assert _found(model)


def test_finds_a_life_that_is_taken_for_over_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settle, "life_is_over", lambda item, facts: _age(item, facts) >= 5)
    assert _found(replace(_model(), rows=1))


def test_finds_a_claim_that_is_taken_for_never_created_too_early(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never_came(item: Item, seen: Observation | None, read_at: datetime) -> bool:
        return seen is not None and seen.fact is Fact.GONE

    monkeypatch.setattr(settle, "_never_came", never_came)
    assert "0 ends for 1 of 1 launches" in _found(replace(_jobs(), rows=1))


def _jobs() -> Model:
    return Model(decide, True, True, False, spells=(6, 40, 960), jobs=True)


def _model() -> Model:
    return Model(decide, idempotent=True, outcomes=False, lifetime=True)


def _found(model: Model) -> str:
    with pytest.raises(Broken) as broken:
        explore(model, 100_000)
    return str(broken.value)


def _first(report: Report) -> Report:
    refused = report.observation.fact is Fact.NOT_SENT
    return replace(report, sends=1) if refused else report


def _first_send(item: Item, reports: dict[str, Report]) -> Item:
    report = reports.get(item.id)
    return replace(item, sends=1) if report and report.sends == 1 else item


def _age(item: Item, facts: Facts) -> float:
    return (facts.read_at - item.since) / timedelta(seconds=1)
