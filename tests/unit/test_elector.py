"""Who leads, and for how long, in virtual time; the Lease is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from kubernetes.aio.client import ApiClient

from scannerjob.controller.elector import CALL_WITHIN, LEAD_FOR, LEASE_SECONDS, Elector
from scannerjob.controller.lease import Lease, LeaseStore
from scannerjob.ports import ConflictError, Ref, RefusedError, UnknownOutcomeError
from tests.support.virtual_time import freeze, now, run_virtually

NAME = Ref("scannerjob", "scannerjob-operator")


class Server:
    """What the API server knows of the Lease."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.version = 0
        self.writes = 0


class Leases(LeaseStore):
    """One replica's way to a Server, which may fail in several ways."""

    def __init__(self, server: Server) -> None:
        super().__init__(ApiClient.__new__(ApiClient), NAME, CALL_WITHIN, LEASE_SECONDS)
        self.server = server
        self.down = False
        self.hangs = False
        self.forbidden = False
        self.loses_answers = False
        self.after_write: Callable[[], None] = lambda: None

    async def read(self) -> Lease | None:
        await self._call()
        return self.server.lease

    async def write(self, lease: Lease | None, holder: str) -> Lease:
        await self._call()
        if lease != self.server.lease:
            raise ConflictError("it was changed")
        self.server.version += 1
        self.server.writes += 1
        self.server.lease = Lease(holder, str(self.server.version))
        if self.loses_answers:
            raise UnknownOutcomeError("APIServerUnreachable", "no answer")
        self.after_write()
        return self.server.lease

    async def _call(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise UnknownOutcomeError("APIServerUnreachable", "no answer from the API server")
        if self.forbidden:
            raise RefusedError(403, "Forbidden", "leases is forbidden")
        await asyncio.sleep(0.01)


class Replica:
    """An elector, and what it said."""

    def __init__(self, server: Server) -> None:
        self.leases = Leases(server)
        self.events: list[tuple[str, float]] = []
        self.elector = Elector(
            self.leases,
            lambda: self.events.append(("lead", now())),
            lambda: self.events.append(("follow", now())),
            clock=now,
        )
        self.task = asyncio.create_task(self.elector.run())

    def kill(self) -> None:
        self.task.cancel()

    async def stop(self) -> None:
        self.task.cancel()
        await self.elector.release()

    @property
    def said(self) -> list[str]:
        return [what for what, _ in self.events]


def scenario(play: Callable[[Server, Replica, Replica], Awaitable[None]]) -> None:
    """Plays with two replicas, of which the first leads."""

    async def main() -> None:
        server = Server()
        first = Replica(server)
        await asyncio.sleep(1)
        second = Replica(server)
        await asyncio.sleep(5)
        assert (first.said, second.said) == (["lead"], [])
        await play(server, first, second)
        for each in (first, second):
            each.kill()

    run_virtually(main())


def test_the_leader_stays_for_as_long_as_it_renews() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        before = server.writes
        await asyncio.sleep(1000)
        assert (first.said, second.said) == (["lead"], [])
        assert server.writes - before == pytest.approx(1000, rel=0.05)

    scenario(play)


def test_a_dead_leader_is_succeeded_within_six_seconds() -> None:
    for moment in range(20):

        async def play(
            server: Server, first: Replica, second: Replica, moment: int = moment
        ) -> None:
            await asyncio.sleep(moment / 20)
            first.kill()
            died = now()
            await asyncio.sleep(20)
            assert second.said == ["lead"]
            assert second.events[0][1] - died < 6

        scenario(play)


def test_a_leader_that_stops_gives_the_lease_back_and_is_succeeded_at_once() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        await first.stop()
        stopped = now()
        assert first.said == ["lead", "follow"]
        await asyncio.sleep(1)
        assert second.said == ["lead"]
        assert second.events[0][1] - stopped < 0.6

    scenario(play)


def test_one_that_stands_by_leaves_the_lease_alone_when_it_stops() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        await second.stop()
        assert server.lease is not None
        assert server.lease.holder == first.elector.identity

    scenario(play)


@pytest.mark.parametrize("trouble", ["down", "hangs", "forbidden"])
def test_a_leader_that_cannot_renew_ends_before_another_begins(
    trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        setattr(first.leases, trouble, True)
        began = now()
        await asyncio.sleep(20)
        assert first.said == ["lead", "follow"]
        assert second.said == ["lead"]
        assert first.events[1][1] - began <= LEAD_FOR
        assert first.events[1][1] < second.events[0][1]
        assert not first.elector.leading()
        assert first.elector.silent() < 5
        setattr(first.leases, trouble, False)
        await asyncio.sleep(20)
        assert first.said == ["lead", "follow"]
        second.kill()
        await asyncio.sleep(20)
        assert first.said == ["lead", "follow", "lead"]

    with caplog.at_level("WARNING"):
        scenario(play)
    assert len(caplog.records) == 1


def test_it_stops_to_lead_at_once_when_it_wakes_from_a_long_sleep() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        assert first.elector.leading()
        freeze(100)
        assert not first.elector.leading()
        assert first.said == ["lead", "follow"]

    scenario(play)


def test_a_renewal_that_was_won_before_a_sleep_and_heard_of_after_it_begins_anew() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        second.kill()

        def sleep_on_it() -> None:
            first.leases.after_write = lambda: None
            freeze(LEAD_FOR + 1)
            assert not first.elector.leading()

        first.leases.after_write = sleep_on_it
        await asyncio.sleep(10)
        assert first.said == ["lead", "follow", "lead"]
        assert first.elector.leading()

    scenario(play)


def test_a_write_whose_answer_is_lost_is_looked_into() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        first.leases.loses_answers = True
        await asyncio.sleep(1.5)
        first.leases.loses_answers = False
        await asyncio.sleep(20)
        assert (first.said, second.said) == (["lead"], [])

    scenario(play)


def test_a_lease_that_is_deleted_or_edited_is_taken_again_by_one() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        server.lease = None
        await asyncio.sleep(20)
        assert [first.elector.leading(), second.elector.leading()].count(True) == 1
        server.version += 1
        server.lease = Lease("somebody else", str(server.version))
        await asyncio.sleep(3)
        assert not first.elector.leading()
        assert not second.elector.leading()
        await asyncio.sleep(20)
        assert [first.elector.leading(), second.elector.leading()].count(True) == 1

    scenario(play)


def test_of_many_that_begin_together_one_leads_at_any_time() -> None:
    async def main() -> None:
        server = Server()
        replicas = [Replica(server) for _ in range(10)]
        while replicas:
            for _ in range(100):
                await asyncio.sleep(0.1)
                assert sum(each.elector.leading() for each in replicas) <= 1
            (leader,) = [each for each in replicas if each.elector.leading()]
            with suppress(ValueError):
                replicas.remove(leader)
            leader.kill()

    run_virtually(main())


def test_an_elector_that_is_stuck_is_told() -> None:
    async def play(server: Server, first: Replica, second: Replica) -> None:
        first.kill()
        await asyncio.sleep(60)
        assert first.elector.silent() > 55
        assert second.elector.silent() < 5

    scenario(play)
