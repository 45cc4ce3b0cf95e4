"""The Celery target of one ScannerJob."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from scannerjob.clock import boottime
from scannerjob.model.facts import Backlog, Observation, Send, Sightings, TargetTraits
from scannerjob.model.ledger import Item
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.ports import TargetError
from scannerjob.targets.celery.events import Watch
from scannerjob.targets.celery.outcomes import Outcomes
from scannerjob.targets.celery.publisher import Publisher
from scannerjob.targets.celery.redis_broker import RETENTION

# Some time before its record may be gone, a launch is no longer sent again.
_RESEND_WITHIN = RETENTION - timedelta(hours=1)
# Seconds between two looks at the queue.
_LOOK_EVERY, _AFTER_A_VAIN_LOOK = 10.0, 60.0


class CeleryTarget:
    """Launches each row as one Celery task whose id is the launch's; a `scannerjob.ports.Target`.

    `life_margin`: how much longer than `expires` and `deadline` say a task may live on this broker.
    `watch` is there where events may tell that a task has ended.
    """

    def __init__(
        self,
        publisher: Publisher,
        outcomes: Outcomes | None,
        celery: CelerySpec,
        life_margin: timedelta,
        watch: Watch | None,
    ) -> None:
        self._publisher = publisher
        self._outcomes = outcomes
        self._celery = celery
        self._life_margin = life_margin
        self._backlog: Backlog | None = None
        self._next_look = 0.0
        self._looking: asyncio.Task[None] | None = None
        self._watch = watch

    @property
    def traits(self) -> TargetTraits:
        """As far as is known of the broker by now; see `observe`."""
        return TargetTraits(
            tells_outcomes=self._outcomes is not None,
            resend_within=_RESEND_WITHIN if self._publisher.keeps_records else None,
            republish=self._celery.on_uncertain_publish == "Republish",
            life_margin=self._life_margin,
        )

    @property
    def endpoints(self) -> Mapping[str, str]:
        """The identities of the broker and of the result backend, if there is one."""
        endpoints = {"broker": self._publisher.endpoint.identity}
        if self._outcomes:
            endpoints["resultBackend"] = self._outcomes.endpoint.identity
        return endpoints

    async def check(self) -> None:
        """Make sure that the broker answers, within 10 seconds. Raises TargetError."""
        await self._publisher.contact()

    async def observe(self, ids: Collection[str]) -> Sightings:
        """What the result backend knows of these launches; nothing without one.

        The first call with anything outstanding also asks the broker whether it keeps records,
        which `traits` depend on: what a crash left behind can then be sent again in the same cycle.
        Events are no evidence: they make it look at the rows, no more. Raises TargetError.
        """
        hinted = self._watch is not None and self._watch.take(ids)
        if not ids:
            return Sightings()
        await self._publisher.learn()
        self._look_at_queue()
        outcomes = await self._outcomes.read(list(ids)) if self._outcomes else {}
        return Sightings(outcomes, backlog=self._backlog, hinted=hinted)

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
        if self._watch:
            self._watch.expect([send.item.id for send in sends])
        return await self._publisher.launch(sends, self._celery, deadline)

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        """On a Redis that evicts nothing: mark these, so that a late publish puts no message.

        To be believed only within `traits.resend_within` of the first claim: an older record may be
        gone, and its launch look like one that never was. Raises TargetError.
        """
        return await self._publisher.supersede(list(ids)) if ids else {}

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        """A task leaves nothing behind that is not its broker's or its backend's to remove."""
