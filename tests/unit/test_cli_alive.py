"""Whether an operator works, by its Lease, in virtual time; the Lease is in memory."""

from __future__ import annotations

import asyncio

import pytest
import typer

from scannerjob.cli.alive import STEADY, leader
from tests.support.virtual_time import now, run_virtually
from tests.unit.test_elector import Leases, Replica, Server


async def refused(server: Server, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said where nobody is found to work."""
    began = now()
    with pytest.raises(typer.Exit) as ended:
        await leader(Leases(server), 30)
    assert ended.value.exit_code == 1
    assert now() - began == pytest.approx(30, abs=0.1)
    return capsys.readouterr().err


def test_whoever_renews_the_lease_works() -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server)
        await asyncio.sleep(1)
        standby = Replica(server)
        began = now()
        assert await leader(Leases(server), 30) == replica.elector.identity
        assert STEADY <= now() - began < STEADY + 2
        replica.kill()
        assert await leader(Leases(server), 30) == standby.elector.identity
        standby.kill()

    run_virtually(main())


def test_without_an_operator_it_says_what_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        server = Server()
        said = await refused(server, capsys)
        assert "the Lease scannerjob/scannerjob-operator is not there" in said
        assert "kubectl --namespace scannerjob get deployments,pods" in said
        replica = Replica(server)
        await asyncio.sleep(5)
        await replica.stop()
        assert "nobody holds the Lease" in await refused(server, capsys)

    run_virtually(main())


def test_one_that_died_with_the_lease_does_not_work(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> None:
        server = Server()
        replica = Replica(server)
        await asyncio.sleep(5)
        replica.kill()
        said = await refused(server, capsys)
        assert f"{replica.elector.identity} has the Lease" in said
        assert "within 30 s nobody renewed it for 10 s on end" in said

    run_virtually(main())


@pytest.mark.parametrize("lives", [1, 4, 8])
def test_one_that_is_started_again_and_again_does_not_work(
    lives: int, capsys: pytest.CaptureFixture[str]
) -> None:
    async def main() -> None:
        server = Server()

        async def crash_looping() -> None:
            while True:
                replica = Replica(server)
                await asyncio.sleep(lives)
                replica.kill()

        crashing = asyncio.create_task(crash_looping())
        assert "no operator works" in await refused(server, capsys)
        crashing.cancel()

    run_virtually(main())
