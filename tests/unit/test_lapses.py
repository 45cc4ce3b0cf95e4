"""When a lapsed lease, or a missing record, is believed."""

from __future__ import annotations

from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.celery.lapses import SEEN_AGAIN, STEADY, Lapses, View
from scannerjob.worker.records import LEASE, Reading, Record, State

EVERY = 3.0
# The store's clock has nothing to do with ours.
STORE = 1_700_000_000.0
LAPSED = Record(State.RUNNING, owner="a", until=STORE - 1)


def look(
    view: View,
    at: float,
    record: Record | None = None,
    *,
    identity: str = "one",
    store: float | None = None,
) -> Observation | None:
    now = STORE + at if store is None else store
    records = {"x": record} if record else {}
    return view.note(Reading(identity, now, records), ["x"], at).get("x")


def looks(view: View, begin: float, end: float, record: Record | None = None) -> Observation | None:
    """What is seen at `end`, after looks since `begin`."""
    seen = None
    while begin <= end:
        seen = look(view, begin, record)
        begin += EVERY
    return seen


def fact(seen: Observation | None) -> Fact | None:
    return seen.fact if seen else None


def test_a_record_tells_what_it_says() -> None:
    told = {
        Record(State.QUEUED): Fact.ACCEPTED,
        Record(State.RUNNING, until=STORE + 10): Fact.RUNNING,
        Record(State.RETRYING, until=STORE - 10): Fact.STARTED,
        Record(State.DONE): Fact.SUCCEEDED,
        Record(State.FAILED): Fact.FAILED,
        Record(State.SUPERSEDED, was=State.RUNNING): Fact.LAPSED,
        Record(State.SUPERSEDED, was=State.RETRYING): Fact.LAPSED,
        Record(State.SUPERSEDED, was=State.QUEUED): Fact.SUPERSEDED,
        Record(State.SUPERSEDED): Fact.SUPERSEDED,
    }
    for record, expected in told.items():
        assert fact(look(Lapses().view(), 0, record)) is expected, record


def test_why_it_failed_is_told() -> None:
    seen = look(Lapses().view(), 0, Record(State.FAILED, reason="its worker process died"))

    assert seen == Observation(Fact.FAILED, "its worker process died")


def test_a_lapse_is_believed_once_the_store_was_read_for_two_lease_periods() -> None:
    view = Lapses().view()

    assert fact(looks(view, 0, STEADY - EVERY, LAPSED)) is Fact.RUNNING
    assert fact(look(view, STEADY, LAPSED)) is Fact.SILENT


def test_a_lapse_that_is_seen_for_the_first_time_is_not_believed() -> None:
    view = Lapses().view()
    looks(view, 0, 60, Record(State.RUNNING, owner="a", until=STORE + 65))

    assert fact(look(view, 66, Record(State.RUNNING, owner="a", until=STORE + 65))) is Fact.RUNNING
    assert fact(look(view, 69, Record(State.RUNNING, owner="a", until=STORE + 65))) is Fact.RUNNING
    assert fact(look(view, 72, Record(State.RUNNING, owner="a", until=STORE + 65))) is Fact.SILENT


def test_another_lease_that_has_lapsed_is_another_sight() -> None:
    view = Lapses().view()
    looks(view, 0, 60, LAPSED)

    assert fact(look(view, 63, Record(State.RUNNING, owner="b", until=STORE - 1))) is Fact.RUNNING


def test_a_lease_that_was_renewed_begins_anew() -> None:
    view = Lapses().view()
    looks(view, 0, 60, LAPSED)
    look(view, 63, Record(State.RUNNING, owner="a", until=STORE + 78))

    assert fact(look(view, 66, LAPSED)) is Fact.RUNNING


def test_after_a_reading_that_failed_nothing_is_believed_at_once() -> None:
    lapses = Lapses()
    view = lapses.view()
    assert fact(looks(view, 0, 60, LAPSED)) is Fact.SILENT

    lapses.failed()

    assert fact(looks(view, 63, 90, LAPSED)) is Fact.RUNNING
    assert fact(look(view, 93, LAPSED)) is Fact.SILENT


