"""What changes something: asked for by a nonce, and waited for until an operator has heeded it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import uuid4

from scannerjob.cli.exits import Exit, leave
from scannerjob.cli.places import Place
from scannerjob.ports import Ref, Snapshot, UnknownOutcomeError

_LOOK_EVERY = 0.5


async def ask(place: Place, ref: Ref, name: str, suffix: str = "") -> str:
    """Ask for this; gives what an operator writes down once it is heeded."""
    nonce = f"{uuid4()}{suffix}"
    await place.store.request(ref, name, nonce)
    return nonce


def heeded(name: str, nonce: str) -> Callable[[Snapshot], bool]:
    """Whether that was done."""
    return lambda snapshot: snapshot.status.get("handledRequests", {}).get(name) == nonce


async def wait_until(
    place: Place, ref: Ref, condition: Callable[[Snapshot], bool], seconds: float
) -> Snapshot | None:
    """The ScannerJob once this is true of it; None if that did not come in time.

    Ends the command where the ScannerJob is gone. Raises UnknownOutcomeError if it cannot be read
    when the time is over: an API server that is away for a moment is waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            snapshot = await place.store.read(ref)
        except UnknownOutcomeError:
            if time.monotonic() >= deadline:
                raise
        else:
            if snapshot is None:
                leave(Exit.NO, f"{ref}: it was deleted meanwhile")
            if condition(snapshot):
                return snapshot
            if time.monotonic() >= deadline:
                return None
        await asyncio.sleep(_LOOK_EVERY)
