"""One row, its launches, a guard's store that may fail in every way, workers and operators.

Time goes in steps of BEAT, and all times in here are seconds from the present, so that a world in
which nothing has changed is the same world. Everybody who is well does in each step what he has to:
an operator looks once, a worker renews its leases. All else may happen at any time, or never.

A worker finds a store that was away within one BEAT; within a LEASE where it was away for as long,
or is another one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from scannerjob.model.facts import Observation, Report
from scannerjob.model.ledger import Item
from scannerjob.targets.celery.lapses import Lapses, Moment, Series, Sight
from scannerjob.worker.records import BEAT, LEASE, Execution, Reading, Record
from tests.model.guard_rules import Rules

NOW, STEP = 0.0, BEAT
# Older than this matters to nobody: see STEADY, and RESEND_FORGOTTEN of a second send.
LONG_AGO = -35.0
START = datetime(2030, 1, 1, tzinfo=UTC)
_A_STEP, _LONG_AGO = timedelta(seconds=STEP), START - timedelta(seconds=70)
# How long a send may be on its way in a process that has been frozen.
SEND_WITHIN = 30.0


class Broken(AssertionError):
    """A promise was broken; says which, and by which steps."""


@dataclass(frozen=True)
class Model:
    """What is explored.

    `one_redis`: broker and guard are the same Redis, which loses both together, and where a record
    and its message are put in one step. `faults`: so many things go wrong, of these `kinds`.
    """

    rules: Rules
    one_redis: bool = True
    operators: int = 1
    faults: int = 2
    kinds: frozenset[str] = frozenset()
    # Whether what the store itself has lost excuses anything.
    store_may_lose: bool = True
    # Mistakes of an operator that the exploration must find.
    no_supersede: bool = False
    supersede_late: bool = False
    gives_up_unclear: bool = False
    queued_is_sent: bool = False


class Message(NamedTuple):
    """One in the broker's queue, to be taken at `eta` at the earliest."""

    id: str
    retries: int = 0
    eta: float = NOW


class Run(NamedTuple):
    """An execution.

    `does`: working, committed, failing, retrying (these three end it with what they tell the
    store), dead (its heartbeat will tell). `halt`: frozen, cut off, or without heartbeat, since
    `halted`. `beaten` is when it last tried to renew its lease, `lost` that it was told to have
    none. `excused`: it may run beside another, see `guard_workers.judge`.
    """

    id: str
    retries: int
    owner: str
    beaten: float = NOW
    does: str = "working"
    halt: str = ""
    halted: float = NOW
    lost: bool = False
    excused: bool = False

    @property
    def execution(self) -> Execution:
        return Execution(self.id, self.retries, self.owner)

    @property
    def is_excused(self) -> bool:
        """Whether it may run beside another: it was halted for longer than a lease, at least."""
        return self.excused or (self.halt != "" and self.halted <= NOW - LEASE)


Records = tuple[tuple[str, Record], ...]


class Store(NamedTuple):
    """The guard's store; away since `down`, found again by `found` by those who are well."""

    records: Records = ()
    down: float | None = None
    identity: int = 0
    found: float = NOW
    saved: tuple[Records, tuple[Message, ...]] | None = None

    @property
    def up(self) -> bool:
        return self.down is None

    def get(self, launch: str) -> Record | None:
        return dict(self.records).get(launch)

    def put(self, launch: str, record: Record) -> Store:
        return self._replace(records=tuple(sorted({**dict(self.records), launch: record}.items())))

    def read(self) -> Reading:
        return Reading(str(self.identity), NOW, dict(self.records))


class Sending(NamedTuple):
    """A send that was claimed, until then; `registered` on a broker that keeps no records."""

    id: str
    sends: int
    until: float
    anew: bool
    registered: bool = False


class Operator(NamedTuple):
    """A process between two steps of its cycle, and what it remembers of the store's readings."""

    step: str = "look"
    series: Series | None = None
    sight: tuple[str, Sight] | None = None
    looked: bool = False
    unplaced: float | None = None  # since when there is a record and no message
    item: Item | None = None
    current: bool = False  # nobody wrote since it looked
    seen: Observation | None = None
    present: bool | None = None
    sending: Sending | None = None
    report: tuple[str, Report] | None = None
    cut: bool = False
    stalled: bool = False

    def recall(self) -> Lapses:
        lapses = Lapses()
        lapses.series = self.series
        return lapses


