"""What is asked of the API server about Jobs and their pods, each call with a timeout."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from kubernetes.aio.client import (
    ApiClient,
    CustomObjectsApi,
    V1DeleteOptions,
    V1Preconditions,
)

from scannerjob.apiserver import TIMEOUT, asking, read_core
from scannerjob.ports import UnknownOutcomeError
from scannerjob.targets.job.names import LAUNCH
from scannerjob.targets.job.view import JobView

Document = Mapping[str, Any]

_JOBS: dict[str, Any] = {
    "group": "batch",
    "version": "v1",
    "plural": "jobs",
    "_request_timeout": TIMEOUT,
}
# So many objects come in one answer at most, and so many ids go into one selector: what fits into a
# URL.
_PAGE = 500
_IDS_AT_ONCE = 100


class JobsApi:
    """Jobs and pods of an API server, as plain documents.

    The methods raise RefusedError, UnreachedError or UnknownOutcomeError as `apiserver.asking`
    says. The generic client is used since the typed one spends milliseconds on every Job's models.
    """

    def __init__(self, api: ApiClient) -> None:
        self._objects = CustomObjectsApi(api)
        self._api = api

    async def create(self, job: Document) -> Document:
        """Create this Job."""
        with asking(f"create {_said(job)}"):
            created = await self._objects.create_namespaced_custom_object(
                **_JOBS, namespace=_namespace(job), body=dict(job)
            )
        return _document(created)

    async def try_out(self, job: Document) -> None:
        """Let the API server check this Job, unknown fields included, and create nothing."""
        with asking(f"create {_said(job)}"):
            await self._objects.create_namespaced_custom_object(
                **_JOBS,
                namespace=_namespace(job),
                body=dict(job),
                dry_run="All",
                field_validation="Strict",
            )

    async def get(self, namespace: str, name: str) -> Document:
        """The Job as it is now."""
        with asking(f"read Job {namespace}/{name}"):
            found = await self._objects.get_namespaced_custom_object(
                **_JOBS, namespace=namespace, name=name
            )
        return _document(found)

    async def find(self, namespace: str, selector: str) -> list[Document]:
        """The Jobs with these labels as they are now."""
        found: list[Document] = []
        more: str | None = None
        while True:
            with asking(f"list the Jobs of {namespace} with {selector}"):
                page: Any = await self._objects.list_namespaced_custom_object(
                    **_JOBS,
                    namespace=namespace,
                    label_selector=selector,
                    limit=_PAGE,
                    _continue=more,
                )
            found += page["items"]
            more = page["metadata"].get("continue")
            if not more:
                return found

    async def delete(self, job: JobView) -> None:
        """Delete this very Job if nothing of it has changed, and its pods with it."""
        preconditions = V1Preconditions(uid=job.uid, resource_version=job.version)
        options = V1DeleteOptions(propagation_policy="Background", preconditions=preconditions)
        with asking(f"delete Job {job.namespace}/{job.name}"):
            await self._objects.delete_namespaced_custom_object(
                **_JOBS, namespace=job.namespace, name=job.name, body=options
            )

    async def let_expire(self, job: JobView, seconds: int) -> None:
        """Have Kubernetes remove this very Job so long after its end."""
        body = {"metadata": {"uid": job.uid}, "spec": {"ttlSecondsAfterFinished": seconds}}
        with asking(f"change Job {job.namespace}/{job.name}"):
            await self._objects.patch_namespaced_custom_object(
                **_JOBS,
                namespace=job.namespace,
                name=job.name,
                body=body,
                _content_type="application/merge-patch+json",
            )

    async def pods_of(self, namespace: str, launches: Collection[str]) -> list[Document]:
        """The pods of these launches as they are now, whether their Jobs are there or not."""
        ids = sorted(launches)
        found: list[Document] = []
        for start in range(0, len(ids), _IDS_AT_ONCE):
            some = ",".join(ids[start : start + _IDS_AT_ONCE])
            found += await self.pods(namespace, f"{LAUNCH} in ({some})")
        return found

    async def pods(self, namespace: str, selector: str) -> list[Document]:
        """The pods with these labels as they are now."""
        with asking(f"list the pods of {namespace} with {selector}"):
            found = await read_core(
                self._api, f"namespaces/{namespace}/pods", labelSelector=selector
            )
        return list(found["items"])


def _document(answer: object) -> Document:
    if not isinstance(answer, Mapping) or not isinstance(answer.get("metadata"), Mapping):
        raise UnknownOutcomeError("APIServerFailed", "the API server's answer is no object")
    return answer


def _namespace(job: Document) -> str:
    return str(job["metadata"]["namespace"])


def _said(job: Document) -> str:
    return f"Job {_namespace(job)}/{job['metadata']['name']}"
