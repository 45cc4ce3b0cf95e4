"""The logs of pods: lines of any length, shown so that no terminal obeys them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast
from unittest.mock import Mock

import aiohttp
import pytest

from scannerjob.cli.pods import last_words, lines_of, log_lines
from scannerjob.cli.printing import for_terminal

POD: dict[str, Any] = {
    "metadata": {"namespace": "docs", "name": "pages-x"},
    "spec": {"containers": [{"name": "main"}]},
    "status": {"phase": "Failed"},
}


def _lines(*chunks: bytes) -> list[str]:
    async def given() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def read() -> list[str]:
        return [line async for line in lines_of(given())]

    return asyncio.run(read())


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        ([], []),
        ([b"a\n"], ["a"]),
        ([b"a\n\nb"], ["a", "", "b"]),
        ([b"pa", b"ge 1\npage", b" 2\n"], ["page 1", "page 2"]),
        (["ü".encode()[:1], "ü".encode()[1:] + b"\r\n"], ["ü\r"]),
        ([b"\xff\n", "ü".encode()[:1]], ["\N{REPLACEMENT CHARACTER}"] * 2),
    ],
)
def test_lines_are_what_was_written_however_it_comes(chunks: list[bytes], lines: list[str]) -> None:
    assert _lines(*chunks) == lines


def test_a_line_that_does_not_end_comes_in_pieces() -> None:
    pieces = _lines(*[b"50%\r" * 10_000] * 200, b"\n", b"done\n")

    assert pieces[-1] == "done"
    assert "".join(pieces[:-1]) == "50%\r" * 2_000_000
    assert max(map(len, pieces)) < 200_000


@asynccontextmanager
async def _long_line(api: Any, path: str, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
    """A log of one line of 8 MB, as aiohttp gives it."""
    loop = asyncio.get_running_loop()
    content = aiohttp.StreamReader(Mock(_reading_paused=False), limit=65536, loop=loop)
    content.feed_data(b"50%\r" * 2_000_000)
    content.feed_data(b"killed")
    content.feed_eof()
    yield content


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log of every pod is a line that does not end."""
    monkeypatch.setattr("scannerjob.cli.pods.open_core", _long_line)


@pytest.mark.usefixtures("endless")
def test_last_words_are_few_and_short() -> None:
    heading, *words = asyncio.run(last_words(cast(Any, None), [POD]))

    assert heading == "pod pages-x: Failed"
    assert words[-1].endswith("killed")
    assert len(words) <= 10
    assert max(map(len, words)) <= 2048


def _container(name: str = "main", last: Any = None, **state: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "lastState": {"terminated": last} if last else {}}


_CRASH = {"exitCode": 1, "reason": "Error"}
_PULL = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "pages:1"'}


@pytest.mark.parametrize(
    ("status", "words", "has_log"),
    [
        (
            {
                "phase": "Pending",
                "conditions": [
                    {"type": "Ready", "status": "False", "reason": "x"},
                    {
                        "type": "PodScheduled",
                        "status": "False",
                        "reason": "Unschedulable",
                        "message": "0/3 nodes are available: 3 Insufficient cpu.",
                    },
                ],
            },
            ["Pending", "not scheduled: Unschedulable: 0/3 nodes are available: 3 Insuffi"],
            False,
        ),
        (
            {"phase": "Pending", "containerStatuses": [_container(waiting=_PULL)]},
            ["Pending", 'container main waits: ImagePullBackOff: Back-off pulling image "pages:1"'],
            False,
        ),
        (
            {"phase": "Pending", "containerStatuses": [_container(waiting={"reason": "NoKey"})]},
            ["Pending", "container main waits: NoKey"],
            False,
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [
                    _container("fetch", terminated={"exitCode": 0, "reason": "Completed"}),
                    _container("migrate", terminated={**_CRASH, "message": "no such table"}),
                ],
                "containerStatuses": [_container(waiting={"reason": "PodInitializing"})],
            },
            ["Pending", "init container migrate ended with exit code 1: Error: no such table"],
            True,
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    _container(waiting={"reason": "CrashLoopBackOff"}, last=_CRASH),
                ],
            },
            [
                "Running",
                "container main waits: CrashLoopBackOff",
                "container main ended with exit code 1: Error",
            ],
            True,
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."},
            ["Failed: Evicted: The node was low on memory."],
            True,
        ),
        (
            {"phase": "Running", "containerStatuses": [_container(running={})]},
            ["Running"],
            True,
        ),
    ],
    ids=["unschedulable", "image", "config", "init", "crash loop", "evicted", "running"],
)
def test_last_words_say_why_a_pod_does_not_run(
    status: Any, words: list[str], has_log: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    async def log(api: Any, pod: Any, container: str, **options: Any) -> AsyncIterator[str]:
        asked.append(container)
        yield "a line"

    monkeypatch.setattr("scannerjob.cli.pods.log_lines", log)

    heading, *told = asyncio.run(last_words(cast(Any, None), [{**POD, "status": status}]))

    expected = [f"pod pages-x: {words[0]}", *words[1:], *(["a line"] if has_log else [])]
    assert len(told) + 1 == len(expected)
    assert all(map(str.startswith, [heading, *told], expected))
    assert bool(asked) is has_log


@pytest.mark.usefixtures("endless")
def test_a_log_of_one_long_line_is_read_to_its_end() -> None:
    async def read() -> int:
        return sum([len(line) async for line in log_lines(cast(Any, None), POD, "main")])

    assert asyncio.run(read()) == 8_000_006


def test_a_terminal_obeys_no_line_of_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "\x1b[2J\x9b\tpage 1\r"
    assert for_terminal(line) == line

    monkeypatch.setattr("scannerjob.cli.printing.is_terminal", lambda: True)

    assert for_terminal(line) == r"\x1b[2J\x9b" + "\tpage 1"
