"""The way to one broker, shared by all ScannerJobs which launch there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from scannerjob.clock import boottime
from scannerjob.model.facts import Backlog, Observation, Send
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.ports import TargetError
from scannerjob.targets.celery.delivery import Delivery, TooLateError
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.lane import Lane

log = logging.getLogger(__name__)

# How long a question to the broker may take; a launch has its own deadline.
_PATIENCE = 10.0

_Answer = TypeVar("_Answer")


class Broker(Protocol):
    """A connection to a broker, made and used by one thread."""

    def contact(self) -> bool:
        """Make sure that it answers; tell whether it keeps records of what was sent."""
        ...

    def publish(self, sends: Sequence[Send], celery: CelerySpec, delivery: Delivery) -> None:
        """Publish, telling `delivery` before each write to the network and after each answer."""
        ...

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Make late sends of these do nothing, where that can be had."""
        ...

    def look(self, queue: str) -> Backlog | None:
        """What waits in a queue, and who listens there; None where there is no such queue."""
        ...

    def close(self) -> None:
        """Drop the connection. Never raises."""
        ...


class Publisher:
    """Publishes from a thread of its own; that the broker hangs never outlasts a call's deadline.

    `keeps_records` says whether a launch that is sent again is put only once, as of the last
    contact; None until there was one.
    """

    def __init__(
        self, endpoint: Endpoint, connect: Callable[[], Broker], keeps_records: bool | None
    ) -> None:
        self.endpoint = endpoint
        self.keeps_records = keeps_records
        self._lane = Lane(str(endpoint), connect)

    def close(self) -> None:
        """End the thread once it is done with what it was given."""
        self._lane.close()

    async def launch(
        self, sends: Sequence[Send], celery: CelerySpec, deadline: float
    ) -> Mapping[str, Observation]:
        """What is known of each send; at `deadline` (boottime) at the latest."""
        delivery = Delivery([send.item.id for send in sends], deadline)
        try:
            await self._lane.run(partial(self._publish, sends, celery, delivery), deadline)
        except TooLateError:
            pass  # the delivery says so of each send
        except Exception as error:  # noqa: BLE001 - whatever a client raises, it is known what was sent
            delivery.fail(self.endpoint.describe(error))
        finally:
            known = delivery.close()
        return known

    async def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Make late sends of these do nothing, where records are kept. Raises TargetError."""
        if self.keeps_records is False:
            return {}
        return await self._ask(partial(self._supersede, ids))

    async def contact(self) -> None:
        """Make sure that the broker answers, and learn about records. Raises TargetError."""
        await self._ask(self._contact)

    async def learn(self) -> None:
        """Find out about records if that is not known yet; if the broker fails it stays unknown."""
        if self.keeps_records is None:
            with suppress(TargetError):
                await self.contact()

    async def look(self, queue: str) -> Backlog | None:
        """What is in a queue; None where there is none. Raises TargetError."""
        return await self._ask(partial(self._look, queue))

    async def _ask(self, question: Callable[[Broker], _Answer]) -> _Answer:
        try:
            return await self._lane.run(question, boottime() + _PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, nothing is known
            raise self.endpoint.failure("BrokerUnreachable", error) from None

    # In the broker's thread

    def _publish(
        self, sends: Sequence[Send], celery: CelerySpec, delivery: Delivery, broker: Broker
    ) -> None:
        self._contact(broker)
        broker.publish(sends, celery, delivery)

    def _supersede(self, ids: Sequence[str], broker: Broker) -> Mapping[str, Observation]:
        return broker.supersede(ids) if self._contact(broker) else {}

    def _look(self, queue: str, broker: Broker) -> Backlog | None:
        self._contact(broker)
        return broker.look(queue)

    def _contact(self, broker: Broker) -> bool:
        keeps_records = broker.contact()
        if not keeps_records and self.keeps_records is not False:
            log.warning(
                "%s may evict its records of what was sent: a launch of which nobody knows whether "
                "it was sent is not repeated; set maxmemory-policy noeviction there",
                self.endpoint,
            )
        self.keeps_records = keeps_records
        return keeps_records