class World(NamedTuple):
    """Everything there is.

    `wanted`: the row matches; `done`: its work was done, or so by one that was excused. `lost`: the
    launches whose records the store has lost, or has older ones of, and nobody wrote them again.
    """

    store: Store = Store()
    queue: tuple[Message, ...] = ()
    runs: tuple[Run, ...] = ()
    item: Item | None = None
    launches: int = 0
    operators: tuple[Operator, ...] = ()
    wanted: bool = True
    done: str = ""
    lost: frozenset[str] = frozenset()
    owners: int = 0
    faults: int = 0

    def with_run(self, n: int, run: Run | None) -> World:
        runs = (*self.runs[:n], *((run,) if run else ()), *self.runs[n + 1 :])
        return self._replace(runs=runs)

    def with_operator(self, n: int, operator: Operator) -> World:
        operators = (*self.operators[:n], operator, *self.operators[n + 1 :])
        return self._replace(operators=operators)

    def written(self, launch: str, record: Record) -> World:
        """Somebody who knows what became of a launch has written it down."""
        return self._replace(store=self.store.put(launch, record), lost=self.lost - {launch})

    def with_message(self, message: Message) -> World:
        return self._replace(queue=tuple(sorted((*self.queue, message))))


# Time.


def later(world: World) -> World:
    """One step of time passes."""
    return world._replace(
        store=_later_store(world.store),
        queue=tuple(sorted(each._replace(eta=max(each.eta - STEP, NOW)) for each in world.queue)),
        runs=tuple(_later_run(each) for each in world.runs),
        item=_later_item(world.item),
        operators=tuple(_later_operator(each) for each in world.operators),
    )


def jumped(world: World, seconds: float) -> World:
    """The store's clock jumps."""
    records = _records(world.store.records, seconds)
    operators = tuple(
        each._replace(
            series=_shifted_series(each.series, 0.0, seconds),
            sight=_shifted_sight(each.sight, 0.0, seconds),
        )
        for each in world.operators
    )
    return world._replace(store=world.store._replace(records=records), operators=operators)


def _ago(moment: float, step: float = STEP, least: float = LONG_AGO) -> float:
    return max(moment - step, least)


def _later_run(run: Run) -> Run:
    halted = _ago(run.halted, least=-LEASE) if run.halt else NOW
    return run._replace(beaten=_ago(run.beaten, least=-STEP), halted=halted)


def _later_store(store: Store) -> Store:
    down = None if store.down is None else _ago(store.down, least=-LEASE)
    saved = store.saved and (_records(store.saved[0], STEP), store.saved[1])
    found = max(store.found - STEP, NOW)
    records = _records(store.records, STEP)
    return store._replace(records=records, down=down, saved=saved, found=found)


def _records(records: Records, seconds: float) -> Records:
    return tuple((launch, _shifted(record, seconds)) for launch, record in records)


def _shifted(record: Record, seconds: float) -> Record:
    if record.until is None:
        return record
    return replace(record, until=_ago(record.until, seconds, -STEP))


def _later_item(item: Item | None) -> Item | None:
    if item is None:
        return None
    return replace(
        item,
        since=max(item.since - _A_STEP, _LONG_AGO),
        claimed=item.claimed and max(item.claimed - _A_STEP, _LONG_AGO),
        until=item.until and max(item.until - _A_STEP, _LONG_AGO),
    )


def _later_operator(operator: Operator) -> Operator:
    sending = operator.sending
    return operator._replace(
        series=_shifted_series(operator.series, STEP, STEP),
        sight=_shifted_sight(operator.sight, STEP, STEP),
        looked=False,
        unplaced=None if operator.unplaced is None else _ago(operator.unplaced),
        stalled=False,
        item=_later_item(operator.item),
        sending=sending and sending._replace(until=_ago(sending.until)),
    )


def _shifted_series(series: Series | None, at: float, now: float) -> Series | None:
    if series is None:
        return None
    first, last = _moment(series.first, at, now), _moment(series.last, at, now)
    return Series(series.identity, first, last)


def _shifted_sight(
    sight: tuple[str, Sight] | None, at: float, now: float
) -> tuple[str, Sight] | None:
    if sight is None:
        return None
    launch, seen = sight
    record = seen.record and _shifted(seen.record, now)
    return launch, Sight(record, _moment(seen.first, at, now))


def _moment(moment: Moment, at: float, now: float) -> Moment:
    return Moment(_ago(moment.at, at), _ago(moment.now, now))