def test_after_a_gap_nothing_is_believed_at_once() -> None:
    view = Lapses().view()
    looks(view, 0, 60, LAPSED)

    assert fact(look(view, 60 + LEASE, LAPSED)) is Fact.SILENT
    assert fact(look(view, 61 + 2 * LEASE, LAPSED)) is Fact.RUNNING


def test_another_store_is_another_series() -> None:
    view = Lapses().view()
    looks(view, 0, 60, LAPSED)

    assert fact(look(view, 63, LAPSED, identity="two")) is Fact.RUNNING


def test_a_jump_of_the_stores_clock_is_a_gap() -> None:
    view = Lapses().view()
    lease = Record(State.RUNNING, owner="a", until=STORE + 10_000)
    looks(view, 0, 60, lease)

    for at in (63, 66, 69, 72):
        assert fact(look(view, at, lease, store=STORE + at + 20_000)) is Fact.RUNNING


def test_time_in_which_a_reading_hung_does_not_count() -> None:
    """Asked at 63, the store answered at 71: workers had no time yet to renew their leases."""
    view = Lapses().view()
    looks(view, 0, 60, Record(State.RUNNING, owner="a", until=STORE + 70))
    lease = Record(State.RUNNING, owner="a", until=STORE + 70)

    assert fact(look(view, 63, lease, store=STORE + 71)) is Fact.RUNNING
    assert fact(look(view, 71, lease)) is Fact.RUNNING
    assert fact(look(view, 71 + SEEN_AGAIN, lease)) is Fact.SILENT


def test_a_record_that_is_missing_says_nothing_for_two_lease_periods() -> None:
    view = Lapses().view()
    looks(view, 0, 57, Record(State.QUEUED))

    assert looks(view, 60, 60 + STEADY - EVERY) is None
    assert fact(look(view, 60 + STEADY)) is Fact.FORGOTTEN


def test_a_launch_whose_record_is_missing_is_unclear_until_it_is_forgotten() -> None:
    view = Lapses().view()
    assert not view.is_unclear("x")

    looks(view, 0, STEADY - EVERY)
    assert view.is_unclear("x")

    look(view, STEADY)
    assert not view.is_unclear("x")


def test_after_a_reading_that_failed_all_that_is_missing_is_unclear() -> None:
    lapses = Lapses()
    view = lapses.view()
    looks(view, 0, STEADY)

    lapses.failed()

    assert view.is_unclear("x")


def test_a_record_that_comes_back_was_not_forgotten() -> None:
    view = Lapses().view()
    looks(view, 0, STEADY - EVERY)
    look(view, STEADY, Record(State.QUEUED))

    assert looks(view, STEADY + EVERY, 2 * STEADY) is None


def test_what_is_missing_from_a_store_that_was_begun_anew_counts_from_then_on() -> None:
    view = Lapses().view()
    looks(view, 0, STEADY - EVERY)
    look(view, STEADY - 1, identity="two")

    assert look(view, STEADY, identity="two") is None


def test_many_readers_make_one_series_and_each_remembers_its_own() -> None:
    lapses = Lapses()
    mine, other = lapses.view(), lapses.view()
    look(mine, 0, LAPSED)
    for at in range(10, 40, 10):
        other.note(Reading("one", STORE + at, {}), ["y"], float(at))

    assert fact(look(mine, 40, LAPSED)) is Fact.SILENT


def test_readings_that_are_told_in_another_order_leave_no_gap() -> None:
    lapses = Lapses()
    mine, other = lapses.view(), lapses.view()
    looks(mine, 0, STEADY, LAPSED)
    other.note(Reading("one", STORE + STEADY - 1, {}), ["y"], STEADY - 1)

    assert fact(look(mine, STEADY + EVERY, LAPSED)) is Fact.SILENT


def test_launches_that_are_asked_for_no_more_are_forgotten() -> None:
    view = Lapses().view()
    looks(view, 0, 60, LAPSED)
    view.note(Reading("one", STORE + 63, {}), [], 63)

    assert not view.sights
    assert fact(look(view, 66, LAPSED)) is Fact.RUNNING
