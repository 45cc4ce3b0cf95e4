"""What the pods of a launch said: their logs, and how they ended."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from kubernetes.aio.client import ApiClient

from scannerjob.apiserver import asking, open_core
from scannerjob.ports import PortError, Ref
from scannerjob.targets.job.api import JobsApi
from scannerjob.targets.job.names import KEY, LAUNCH, NAME, SCANNERJOB, label_value

_LAST_LINES = 10

Document = Mapping[str, Any]


async def pods_of_row(api: ApiClient, ref: Ref, keys: Sequence[str]) -> list[Document]:
    """The pods of all launches of this row whose Jobs are still there, the newest last."""
    asked = JobsApi(api)
    jobs = await asked.find(ref.namespace, f"{NAME}={label_value(ref.name)}")
    launches = [
        job["metadata"]["labels"][LAUNCH]
        for job in jobs
        if _annotation(job, SCANNERJOB) == ref.name and _annotation(job, KEY) in keys
    ]
    pods = await asked.pods_of(ref.namespace, launches)
    return sorted(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def _annotation(job: Document, name: str) -> str | None:
    return (job["metadata"].get("annotations") or {}).get(name)


async def log_lines(
    api: ApiClient, pod: Document, container: str, *, follow: bool = False, tail: int | None = None
) -> AsyncIterator[str]:
    """The log of one container, line by line."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    query = {"container": container}
    query |= {"follow": "true"} if follow else {}
    query |= {"tailLines": str(tail)} if tail is not None else {}
    path = f"namespaces/{namespace}/pods/{name}/log"
    with asking(f"read the log of pod {namespace}/{name}"):
        async with open_core(api, path, **query) as content:
            async for line in content:
                yield line.decode(errors="replace").rstrip("\n")


def containers(pod: Document) -> list[str]:
    """Those of the pod that are no helpers of its start."""
    return [each["name"] for each in pod["spec"]["containers"]]


def endings(pod: Document) -> Iterator[str]:
    """How its containers ended, those that did."""
    for status in (pod.get("status") or {}).get("containerStatuses") or ():
        ended = (status.get("state") or {}).get("terminated")
        if ended:
            told = ": ".join(filter(None, [ended.get("reason"), ended.get("message")]))
            yield f"container {status['name']} ended with exit code {ended.get('exitCode')}: {told}"


async def last_words(api: ApiClient, pods: Sequence[Document]) -> list[str]:
    """How the newest of these pods ended, and the last lines of its log."""
    if not pods:
        return []
    pod = pods[-1]
    words = [f"pod {pod['metadata']['name']}: {(pod.get('status') or {}).get('phase')}"]
    words += endings(pod)
    for container in containers(pod):
        try:
            words += [line async for line in log_lines(api, pod, container, tail=_LAST_LINES)]
        except PortError as error:
            words.append(f"no log: {error}")
    return words
