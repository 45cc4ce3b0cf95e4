"""Which of several replicas does the work: the one that holds a Lease.

Our own, because the client library's elector compares wall clocks of two machines, and never gives
the Lease back. Safety does not rest on it: every launch follows a compare-and-swap on its
ScannerJob. It saves the work of observing twice.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from uuid import uuid4

from scannerjob.clock import boottime
from scannerjob.controller.lease import Lease, LeaseStore
from scannerjob.ports import ConflictError, PortError

log = logging.getLogger(__name__)

# A Lease that nobody was seen to renew for so long is free.
LEASE_SECONDS = 4
# Whoever could not renew it for so long leads no more: before anybody else could begin to.
LEAD_FOR = 3.0
_RENEW_EVERY = 1.0
_LOOK_EVERY = 0.5
# A call that takes longer has failed.
CALL_WITHIN = 2.0


class Elector:
    """Takes the Lease when it is free, renews it, and says when that begins and ends.

    `lead` and `follow` are called in turn. All is judged by how long this process saw the Lease
    unchanged, by `clock`, which gives seconds that never go back and go on while the machine
    sleeps: whoever wakes from a long sleep knows that its time is over.
    """

    def __init__(
        self,
        leases: LeaseStore,
        lead: Callable[[], None],
        follow: Callable[[], None],
        clock: Callable[[], float] = boottime,
    ) -> None:
        self.identity = f"{socket.gethostname()}_{uuid4().hex[:8]}"
        self._leases = leases
        self._lead = lead
        self._follow = follow
        self._clock = clock
        self._leads = False
        self._until = -LEAD_FOR
        # The Lease as we wrote it, while it is certain that it is still so.
        self._mine: Lease | None = None
        self._seen: tuple[str, float] = ("", 0.0)
        self._leader = ""
        self._trouble = ""
        self._attempted_at = clock()

    def leading(self) -> bool:
        """Whether the Lease is ours at this very moment; where its time is over, that ends here.

        Whoever was frozen may come to ask before the next attempt does.
        """
        if self._clock() >= self._until:
            self._end("it could not be renewed in time")
        return self._leads

    def silent(self) -> float:
        """For how many seconds no attempt, successful or not, has come to an end."""
        return self._clock() - self._attempted_at

    async def run(self) -> None:
        """Take part until cancelled; `release` should follow."""
        while True:
            renewed = await self._step()
            await asyncio.sleep(_RENEW_EVERY if renewed else _LOOK_EVERY)

    async def release(self) -> None:
        """Lead no more, and give the Lease back: somebody else takes it at their next look."""
        self._mine = None
        self._end("stopping")
        try:
            async with asyncio.timeout(CALL_WITHIN):
                lease = await self._leases.read()
                if lease and lease.holder == self.identity:
                    await self._leases.write(lease, "")
        except (ConflictError, PortError, TimeoutError) as error:
            log.warning("the Lease %s was not given back: %s", self._leases.name, _told(error))

    async def _step(self) -> bool:
        """One attempt; whether it renewed the Lease."""
        left = self._until - self._clock() if self.leading() else CALL_WITHIN
        try:
            async with asyncio.timeout(min(CALL_WITHIN, left)):
                await self._attempt()
            self._well()
        except ConflictError:
            pass  # somebody else was quicker: the next look shows who
        except (PortError, TimeoutError) as error:
            self._note(error)
        self._attempted_at = self._clock()
        return self.leading() and self._mine is not None

    async def _attempt(self) -> None:
        # A write whose answer is lost may have been won: then the next attempt looks again.
        lease, self._mine = self._mine or await self._look(), None
        if lease and not self._may_take(lease):
            self._end(f"{lease.holder} has taken it")
            self._note_leader(lease.holder)
            return
        began = self._clock()
        self._mine = await self._leases.write(lease, self.identity)
        self._until = began + LEAD_FOR
        self._begin()

    async def _look(self) -> Lease | None:
        lease = await self._leases.read()
        version = lease.version if lease else ""
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        return lease

    def _may_take(self, lease: Lease) -> bool:
        unchanged = self._clock() - self._seen[1]
        return lease.holder in ("", self.identity) or unchanged >= LEASE_SECONDS

    def _begin(self) -> None:
        if not self._leads and self._clock() < self._until:
            self._leads, self._leader = True, self.identity
            log.info("leading, by the Lease %s, as %s", self._leases.name, self.identity)
            self._lead()

    def _end(self, why: str) -> None:
        if self._leads:
            self._leads = False
            log.info("leading no more, by the Lease %s: %s", self._leases.name, why)
            self._follow()

    def _note_leader(self, holder: str) -> None:
        if holder != self._leader:
            self._leader = holder
            log.info("standing by: %s leads", holder)

    def _note(self, error: PortError | TimeoutError) -> None:
        """Logged when it changes, not with every attempt."""
        trouble = error.reason if isinstance(error, PortError) else "APIServerUnreachable"
        if trouble != self._trouble:
            self._trouble = trouble
            log.warning("%s; it is tried again all the time", _told(error))

    def _well(self) -> None:
        if self._trouble:
            self._trouble = ""
            log.info("the Lease %s can be had again", self._leases.name)


def _told(error: Exception) -> str:
    return str(error) or f"no answer from the API server within {CALL_WITHIN:g} s"
