"""What every store of the guard promises, as tests: a subclass gives them a World to run in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from threading import Barrier
from typing import Any

import pytest

from scannerjob.worker.records import Execution, Record, State, Store

LEASE, DELAY = 60.0, 30.0
CLAIMERS = 20
MANY = 1000
# How far the store's clock and its rounding may go while a test runs.
SLACK = 30.0


class World(ABC):
    """The place the records are kept in, as its owner sees it."""

    @abstractmethod
    def store(self) -> Store:
        """A store of its own, as another process would have it."""

    @cached_property
    def other(self) -> Store:
        """That of all who did something before."""
        return self.store()

    @abstractmethod
    def lapse(self, launch: str) -> None:
        """Have the lease of a launch that is running lapse."""

    @abstractmethod
    def silence(self) -> None:
        """Have the time of all announcements pass."""

    @abstractmethod
    def forget_all(self) -> None:
        """Lose all that was written, under a server that goes on."""

    @abstractmethod
    def ended(self) -> list[str]:
        """The launches of whose end somebody was told."""


def execution(launch: str, retries: int = 1, owner: str = "me") -> Execution:
    return Execution(launch, retries, owner)


def _nothing(world: World, launch: str) -> None:
    pass


def _queued(world: World, launch: str) -> None:
    world.other.register([launch])


def _running(owner: str, retries: int, *, lapsed: bool = False) -> Callable[[World, str], None]:
    def prepare(world: World, launch: str) -> None:
        assert world.other.claim(execution(launch, retries, owner), LEASE)
        if lapsed:
            world.lapse(launch)

    return prepare


def _ended(state: State, owner: str, retries: int) -> Callable[[World, str], None]:
    def prepare(world: World, launch: str) -> None:
        _running(owner, retries)(world, launch)
        assert world.other.finish(execution(launch, retries, owner), state, "why", DELAY)

    return prepare


def _superseded(world: World, launch: str) -> None:
    world.other.supersede([launch])


# What is there when the execution of 1 retry, owned by "me", does something.
STARTS: dict[str, Callable[[World, str], None]] = {
    "nothing": _nothing,
    "queued": _queued,
    "queued-ours": _ended(State.QUEUED, "me", 1),
    "queued-other": _ended(State.QUEUED, "other", 1),
    "running-ours": _running("me", 1),
    "running-ours-lapsed": _running("me", 1, lapsed=True),
    "running-other": _running("other", 1),
    "running-other-lapsed": _running("other", 1, lapsed=True),
    "running-fewer": _running("other", 0),
    "running-fewer-lapsed": _running("other", 0, lapsed=True),
    "running-more": _running("other", 2),
    "running-more-lapsed": _running("other", 2, lapsed=True),
    "retrying-ours": _ended(State.RETRYING, "me", 1),
    "retrying-other": _ended(State.RETRYING, "other", 1),
    "retrying-fewer": _ended(State.RETRYING, "other", 0),
    "retrying-more": _ended(State.RETRYING, "other", 2),
    "done-ours": _ended(State.DONE, "me", 1),
    "done-other": _ended(State.DONE, "other", 1),
    "done-fewer": _ended(State.DONE, "other", 0),
    "failed-ours": _ended(State.FAILED, "me", 1),
    "failed-other": _ended(State.FAILED, "other", 1),
    "failed-fewer": _ended(State.FAILED, "other", 0),
    "superseded": _superseded,
}

# yes: it may, and the record is then as it wants it; no: it may not, and nothing changes; same: it
# may, and nothing changes, since it is so already.
RULES = """
start                 claim  renew  done  failed  retrying  queued  register  supersede
nothing               yes    yes    yes   yes     yes       yes     yes       yes
queued                yes    yes    yes   yes     yes       yes     no        yes
queued-ours           yes    no     yes   yes     yes       same    no        yes
queued-other          yes    yes    yes   yes     yes       yes     no        yes
running-ours          yes    yes    yes   yes     yes       yes     no        no
running-ours-lapsed   yes    yes    yes   yes     yes       yes     no        yes
running-other         no     no     no    no      no        no      no        no
running-other-lapsed  no     no     no    no      no        no      no        yes
running-fewer         yes    yes    yes   yes     yes       no      no        no
running-fewer-lapsed  yes    yes    yes   yes     yes       no      no        yes
running-more          no     no     no    no      no        no      no        no
running-more-lapsed   no     no     no    no      no        no      no        yes
retrying-ours         no     no     no    no      same      no      no        yes
retrying-other        no     no     no    no      no        no      no        yes
retrying-fewer        yes    yes    yes   yes     yes       no      no        yes
retrying-more         no     no     no    no      no        no      no        yes
done-ours             no     no     same  no      no        no      no        no
done-other            no     no     no    no      no        no      no        no
done-fewer            no     no     no    no      no        no      no        no
failed-ours           no     no     no    same    no        no      no        no
failed-other          no     no     no    no      no        no      no        no
failed-fewer          no     no     no    no      no        no      no        no
superseded            no     no     no    no      no        no      no        no
"""


def _table(text: str) -> dict[str, dict[str, str]]:
    (_, *operations), *rows = (line.split() for line in text.strip().splitlines())
    return {start: dict(zip(operations, cells, strict=True)) for start, *cells in rows}


EXPECTED = _table(RULES)


def do(store: Store, operation: str, launch: str) -> bool:
    """Whether the store says that it may."""
    ours = execution(launch)
    match operation:
        case "claim":
            return store.claim(ours, LEASE)
        case "renew":
            return store.renew([ours], LEASE) == set()
        case "done" | "failed" | "retrying" | "queued":
            return store.finish(ours, State(operation), "why", DELAY)
        case "register":
            before = known(store, launch)
            assert store.register([launch]) == {launch: before.state if before else State.QUEUED}
            return before is None
        case _:
            before = known(store, launch)
            assert store.supersede([launch]) == {launch: known(store, launch)}
            return known(store, launch) != before


def wanted(operation: str, before: Record | None) -> Record:
    """The record as an operation wants it, but for its time."""
    match operation:
        case "claim" | "renew":
            return Record(State.RUNNING, 1, "me")
        case "done" | "failed" | "retrying" | "queued":
            return Record(State(operation), 1, "me", reason="why")
        case "register":
            return Record(State.QUEUED)
        case _:
            assert operation == "supersede"
            if before is None:
                return Record(State.SUPERSEDED)
            was, reason = before.state, before.reason
            return Record(State.SUPERSEDED, before.retries, before.owner, None, reason, was)


def known(store: Store, launch: str) -> Record | None:
    return store.read([launch]).records.get(launch)


def runs(store: Store, ours: Execution) -> bool:
    """Whether its record says that this execution runs."""
    expected = Record(State.RUNNING, ours.retries, ours.owner)
    return timeless(known(store, ours.id)) == expected


def timeless(record: Record | None) -> Record | None:
    if record is None:
        return None
    return Record(record.state, record.retries, record.owner, None, record.reason, record.was)


def seconds_ahead(store: Store, launch: str) -> float | None:
    """How far the time in its record is from the store's own."""
    reading = store.read([launch])
    until = reading.records[launch].until
    return None if until is None else until - reading.now


