"""Looks, once a minute, whether the watch shows all there is.

A watch can be lost without a word: a connection that nobody closed, a proxy that answers for
nobody. What it did not show is found here, looked at all the same, and counted against the watch.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from typing import Any

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob.apiserver import TIMEOUT, asking, is_older
from scannerjob.clock import boottime
from scannerjob.controller.watched import WatchedStore
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import PortError, Ref

log = logging.getLogger(__name__)

_EVERY = 60.0
# What the watch has not shown after this long, it will not: the engine is told in its place.
_PATIENCE = 30.0
_AFTER_FAILURE = 10.0
_CHUNK = 500
# Names and versions alone: specs and ledgers may be large.
_METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Resync:
    """Compares what the API server has with what the watch has shown.

    `wake` is called with what the watch did not show; `namespaces` are those that are watched, all
    if there are none. `clock` gives seconds that never go back.
    """

    def __init__(
        self,
        api: ApiClient,
        store: WatchedStore,
        wake: Callable[[Ref], None],
        namespaces: Collection[str] = (),
        clock: Callable[[], float] = boottime,
    ) -> None:
        self._objects = CustomObjectsApi(api)
        self._store = store
        self._wake = wake
        self._namespaces = namespaces
        self._clock = clock
        self._shown: dict[Ref, str] = {}
        # What the watch is behind with: the version it has yet to show, and since when.
        self._behind: dict[Ref, tuple[str, float]] = {}
        self._listed_at: float | None = None
        self._trouble = ""
        self._tried_at = clock()

    def shown(self, ref: Ref, version: str) -> None:
        """The watch has shown this version."""
        self._shown[ref] = version
        if ref in self._behind and not is_older(version, self._behind[ref][0]):
            del self._behind[ref]

    def gone(self, ref: Ref) -> None:
        """The watch has shown that it was deleted."""
        self._shown.pop(ref, None)
        self._behind.pop(ref, None)

    def complete(self) -> bool:
        """Whether the watch has shown all that there was when this was last looked at."""
        return self._listed_at is not None and not self._behind

    @property
    def behind(self) -> float:
        """For how many seconds the watch has kept something back; 0 if it does not.

        As the last look found it: while there is no answer from the API server it does not grow.
        """
        if self._listed_at is None or not self._behind:
            return 0.0
        return max(0.0, self._listed_at - min(since for _, since in self._behind.values()))

    def silent(self) -> float:
        """For how many seconds no look, successful or not, has come to an end."""
        return self._clock() - self._tried_at

    async def run(self) -> None:
        """Look for ever."""
        while True:
            if not await self._try_to_look():
                await asyncio.sleep(_AFTER_FAILURE)
                continue
            await asyncio.sleep(_PATIENCE)
            self._tell()
            await asyncio.sleep(_EVERY - _PATIENCE)

    async def _try_to_look(self) -> bool:
        try:
            await self.look()
        except PortError as error:
            # The watch has the same trouble: what it is behind with says nothing about it.
            self._behind.clear()
            self._note(str(error))
            return False
        finally:
            self._tried_at = self._clock()
        self._note("")
        return True

    def _note(self, trouble: str) -> None:
        """Logged when it changes, not each time."""
        if trouble and trouble != self._trouble:
            log.warning("%s; next try in %.0f s", trouble, _AFTER_FAILURE)
        self._trouble = trouble

    async def look(self) -> None:
        """Compare once. Raises PortError where the API server could not be asked."""
        known_before = dict(self._shown)
        began = self._clock()
        there = {ref: version async for ref, version in self._list()}
        for ref, version in there.items():
            self._store.confirm(ref, version)
        behind = {}
        for ref, version in there.items():
            if not self._has_shown(ref, version):
                behind[ref] = self._behind.get(ref, (version, began))
        self._behind = behind
        self._listed_at = began
        for ref in known_before.keys() - there.keys():
            # One that was created anew meanwhile is shown under another version.
            if self._shown.get(ref) == known_before[ref]:
                self._lost(ref)

    def _has_shown(self, ref: Ref, version: str) -> bool:
        shown = self._shown.get(ref)
        return shown is not None and not is_older(shown, version)

    def _lost(self, ref: Ref) -> None:
        """It is gone, and the watch may never say so: a new list does not tell what it lacks."""
        self.gone(ref)
        self._store.doubt(ref)
        self._wake(ref)

    def _tell(self) -> None:
        if self._behind:
            some = ", ".join(map(str, list(self._behind)[:3]))
            count = len(self._behind)
            log.warning("the watch does not show %d ScannerJobs as they are: %s", count, some)
        for ref in self._behind:
            self._store.doubt(ref)
            self._wake(ref)

    async def _list(self) -> AsyncIterator[tuple[Ref, str]]:
        for namespace in self._namespaces or (None,):
            more: str | None = ""
            while more is not None:
                page = await self._page(namespace, more)
                for item in page.get("items") or ():
                    metadata = item["metadata"]
                    ref = Ref(metadata["namespace"], metadata["name"])
                    yield ref, metadata["resourceVersion"]
                more = (page.get("metadata") or {}).get("continue") or None

    async def _page(self, namespace: str | None, more: str) -> Mapping[str, Any]:
        # Without a resourceVersion: an answer from a cache could be as old as the watch.
        options: dict[str, Any] = {
            "group": API_GROUP,
            "version": API_VERSION.removeprefix(f"{API_GROUP}/"),
            "plural": "scannerjobs",
            "limit": _CHUNK,
            "_request_timeout": TIMEOUT,
            "_headers": {"Accept": _METADATA},
            **({"_continue": more} if more else {}),
        }
        with asking("list ScannerJobs"):
            if namespace is None:
                answer = await self._objects.list_cluster_custom_object(**options)
            else:
                answer = await self._objects.list_namespaced_custom_object(
                    namespace=namespace, **options
                )
        return answer if isinstance(answer, dict) else json.loads(str(answer))
