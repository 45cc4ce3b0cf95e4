"""What the pods of a launch said: their logs, why they do not run, and how they ended."""

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
# Why a container waits while those before it run: that of itself tells nothing.
_ITS_TURN_COMES = "PodInitializing"

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


def standing(pod: Document) -> Iterator[str]:
    """Why it does not run, as far as Kubernetes says: it as a whole, then each of its containers.

    Of a container that is started again and again, why it waits and how it ended before.
    """
    status = pod.get("status") or {}
    phase = f"pod {pod['metadata']['name']}: {status.get('phase')}"
    yield _told(phase, status.get("reason"), status.get("message"))
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            yield _told("not scheduled", condition.get("reason"), condition.get("message"))
    for kind, each in _container_statuses(pod):
        yield from _standing_of(f"{kind} {each['name']}", each)


def _container_statuses(pod: Document) -> Iterator[tuple[str, Document]]:
    """What is known of each container, in the order they run in; not of helpers that did well."""
    status = pod.get("status") or {}
    for each in status.get("initContainerStatuses") or ():
        if not _did_well(each):
            yield "init container", each
    for each in status.get("containerStatuses") or ():
        yield "container", each


def _standing_of(name: str, status: Document) -> Iterator[str]:
    waiting = (status.get("state") or {}).get("waiting") or {}
    if waiting.get("reason") not in (None, _ITS_TURN_COMES):
        yield _told(f"{name} waits", waiting.get("reason"), waiting.get("message"))
    ended = _ended(status)
    if ended:
        how = f"{name} ended with exit code {ended.get('exitCode')}"
        yield _told(how, ended.get("reason"), ended.get("message"))


def _ended(status: Document) -> Document:
    """How it ended, if it did; of one that is to be started again, the last time."""
    for state in ("state", "lastState"):
        ended: Document = (status.get(state) or {}).get("terminated") or {}
        if ended:
            return ended
    return {}


def _did_well(status: Document) -> bool:
    return ((status.get("state") or {}).get("terminated") or {}).get("exitCode") == 0


def _told(*parts: str | None) -> str:
    return ": ".join(filter(None, parts))


def _with_a_log(pod: Document) -> list[str]:
    """The containers that may have written something, with a helper that the others wait for."""
    known = {each["name"]: _has_begun(each) for _, each in _container_statuses(pod)}
    named = [*known, *(name for name in containers(pod) if name not in known)]
    begun = (pod.get("status") or {}).get("phase") != "Pending"
    return [name for name in named if known.get(name, begun)]


def _has_begun(status: Document) -> bool:
    return (status.get("state") or {}).get("running") is not None or bool(_ended(status))


async def last_words(api: ApiClient, pods: Sequence[Document]) -> list[str]:
    """Why the newest of these pods does not run, or how it ended, and the last lines of its log."""
    if not pods:
        return []
    pod = pods[-1]
    words = list(standing(pod))
    for container in _with_a_log(pod):
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
