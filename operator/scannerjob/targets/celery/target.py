"""The Celery target of one ScannerJob."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from scannerjob.clock import boottime
from scannerjob.model.facts import Backlog, Observation, Send, Sightings, TargetTraits
from scannerjob.model.ledger import Item
from scannerjob.model.spec import CeleryTarget as CelerySpec
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
        if ids:
            await self._publisher.learn()
        backlog = await self._look() if ids else None
        if not ids or self._outcomes is None:
            return Sightings(backlog=backlog, hinted=hinted)
        outcomes = await self._outcomes.read(list(ids))
        return Sightings(outcomes, backlog=backlog, hinted=hinted)

    async def _look(self) -> Backlog | None:
        """The queue as it was a moment ago: it is looked at now and then.

        A broker that does not tell is not asked again soon: rows and results settle launches even
        while it hangs.
        """
        queue = self._celery.queue
        if self._celery.exchange is None and boottime() >= self._next_look:
            self._backlog = await self._publisher.look(queue)
            rest = _LOOK_EVERY if self._backlog else _AFTER_A_VAIN_LOOK
            self._next_look = boottime() + rest
        return self._backlog

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
