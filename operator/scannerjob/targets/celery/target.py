"""The Celery target of one ScannerJob."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from scannerjob.clock import boottime
from scannerjob.model.facts import Backlog, Fact, Observation, Send, Sightings, TargetTraits
from scannerjob.model.ledger import Item
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.ports import TargetError
from scannerjob.targets.celery.events import Watch
from scannerjob.targets.celery.guard import Guard
from scannerjob.targets.celery.lapses import STEADY
from scannerjob.targets.celery.outcomes import Outcomes
from scannerjob.targets.celery.publisher import Publisher
from scannerjob.targets.celery.redis_broker import RETENTION
from scannerjob.worker.records import State

log = logging.getLogger(__name__)

# Some time before its record may be gone, a launch is no longer sent again.
_RESEND_WITHIN = RETENTION - timedelta(hours=1)
# Seconds between two looks at the queue.
_LOOK_EVERY, _AFTER_A_VAIN_LOOK = 10.0, 60.0
# A launch in these states needs no message.
_NOT_TO_SEND = frozenset(State) - {State.QUEUED}


class CeleryTarget:
    """Launches each row as one Celery task whose id is the launch's; a `scannerjob.ports.Target`.

    `life_margin`: how much longer than `expires` and `deadline` say a task may live on this broker.
    `watches` are there where something may tell that a task has ended.
    """

    def __init__(
        self,
        publisher: Publisher,
        outcomes: Outcomes | None,
        celery: CelerySpec,
        life_margin: timedelta,
        watches: Sequence[Watch],
        guard: Guard | None = None,
    ) -> None:
        self._publisher = publisher
        self._outcomes = outcomes
        self._celery = celery
        self._life_margin = life_margin
        self._backlog: Backlog | None = None
        self._next_look = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._watches = watches
        self._guard = guard
        self._view = guard.view() if guard else None
        self._seen_unguarded = False
        self._unplaced: dict[str, float] = {}

    @property
    def traits(self) -> TargetTraits:
        """As far as is known of the broker by now; see `observe`."""
        return TargetTraits(
            tells_outcomes=self._outcomes is not None,
            resend_within=self._resend_within,
            republish=self._celery.on_uncertain_publish == "Republish",
            life_margin=self._life_margin,
            guarded=self._guard is not None,
        )

    @property
    def _resend_within(self) -> timedelta | None:
        if self._guard:
            # Whatever comes twice, it is begun once.
            return timedelta.max
        return _RESEND_WITHIN if self._publisher.keeps_records else None

    @property
    def _shares_records(self) -> bool:
        """Whether a launch's record in the guard's store is written with its message."""
        if self._guard is None or not self._publisher.keeps_records:
            return False
        return self._guard.endpoint.identity == self._publisher.endpoint.identity

    @property
    def endpoints(self) -> Mapping[str, str]:
        """The identities of the broker, and of the result backend and the guard's store, if any."""
        endpoints = {"broker": self._publisher.endpoint.identity}
        if self._outcomes:
            endpoints["resultBackend"] = self._outcomes.endpoint.identity
        if self._guard:
            endpoints["guard"] = self._guard.endpoint.identity
        return endpoints

    async def check(self) -> None:
        """Make sure that broker and guard answer, within 10 seconds each. Raises TargetError."""
        await self._publisher.contact()
        if self._guard:
            await self._guard.supersede([])

    async def observe(self, ids: Collection[str]) -> Sightings:
        """What guard and result backend know of these launches; nothing without either.

        The first call with anything outstanding also asks the broker whether it keeps records,
        which `traits` depend on: what a crash left behind can then be sent again in the same cycle.
        Events are no evidence: they make it look at the rows, no more. Raises TargetError.
        """
        hints = [watch.take(ids) for watch in self._watches]
        if not ids:
            return Sightings()
        await self._publisher.learn()
        self._look_at_queue()
        seen = await self._outcomes.read(list(ids)) if self._outcomes else {}
        if self._guard and self._view:
            # What was seen before a reading that fails does not count any more.
            unplaced, self._unplaced = self._unplaced, {}
            by_guard = await self._guard.read(list(ids), self._view)
            seen = _merged(seen, await self._placed(by_guard, unplaced))
        return Sightings(seen, backlog=self._backlog, hinted=any(hints))

    async def _placed(
        self, seen: Mapping[str, Observation], unplaced: Mapping[str, float]
    ) -> dict[str, Observation]:
        """What the guard told; of what waits for a worker, whether there is a message at all.

        One that a killed worker had taken from the queue, and not begun, comes back after the
        broker's own timeout, an hour on Redis, or never. Where no worker says that it guards this
        task, it may as well be run by one that has no guard. `unplaced` is since when launches were
        in no queue.
        """
        waiting = {each for each, told in seen.items() if told.fact is Fact.ACCEPTED}
        empty = self._backlog is not None and not self._backlog.waiting
        now = boottime()
        self._unplaced = {each: unplaced.get(each, now) for each in waiting if empty}
        lost = {each for each, since in self._unplaced.items() if now - since > STEADY}
        if lost and not await self._is_guarded():
            lost = set()
        placed = {**seen, **{each: Observation(Fact.FORGOTTEN) for each in lost}}
        if not self._shares_records:
            # A record tells only that it was about to be sent.
            placed = {each: told for each, told in placed.items() if told.fact is not Fact.ACCEPTED}
        return placed

    def _look_at_queue(self) -> None:
        """Look at it now and then, and wait for nothing: a later call has the answer.

        Rows and results settle launches even while the broker hangs.
        """
        due = boottime() >= self._next_look and (self._looking is None or self._looking.done())
        if due and self._celery.exchange is None:
            self._looking = asyncio.create_task(self._look(self._celery.queue))

    async def _look(self, queue: str) -> None:
        try:
            self._backlog = await self._publisher.look(queue)
            self._next_look = boottime() + _LOOK_EVERY
        except TargetError:
            self._backlog = None
            self._next_look = boottime() + _AFTER_A_VAIN_LOOK

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        """Publish one task per send, none after `deadline`; says of each what is known."""
        for watch in self._watches:
            watch.expect([send.item.id for send in sends])
        known = await self._register(sends)
        unknown = [send for send in sends if send.item.id not in known]
        return {**known, **await self._publisher.launch(unknown, self._celery, deadline)}

    async def _register(self, sends: Sequence[Send]) -> Mapping[str, Observation]:
        """Have the guard's store know of these before any worker can; gives those not to be sent.

        A crash after this leaves records of what was never sent. They prove nothing: so there must
        be none where a record is written with its message, and proves that there is one.
        """
        if self._guard is None:
            return {}
        try:
            if self._publisher.keeps_records is None:
                await self._publisher.contact()
            if self._shares_records:
                return {}
            states = await self._guard.register([send.item.id for send in sends])
        except TargetError as error:
            return {send.item.id: Observation(Fact.NOT_SENT, str(error)) for send in sends}
        return {each: _registered(state) for each, state in states.items() if state in _NOT_TO_SEND}

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        """Mark these, so that what still comes of them does nothing. Raises TargetError.

        With a guard, whatever does not run now, but for what it is not known of: see
        `View.is_unclear`. Without one, on a Redis that evicts nothing, what was never put: to be
        believed only within `traits.resend_within` of the first claim, since an older record may be
        gone, and its launch look like one that never was.
        """
        if self._guard is None or self._view is None:
            return await self._publisher.supersede(list(ids)) if ids else {}
        clear = [each for each in ids if not self._view.is_unclear(each)]
        if not clear:
            return {}
        given_up = await self._guard.supersede(clear)
        if any(seen.fact is Fact.SUPERSEDED for seen in given_up.values()):
            # What was given up is to be known, whatever becomes of this question.
            with contextlib.suppress(TargetError):
                await self._is_guarded()
        return given_up

    async def _is_guarded(self) -> bool:
        """Whether a worker says that it guards this task; warns once if none does.

        To be asked where launches were not begun: workers without the guard do not say so.
        """
        assert self._guard
        guarded = await self._guard.guards(self._celery.task)
        if not guarded and not self._seen_unguarded:
            log.warning(
                "no worker has told %s that it guards the task %s; is scannerjob.worker.install "
                "called in its app? Until one has, launches whose messages are lost are held",
                self._guard.endpoint,
                self._celery.task,
            )
        self._seen_unguarded = not guarded
        return guarded

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        """A task leaves nothing behind that is not its broker's or its backend's to remove."""


def _merged(
    outcomes: Mapping[str, Observation], by_guard: Mapping[str, Observation]
) -> dict[str, Observation]:
    """The guard's word, but for what has ended and it does not know of.

    A worker without the guard reports its ends to the result backend alone.
    """
    merged = dict(by_guard)
    for each, seen in outcomes.items():
        told = merged.get(each)
        unknown = told is None or told.fact in (Fact.ACCEPTED, Fact.FORGOTTEN)
        if seen.fact is Fact.SUCCEEDED or (seen.fact is Fact.FAILED and unknown):
            merged[each] = seen
    return merged


def _registered(state: State) -> Observation:
    superseded = state is State.SUPERSEDED
    return Observation(Fact.SUPERSEDED if superseded else Fact.ACCEPTED)
