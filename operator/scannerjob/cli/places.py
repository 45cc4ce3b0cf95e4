"""Where ScannerJobs are: in a cluster, or in the database that `scannerjob run` keeps them in."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Protocol, TypeVar

from scannerjob.cli.exits import Exit, leave
from scannerjob.model.printable import without_userinfo
from scannerjob.model.spec import KIND
from scannerjob.ports import (
    Ref,
    RefusedError,
    Snapshot,
    UnknownOutcomeError,
    UnreachedError,
    naming,
)

if TYPE_CHECKING:
    from kubernetes.aio.client import ApiClient

_Result = TypeVar("_Result")
# In seconds.
_PATIENCE, _TRY_EVERY = 5.0, 0.5


@dataclass(frozen=True)
class Where:
    """What was said of the place: a `state` URL, or what is to be used of which kubeconfig."""

    namespace: str | None = None
    state: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    @property
    def options(self) -> str:
        """What was said, for a command to be typed next; not a URL with a password in it."""
        state = self.state if self.state and without_userinfo(self.state) == self.state else None
        said = {
            "-n": self.namespace,
            "--state": state,
            "--context": self.context,
            "--kubeconfig": self.kubeconfig,
        }
        return " ".join(f"{option} {shlex.quote(value)}" for option, value in said.items() if value)


class Store(Protocol):
    """What the commands need of either place."""

    async def list(self, namespace: str | None) -> list[Snapshot]:
        """The ScannerJobs of a namespace, or of all."""
        ...

    async def read(self, ref: Ref) -> Snapshot | None:
        """One of them, as it is now; None if there is none."""
        ...

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        """Ask for something, as scannerjob.model.requests says."""
        ...

    async def suspend(self, ref: Ref, suspended: bool) -> None:
        """Let it launch nothing, or go on."""
        ...


@dataclass(frozen=True)
class Place:
    """An open place; `namespace` is the one that is meant where none is said.

    `api` is there in a cluster alone.
    """

    store: Store
    namespace: str
    api: ApiClient | None = None

    async def find(self, name: str) -> Snapshot:
        """This ScannerJob; where it is not there, ends with what is."""
        ref = Ref(self.namespace, name)
        # A name that no URL can hold is none.
        found = await _patiently(lambda: self.store.read(ref)) if name.isascii() else None
        if found is not None:
            return found
        there = [each.ref.name for each in await self.listed()]
        close = get_close_matches(name, there, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are: {', '.join(there) or 'none'}"
        return leave(Exit.NO, f"{KIND} {ref} is not there; {hint}")

    async def listed(self, *, everywhere: bool = False) -> list[Snapshot]:
        """Those of the namespace, or all; ends where the cluster does not know the kind."""
        try:
            namespace = None if everywhere else self.namespace
            return await _patiently(lambda: self.store.list(namespace))
        except RefusedError as error:
            if error.status != 404:
                raise
            leave(
                Exit.NO,
                f"this cluster does not know the kind {KIND}: install the operator's chart, or "
                "kubectl apply the file in crds/",
            )


async def _patiently(read: Callable[[], Awaitable[_Result]]) -> _Result:
    """What is read, again where an API server puts that off: while the kind is new, or it is busy.

    One that cannot be reached at all is not waited for.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return await read()
        except UnreachedError:
            raise
        except UnknownOutcomeError:
            if time.monotonic() >= deadline:
                raise
            await asyncio.sleep(_TRY_EVERY)


@asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Place]:
    """The place that is meant. Raises ConfigurationError where it cannot be used."""
    if where.state:
        from scannerjob.logs import hide
        from scannerjob.stores.sql import SqlStore

        hide("--state", where.state)
        with naming("--state"):
            store = SqlStore(where.state, create=False)
        try:
            yield Place(store, where.namespace or "default")
        finally:
            await store.close()
        return
    from scannerjob.apiserver import Kubeconfig, connect
    from scannerjob.stores.kubernetes import KubernetesStore

    kubeconfig = Kubeconfig(where.kubeconfig, where.context)
    async with await connect(kubeconfig) as api:
        namespace = where.namespace or kubeconfig.namespace()
        yield Place(KubernetesStore(api), namespace, api)
