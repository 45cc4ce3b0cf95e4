"""The guard's store as the operator sees it: what workers do with each launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from scannerjob.clock import boottime
from scannerjob.model.facts import Observation
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.events import EventStream
from scannerjob.targets.celery.lane import Lane
from scannerjob.targets.celery.lapses import Lapses, View, observation
from scannerjob.worker.records import Reading, State, Store

# How long all that is asked in one go may take.
_PATIENCE = 10.0

_Answer = TypeVar("_Answer")


class Guard:
    """Asks a guard's store from a thread of its own; shared by all ScannerJobs which use it.

    `ends` connects to where it tells of launches that end.

    Every method raises TargetError where it cannot be asked, and then nothing is known.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        connect: Callable[[], Store],
        ends: Callable[[], EventStream],
    ) -> None:
        self.endpoint = endpoint
        self.ends = ends
        self._lane: Lane[Store] = Lane(str(endpoint), connect)
        self._lapses = Lapses()

    def close(self) -> None:
        """End the thread once it is done with what it was given."""
        self._lane.close()

    def view(self) -> View:
        """For one who reads, and the launches that it asks about."""
        return self._lapses.view()

    async def read(self, ids: Sequence[str], view: View) -> Mapping[str, Observation]:
        """What is known of these launches, as far as `view` may believe it by now."""
        began = boottime()
        reading: Reading = await self._ask(lambda store: store.read(ids))
        return view.note(reading, ids, began)

    async def register(self, ids: Sequence[str]) -> Mapping[str, State]:
        """Have a record of these, before they are sent to a broker that keeps none."""
        return await self._ask(lambda store: store.register(ids))

    async def guards(self, task: str) -> bool:
        """Whether a worker has said of late that it guards the task of this name."""
        return await self._ask(lambda store: store.is_guarded(task))

    async def supersede(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """Give these up where nothing runs, so that whatever still comes of them does nothing."""
        records = await self._ask(lambda store: store.supersede(ids))
        return {each: observation(record) for each, record in records.items()}

    async def _ask(self, question: Callable[[Store], _Answer]) -> _Answer:
        try:
            return await self._lane.run(question, boottime() + _PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, nothing is known
            self._lapses.failed()
            raise self.endpoint.failure("GuardUnreachable", error) from None