class GuardStoreSuite:
    """The promises."""

    def test_the_table_of_rules_is_whole(self) -> None:
        assert EXPECTED.keys() == STARTS.keys()

    @pytest.mark.parametrize("start", STARTS)
    def test_each_operation_changes_what_it_may_and_nothing_else(
        self, world: World, start: str
    ) -> None:
        store = world.store()
        for operation, expected in EXPECTED[start].items():
            launch = f"{start}-{operation}"
            STARTS[start](world, launch)
            before = known(store, launch)
            assert do(store, operation, launch) == (expected != "no"), operation
            after = known(store, launch)
            if expected == "yes":
                assert timeless(after) == wanted(operation, before), operation
            else:
                assert after == before, operation

    @pytest.mark.parametrize("start", STARTS)
    def test_an_operation_that_is_repeated_comes_to_the_same(
        self, world: World, start: str
    ) -> None:
        store = world.store()
        for operation in ("claim", "renew", "done", "failed", "retrying", "queued"):
            launch = f"{start}-{operation}"
            STARTS[start](world, launch)
            first = do(store, operation, launch)
            after = known(store, launch)
            assert do(world.other, operation, launch) == first, operation
            assert timeless(known(store, launch)) == timeless(after), operation

    @pytest.mark.parametrize("operation", ["claim", "renew"])
    def test_a_lease_is_counted_from_now_by_the_stores_clock(
        self, world: World, operation: str
    ) -> None:
        store = world.store()
        _running("me", 1, lapsed=True)(world, "a")
        do(store, operation, "a")
        ahead = seconds_ahead(store, "a")
        assert ahead is not None
        assert LEASE - SLACK < ahead <= LEASE

    def test_a_lease_has_lapsed_once_its_time_has_come(self, world: World) -> None:
        store, ours = world.store(), execution("a")
        assert store.claim(ours, 0.0)
        assert not store.claim(execution("a", owner="other"), 0.0)
        assert store.supersede(["a"])["a"].state is State.SUPERSEDED

    def test_an_end_that_is_told_otherwise_is_not_the_one_that_was_written(
        self, world: World
    ) -> None:
        store = world.store()
        assert store.finish(execution("a"), State.FAILED, "why")
        before = known(store, "a")
        assert not store.finish(execution("a"), State.FAILED, "for another reason")
        assert not store.finish(execution("a", retries=2), State.FAILED, "why")
        assert known(store, "a") == before

    def test_only_a_launch_to_be_retried_has_a_time_once_it_ended(self, world: World) -> None:
        store = world.store()
        for state in (State.DONE, State.FAILED, State.RETRYING):
            _ended(state, "me", 1)(world, state)
        assert seconds_ahead(store, State.DONE) is None
        assert seconds_ahead(store, State.FAILED) is None
        ahead = seconds_ahead(store, State.RETRYING)
        assert ahead is not None
        assert DELAY - SLACK < ahead <= DELAY

    def test_a_retry_runs_through_all_its_states(self, world: World) -> None:
        store = world.store()
        first, second = execution("a", 0, "first"), execution("a", 1, "second")
        assert store.claim(first, LEASE)
        assert store.finish(first, State.RETRYING, delay=DELAY)
        assert not runs(store, first)
        assert store.claim(second, LEASE)
        assert not store.finish(first, State.FAILED)
        assert store.finish(second, State.DONE)
        assert timeless(known(store, "a")) == Record(State.DONE, 1, "second")

    def test_one_that_was_given_back_is_begun_as_if_for_the_first_time(self, world: World) -> None:
        store = world.store()
        _ended(State.QUEUED, "me", 1)(world, "a")
        # A heartbeat that came too late must not take it from the next one.
        assert store.renew([execution("a")], LEASE) == {"a"}
        assert store.claim(execution("a", 0, "next"), LEASE)
        assert not store.finish(execution("a"), State.QUEUED)
        assert runs(store, execution("a", 0, "next"))

    def test_of_many_claims_at_once_one_begins(self, world: World) -> None:
        for start in ("nothing", "queued", "running-fewer-lapsed", "retrying-fewer"):
            STARTS[start](world, start)

            def claim(store: Store, number: int, launch: str = start) -> bool:
                return store.claim(_claimer(launch, number), LEASE)

            won = self.at_once(world, claim)
            assert won.count(True) == 1, start
            assert runs(world.other, _claimer(start, won.index(True)))

    def test_one_that_is_superseded_while_it_is_claimed_does_not_run(self, world: World) -> None:
        for number in range(2):
            launch = f"a{number}"

            def either(store: Store, n: int, launch: str = launch) -> bool:
                if n % 2:
                    return store.claim(_claimer(launch, n), LEASE)
                return store.supersede([launch])[launch].state is State.SUPERSEDED

            outcomes = self.at_once(world, either)
            begun = [each for n, each in enumerate(outcomes) if n % 2 and each]
            given_up = [each for n, each in enumerate(outcomes) if not n % 2 and each]
            assert bool(begun) != bool(given_up)
            assert len(begun) <= 1

    def test_all_find_registered_what_was_registered_at_once(self, world: World) -> None:
        ids = [f"a{number}" for number in range(100)]
        found = self.at_once(world, lambda store, n: store.register(ids[n:]))
        assert all(set(states.values()) == {State.QUEUED} for states in found)
        assert world.store().read(ids).records.keys() == set(ids)

    def test_a_thousand_are_dealt_with_at_once(self, world: World) -> None:
        store = world.store()
        ids = [f"launch-{number}" for number in range(MANY)]
        assert store.register(ids) == dict.fromkeys(ids, State.QUEUED)
        ours = [execution(each, 0, f"owner of {each}") for each in ids]
        assert store.renew(ours, LEASE) == set()
        assert store.renew(ours, LEASE) == set()
        records = store.read(ids).records
        assert {each: record.owner for each, record in records.items()} == {
            each.id: each.owner for each in ours
        }
        assert {record.state for record in store.supersede(ids).values()} == {State.RUNNING}
        others = [f"other-{number}" for number in range(MANY)]
        given_up = store.supersede(others)
        assert given_up == dict.fromkeys(others, Record(State.SUPERSEDED))

    def test_renewing_names_those_that_are_lost_and_keeps_the_others(self, world: World) -> None:
        store = world.store()
        mine = ("nothing", "queued", "running-ours", "running-ours-lapsed", "retrying-fewer")
        lost = ("running-other-lapsed", "done-other", "superseded", "retrying-more")
        for start in (*mine, *lost):
            STARTS[start](world, start)
        assert store.renew([execution(start) for start in (*mine, *lost)], LEASE) == set(lost)
        assert all(runs(store, execution(start)) for start in mine)

    def test_a_task_is_guarded_for_a_while_once_that_was_announced(self, world: World) -> None:
        store, other = world.store(), world.other
        assert not store.is_guarded("docs.pages")
        other.announce(["docs.pages", "docs.words"], LEASE)
        assert store.is_guarded("docs.pages")
        assert store.is_guarded("docs.words")
        assert not store.is_guarded("docs.Pages")
        assert not store.is_guarded("docs")

    def test_an_announcement_is_over_after_its_time(self, world: World) -> None:
        store = world.store()
        store.announce(["docs.pages", "docs.words"], LEASE)
        world.silence()
        assert not store.is_guarded("docs.pages")
        store.announce(["docs.words", "docs.lines"], LEASE)
        assert not store.is_guarded("docs.pages")
        assert store.is_guarded("docs.words")
        assert store.is_guarded("docs.lines")

    def test_an_announcement_of_one_leaves_that_of_another(self, world: World) -> None:
        store = world.store()
        store.announce(["docs.pages"], LEASE)
        world.other.announce(["docs.words"], LEASE)
        world.other.announce([], LEASE)
        assert store.is_guarded("docs.pages")
        assert store.is_guarded("docs.words")

    def test_an_announcement_that_was_forgotten_can_be_made_again(self, world: World) -> None:
        store = world.store()
        store.announce(["docs.pages"], LEASE)
        world.forget_all()
        assert not store.is_guarded("docs.pages")
        store.announce(["docs.pages"], LEASE)
        assert store.is_guarded("docs.pages")

    def test_names_of_tasks_may_be_many_and_long_and_of_any_letters(self, world: World) -> None:
        store = world.store()
        names = [f"größe.{'x' * 300}.{number}" for number in range(MANY)]
        for _ in range(2):
            store.announce(names, LEASE)
            assert all(store.is_guarded(name) for name in names[:: MANY // 4])

    def test_many_may_announce_the_same_at_once(self, world: World) -> None:
        names = [f"task {number}" for number in range(10)]
        self.at_once(world, lambda store, _: store.announce(names, LEASE))
        assert all(world.other.is_guarded(name) for name in names)

    def test_no_ids_are_no_trouble(self, world: World) -> None:
        store = world.store()
        assert store.renew([], LEASE) == set()
        assert store.register([]) == {}
        assert store.supersede([]) == {}
        assert store.read([]).records == {}

    def test_what_was_forgotten_is_written_anew_by_those_who_know_it(self, world: World) -> None:
        store = world.store()
        for launch in ("renewed", "finished", "sent again"):
            _running("me", 1)(world, launch)
        identity = store.read([]).identity
        world.forget_all()
        assert store.read(["renewed"]).records == {}
        assert store.renew([execution("renewed")], LEASE) == set()
        assert store.finish(execution("finished"), State.DONE)
        assert store.register(["sent again"]) == {"sent again": State.QUEUED}
        assert store.renew([execution("sent again")], LEASE) == set()
        assert not store.claim(execution("sent again", owner="second delivery"), LEASE)
        assert not store.claim(execution("finished", owner="second delivery"), LEASE)
        assert store.read([]).identity == identity

    def test_all_see_the_same_identity_and_time(self, world: World) -> None:
        one, other = world.store().read([]), world.store().read([])
        assert one.identity == other.identity != ""
        assert 0 <= other.now - one.now < SLACK

    def test_each_end_is_told_once(self, world: World) -> None:
        store = world.store()
        assert world.ended() == []
        for state in (State.DONE, State.FAILED, State.RETRYING):
            _ended(state, "me", 1)(world, state)
            store.finish(execution(state), state, "why", DELAY)
            store.finish(execution(state, owner="other"), State.FAILED)
        _ended(State.QUEUED, "me", 1)(world, "given back")
        assert sorted(world.ended()) == ["done", "failed", "retrying"]

    def test_a_reason_may_hold_any_letter(self, world: World) -> None:
        store = world.store()
        reason = "Grüße 🚀 'quoted' \\ \"twice\" %s {x} :y\nsecond line"
        assert store.finish(execution("a"), State.FAILED, reason)
        assert store.finish(execution("a"), State.FAILED, reason)
        found = known(store, "a")
        assert found is not None
        assert found.reason == reason

    def test_ids_that_differ_in_case_are_two(self, world: World) -> None:
        store = world.store()
        assert store.claim(execution("abc"), LEASE)
        assert store.claim(execution("ABC", owner="other"), LEASE)
        assert not store.claim(execution("abc", owner="ME"), LEASE)

    def test_a_store_that_was_closed_connects_again(self, world: World) -> None:
        store = world.store()
        assert store.claim(execution("a"), LEASE)
        store.close()
        store.close()
        assert runs(store, execution("a"))

    def at_once(self, world: World, work: Callable[[Store, int], Any]) -> list[Any]:
        """What `work` returns to each of many threads that begin together, each with a store."""
        barrier = Barrier(CLAIMERS)

        def run(number: int) -> Any:
            store = world.store()
            store.read([])
            barrier.wait(60)
            return work(store, number)

        with ThreadPoolExecutor(CLAIMERS) as threads:
            return list(threads.map(run, range(CLAIMERS)))


def _claimer(launch: str, number: int) -> Execution:
    return execution(launch, owner=f"claimer {number}")
