"""The ledger in the status of the ScannerJob itself, on an API server.

A PUT of the status must carry the resourceVersion that was read; the API server refuses it if
anything of the object has changed since. That is the compare-and-swap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob.apiserver import TIMEOUT, asking
from scannerjob.model.requests import MAX_NONCE
from scannerjob.model.spec import API_GROUP, API_VERSION, KIND
from scannerjob.ports import ConflictError, Ref, RefusedError, Snapshot

_PLURAL = "scannerjobs"
_LEDGER = f"{API_GROUP}/ledger"
_REQUESTED = f"{API_GROUP}/requested-"


class KubernetesStore:
    """A LedgerStore on an API server. Every call takes at most `timeout` seconds.

    Beside the errors of LedgerStore all methods raise RefusedError, with the API server's own
    message, where it refuses what was asked: for lack of rights, or by its schema.
    """

    def __init__(self, api: ApiClient, timeout: float = TIMEOUT) -> None:
        self._objects = CustomObjectsApi(api)
        self._timeout = timeout

    async def read(self, ref: Ref) -> Snapshot | None:
        """See LedgerStore."""
        try:
            with asking(f"read {KIND} {ref}"):
                found = await self._objects.get_namespaced_custom_object(**self._to(ref))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise
        return snapshot_of(found)

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        """See LedgerStore."""
        body = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {**_metadata(snapshot), "uid": snapshot.uid},
            "status": dict(status),
        }
        with _swapping(f"write the status of {KIND} {snapshot.ref}"):
            written = await self._objects.replace_namespaced_custom_object_status(
                **self._to(snapshot.ref), body=body
            )
        return snapshot_of(written)

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        """See LedgerStore. The mark names its object: on a copy of another name it is void."""
        mark = {_LEDGER: str(snapshot.ref)}
        with _swapping(f"annotate {KIND} {snapshot.ref}"):
            marked = await self._annotate(snapshot.ref, mark, _metadata(snapshot))
        return snapshot_of(marked)

    async def request(self, ref: Ref, name: str, nonce: str) -> None:
        """Ask the operator for something, by the annotation `scannerjob.dev/requested-NAME`."""
        with asking(f"annotate {KIND} {ref}"):
            await self._annotate(ref, {_REQUESTED + name: nonce}, {})

    async def suspend(self, ref: Ref, suspended: bool) -> None:
        """Set `spec.suspend`."""
        with asking(f"change {KIND} {ref}"):
            await self._patch(ref, {"spec": {"suspend": suspended}})

    async def list(self, namespace: str | None) -> list[Snapshot]:
        """The ScannerJobs of this namespace, or of all."""
        with asking(f"list {KIND}s in {namespace or 'all namespaces'}"):
            found = await (
                self._objects.list_namespaced_custom_object(**self._kind, namespace=namespace)
                if namespace
                else self._objects.list_cluster_custom_object(**self._kind)
            )
        return [snapshot_of(each) for each in cast(Mapping[str, Any], found)["items"]]

    async def _annotate(
        self, ref: Ref, annotations: Mapping[str, str], metadata: Mapping[str, Any]
    ) -> object:
        return await self._patch(ref, {"metadata": {**metadata, "annotations": annotations}})

    async def _patch(self, ref: Ref, body: Mapping[str, Any]) -> object:
        return await self._objects.patch_namespaced_custom_object(
            **self._to(ref), body=dict(body), _content_type="application/merge-patch+json"
        )

    def _to(self, ref: Ref) -> dict[str, Any]:
        return {**self._kind, "namespace": ref.namespace, "name": ref.name}

    @property
    def _kind(self) -> dict[str, Any]:
        return {
            "group": API_GROUP,
            "version": API_VERSION.removeprefix(f"{API_GROUP}/"),
            "plural": _PLURAL,
            "_request_timeout": self._timeout,
        }


@contextmanager
def _swapping(what: str) -> Iterator[None]:
    """Around a call with a resourceVersion; an object that is gone was changed as well."""
    try:
        with asking(what):
            yield
    except RefusedError as error:
        if error.status in (404, 409):
            raise ConflictError(str(error)) from None
        raise


def _metadata(snapshot: Snapshot) -> dict[str, Any]:
    """What makes a write a compare-and-swap."""
    return {
        "name": snapshot.ref.name,
        "namespace": snapshot.ref.namespace,
        "resourceVersion": snapshot.version,
    }


def snapshot_of(found: object) -> Snapshot:
    """What is kept of a ScannerJob's document, as the API server gives it."""
    document = cast(Mapping[str, Any], found)
    metadata = document["metadata"]
    annotations = metadata.get("annotations") or {}
    ref = Ref(metadata["namespace"], metadata["name"])
    return Snapshot(
        ref=ref,
        uid=metadata["uid"],
        generation=metadata["generation"],
        spec=document.get("spec") or {},
        status=document.get("status") or {},
        version=metadata["resourceVersion"],
        marked=annotations.get(_LEDGER) == str(ref),
        deleting=metadata.get("deletionTimestamp") is not None,
        requests={
            name.removeprefix(_REQUESTED): nonce[:MAX_NONCE]
            for name, nonce in annotations.items()
            if name.startswith(_REQUESTED)
        },
    )
