"""Where ScannerJobs are: in a cluster, or in the database that `scannerjob run` keeps them in."""

from __future__ import annotations

import asyncio
import os
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol, TypeVar

from scannerjob.cli.exits import Exit, leave, refuse
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

    def of(self, typed: str) -> tuple[Where, str]:
        """The place and the name that NAME or NAMESPACE/NAME stands for.

        Ends where another namespace was said than the one before the name.
        """
        namespace, slash, name = typed.partition("/")
        if not slash:
            return self, typed
        if not (namespace and name):
            refuse([f"expected NAME or NAMESPACE/NAME, not {typed}"])
        if self.namespace not in (None, namespace):
            refuse([f"--namespace: {self.namespace}, but {typed} is of another: leave one out"])
        return replace(self, namespace=namespace), name

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
    """An open place, and the namespace in it that is meant: None for all that there are.

    `api` is there in a cluster alone.
    """

    store: Store
    namespace: str | None
    api: ApiClient | None = None

    async def find(self, name: str) -> Snapshot:
        """This ScannerJob; where it is not there, or several are, ends with what is."""
        found = await self.named(name)
        if len(found) > 1:
            there = " and ".join(str(each.ref) for each in found)
            refuse([f"{name} is the name of several, {there}: expected NAMESPACE/NAME, or -n"])
        return found[0] if found else await self._not_there(name)

    async def again(self, snapshot: Snapshot) -> Snapshot:
        """The same one as it is now; where it is gone, ends with that."""
        ref = snapshot.ref
        found = await _patiently(lambda: self.store.read(ref))
        return found or leave(Exit.NO, f"{ref}: it was deleted meanwhile")

    async def named(self, name: str) -> list[Snapshot]:
        """Those of this name; in one namespace there is one at most."""
        if self.namespace is None:
            return [each for each in await self.listed() if each.ref.name == name]
        ref = Ref(self.namespace, name)
        # A name that no URL can hold is none.
        found = await _patiently(lambda: self.store.read(ref)) if str(ref).isascii() else None
        return [found] if found else []

    async def _not_there(self, name: str) -> NoReturn:
        meant = f"{self.namespace}/{name}" if self.namespace else name
        refs = [each.ref for each in await self.listed()]
        there = [ref.name if self.namespace else str(ref) for ref in refs]
        hint = _hint(name, [ref.name for ref in refs], there)
        leave(Exit.NO, f"{KIND} {meant} is not there; {hint}")

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


def _hint(typed: str, known: Sequence[str], shown: Sequence[str]) -> str:
    """Which of those that are `known` was meant, or all, as they are `shown`."""
    close = get_close_matches(typed, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are: {', '.join(shown) or 'none'}"


def refuse_path(state: str) -> None:
    """End where this is no URL; a path, which people write for a file's, is shown as one."""
    if "://" in state:
        return
    if "@" not in state and state.startswith(("/", ".", "~")):
        refuse([f"--state: expected a URL: sqlite:///{Path(state).expanduser()} for this file"])
    refuse(
        [
            "--state: this cannot be read: expected sqlite:///PATH (sqlite:////var/lib/x.db), or "
            "postgresql://, mysql:// or mariadb:// and what the server needs"
        ]
    )


def _refuse_unknown_context(where: Where) -> None:
    """A kubeconfig that cannot be read is told of by who reads it next."""
    if where.context is None:
        return
    from kubernetes.aio.config import list_kube_config_contexts

    known = [where.context]
    with suppress(Exception):
        file = where.kubeconfig or os.environ.get("KUBECONFIG")
        contexts, _ = list_kube_config_contexts(file)  # type: ignore[no-untyped-call]
        known = [str(each["name"]) for each in contexts]
    if where.context not in known:
        hint = _hint(where.context, known, known)
        refuse([f"--context: {where.context} is not in the kubeconfig; {hint}"])


@asynccontextmanager
async def opened(where: Where) -> AsyncIterator[Place]:
    """The place that is meant. Raises ConfigurationError where it cannot be used."""
    if where.state:
        from scannerjob.logs import hide
        from scannerjob.stores.sql import SqlStore

        refuse_path(where.state)
        hide("--state", where.state)
        with naming("--state"):
            store = SqlStore(where.state, create=False)
        try:
            yield Place(store, where.namespace)
        finally:
            await store.close()
        return
    from scannerjob.apiserver import Kubeconfig, connect
    from scannerjob.stores.kubernetes import KubernetesStore

    _refuse_unknown_context(where)
    kubeconfig = Kubeconfig(where.kubeconfig, where.context)
    async with await connect(kubeconfig) as api:
        namespace = where.namespace or kubeconfig.namespace()
        yield Place(KubernetesStore(api), namespace, api)
