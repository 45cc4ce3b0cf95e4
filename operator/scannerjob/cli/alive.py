"""`alive`: whether an operator works. The chart's `helm test` asks it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from scannerjob.cli.exits import Exit, leave
from scannerjob.cli.manage import Context, Kubeconfig, ran, where

if TYPE_CHECKING:
    from scannerjob.cli.places import Where
    from scannerjob.controller.lease import Lease, LeaseStore
    from scannerjob.ports import Ref

# In seconds. A process that ends and is started again is another holder each time.
STEADY = 10.0
_LOOK_EVERY = 0.5


def alive(
    lease_name: Annotated[str, typer.Option(help="The operator's Lease.")] = "scannerjob-operator",
    lease_namespace: Annotated[
        str | None, typer.Option(help="Where it is; by default, the context's namespace.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=STEADY, help="Seconds to wait for it.")] = 30.0,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell whether an operator works: whether one holds the Lease, and goes on to renew it."""
    ran(_told(where(lease_namespace, None, context, kubeconfig), lease_name, timeout))


async def _told(place: Where, name: str, seconds: float) -> None:
    from scannerjob.apiserver import TIMEOUT
    from scannerjob.cli.places import opened
    from scannerjob.controller.elector import LEASE_SECONDS
    from scannerjob.controller.lease import LeaseStore
    from scannerjob.ports import Ref

    async with opened(place) as there:
        assert there.api is not None
        assert there.namespace is not None
        lease = Ref(there.namespace, name)
        leases = LeaseStore(there.api, lease, TIMEOUT, LEASE_SECONDS)
        print(f"Lease {lease}: {await leader(leases, seconds)} holds it and renews it")


async def leader(leases: LeaseStore, seconds: float) -> str:
    """Who holds the Lease and was seen to renew it all the while, for STEADY seconds.

    Ends the command where that does not come in time. Clocks of two machines are not compared.
    """
    import asyncio

    try:
        async with asyncio.timeout(seconds):
            while not (holder := await _steady_holder(leases)):
                pass
            return holder
    except TimeoutError:
        namespace = leases.name.namespace
        leave(
            Exit.NO,
            f"no operator works: {_state(leases.name, await leases.read(), seconds)}; look at: "
            f"kubectl --namespace {namespace} get deployments,pods,events; and at the pods' logs",
        )


async def _steady_holder(leases: LeaseStore) -> str:
    """Who held it from now on for STEADY seconds; "" once that cannot be said of anybody."""
    import asyncio

    from scannerjob.controller.elector import LEASE_SECONDS

    clock = asyncio.get_running_loop().time
    first = last = await leases.read()
    began = renewed = clock()
    while first and last and first.holder == last.holder and clock() - renewed < LEASE_SECONDS:
        if renewed - began >= STEADY:
            return first.holder
        await asyncio.sleep(_LOOK_EVERY)
        before, last = last, await leases.read()
        if last != before:
            renewed = clock()
    await asyncio.sleep(_LOOK_EVERY)
    return ""


def _state(name: Ref, lease: Lease | None, seconds: float) -> str:
    if lease is None:
        return f"the Lease {name} is not there"
    if not lease.holder:
        return f"nobody holds the Lease {name}"
    return (
        f"{lease.holder} has the Lease {name}, but within {seconds:g} s nobody renewed it for "
        f"{STEADY:g} s on end"
    )
