"""What the pods of a launch said: their logs, and how they ended."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from kubernetes.aio.client import ApiClient

from scannerjob.apiserver import asking, open_core
from scannerjob.ports import PortError, Ref
from scannerjob.targets.job.api import JobsApi
from scannerjob.targets.job.names import KEY, LAUNCH, NAME, SCANNERJOB, label_value

_LAST_LINES = 10
# In characters. A longer line is given in pieces; of those that are shown beside others, the end.
_LONGEST_LINE = 65536
_LONGEST_WORDS = 2048

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
    """The log of one container, line by line; in pieces what has no end, as of a progress bar."""
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    query = {"container": container}
    query |= {"follow": "true"} if follow else {}
    query |= {"tailLines": str(tail)} if tail is not None else {}
    path = f"namespaces/{namespace}/pods/{name}/log"
    with asking(f"read the log of pod {namespace}/{name}"):
        async with open_core(api, path, **query) as content:
            async for line in lines_of(content.iter_any()):
                yield line


async def lines_of(chunks: AsyncIterable[bytes]) -> AsyncIterator[str]:
    """The text that comes in these chunks, line by line; a very long line in pieces."""
    decoder, rest = getincrementaldecoder("utf-8")("replace"), ""
    async for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield line
        while len(rest) > _LONGEST_LINE:
            yield rest[:_LONGEST_LINE]
            rest = rest[_LONGEST_LINE:]
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest


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
            words += await _last_lines(log_lines(api, pod, container, tail=_LAST_LINES))
        except PortError as error:
            words.append(f"no log: {error}")
    return words


async def _last_lines(lines: AsyncIterator[str]) -> list[str]:
    """As many as are asked for, however many pieces come."""
    kept: deque[str] = deque(maxlen=_LAST_LINES)
    async for line in lines:
        kept.append(line[-_LONGEST_WORDS:])
    return list(kept)
