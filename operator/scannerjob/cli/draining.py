"""`drain`: suspend, then wait until nothing is out."""

from __future__ import annotations

import time

from scannerjob.cli.exits import Exit, leave
from scannerjob.cli.places import Place, Where, opened
from scannerjob.cli.requests import ask, wait_until
from scannerjob.model.requests import FORCE_DRAIN
from scannerjob.ports import Ref, Snapshot

# Claims that are on their way are not given up yet: asked for again after so many seconds.
_ASK_AGAIN = 10.0


async def drained(where: Where, name: str, seconds: float, *, force: bool) -> None:
    """Come back when nothing is out; ends with what still is, if it takes too long."""
    deadline = time.monotonic() + seconds
    async with opened(where) as place:
        found = await place.find(name)
        ref = found.ref
        await place.store.suspend(ref, True)
        while True:
            left = max(0.0, deadline - time.monotonic())
            if force:
                await ask(place, ref, FORCE_DRAIN)
                left = min(left, _ASK_AGAIN)
            snapshot = await _emptied(place, ref, left)
            if snapshot is not None:
                print(f"{ref}: {_FORCED if force else _DRAINED}; {_SAFE}")
                return
            if time.monotonic() >= deadline:
                leave(Exit.NO, await _still_out(place, found, seconds))


_DRAINED = "drained and suspended: nothing is out"
_FORCED = "drained by force and suspended: what was out is given up"
_SAFE = "nothing will be launched until `scannerjob resume`"


async def _emptied(place: Place, ref: Ref, seconds: float) -> Snapshot | None:
    told = -1

    def empty(snapshot: Snapshot) -> bool:
        nonlocal told
        active = int(snapshot.status.get("active", 0))
        if active != told:
            print(f"{ref}: {active} launches are out", flush=True)
            told = active
        # Until the suspension was seen, one more could be claimed.
        seen = snapshot.status.get("observedGeneration") == snapshot.generation
        suspended = seen and bool(snapshot.spec.get("suspend"))
        return suspended and active == 0 and not _is_lost(snapshot)

    return await wait_until(place, ref, empty, seconds)


def _is_lost(snapshot: Snapshot) -> bool:
    """Whether launches may be out of which the ledger tells nothing."""
    has_vanished = snapshot.marked and "ledgerVersion" not in snapshot.status
    return has_vanished or snapshot.status.get("ledgerLostTime") is not None


async def _still_out(place: Place, found: Snapshot, seconds: float) -> str:
    ref, snapshot = found.ref, await place.again(found)
    if snapshot.status.get("observedGeneration") != snapshot.generation:
        return (
            f"{ref}: no operator has seen the suspension within {seconds:g} s; it stays suspended"
        )
    if _is_lost(snapshot):
        return (
            f"{ref}: its ledger has vanished, and launches of which nothing is known may be out; "
            "it stays suspended. See the condition Ready"
        )
    active = snapshot.status.get("active", 0)
    return (
        f"{ref}: {active} launches are still out after {seconds:g} s; it stays suspended. If you "
        "know that nothing of them runs: drain --force"
    )
