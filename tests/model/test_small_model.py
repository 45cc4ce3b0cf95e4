"""Every order of everything, in a world small enough to try them all, and proof that it can fail.

`python -m tests.model.explore` explores larger worlds to the end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from scannerjob.model import book, settle
from scannerjob.model.decide import decide
from scannerjob.model.facts import Decision, Fact, Facts, Observation, Report
from scannerjob.model.ledger import Item, Ledger
from scannerjob.model.spec import ScannerJobSpec
from tests.model.explore import TARGETS, Size, model
from tests.model.small import Broken, Model, State, begin, steps
from tests.model.small_search import Search, explore
from tests.model.small_states import identity, tidied

SIZES = {
    "rows": Size(rows=2, cap=1, attempts=1, faults=0, waits=0),
    "faults": Size(rows=1, cap=1, attempts=1, faults=1, waits=0),
    "time": Size(rows=1, cap=1, attempts=1, faults=0, waits=1, spells=1),
}

pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_no_order_of_events_breaks_a_promise(target: str, size: str) -> None:
    found = explore(model(target, SIZES[size]))
    print(found)
    assert found.ended
    assert found.states > 50


# Without faults, with one, and with time.
TINY = {
    "celery-drops-limited": Size(rows=2, cap=1, attempts=1, faults=0, waits=0),
    "celery-told": Size(rows=1, cap=1, attempts=1, faults=0, waits=0),
    "celery-limited": Size(rows=1, cap=1, attempts=1, faults=1, waits=0),
    "celery": Size(rows=1, cap=1, attempts=1, faults=0, waits=1, spells=1),
}


@pytest.mark.parametrize("target", TINY)
def test_what_is_taken_for_the_same_state_hides_no_other(target: str) -> None:
    explored = model(target, TINY[target])
    search = Search(explored)
    search.run()
    assert search.seen.keys() == {
        identity(tidied(explored, state)) for state in _all_as_they_are(explored)
    }


def _all_as_they_are(explored: Model) -> Iterator[State]:
    """Every state, with all that is in it, each as often as it differs in anything."""
    todo = deque([begin(explored)])
    seen = {repr(todo[0])}
    while todo:
        yield (state := todo.popleft())
        for _, after in steps(explored, state):
            if (form := repr(after)) not in seen:
                seen.add(form)
                todo.append(after)


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
    assert "after its slot was freed" in _found(
        replace(_model(), idempotent=False, rows=1, waits=0)
    )


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

    model = replace(_model(), decide=forgetful, faults=2, waits=1, rows=1, spells=(6,))
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
    return TARGETS["jobs"]


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
