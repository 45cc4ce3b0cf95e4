"""What a worker says of a task that failed, made fit to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scannerjob.model.facts import Fact, Observation
from scannerjob.model.printable import without_userinfo
from scannerjob.urls import scrub

_MAX_REASON = 200
# Of a task's last words, in bytes, and of one line of them, in characters: one of any has room.
_MAX_WORDS = 2048
_MAX_LINE = 500
# As much of a line is looked at: to find where a password ends that is cut off with what follows.
_MAX_READ = 8192


def failed(reason: str) -> Observation:
    """That a task failed, and why, in one line. A task may have quoted a URL that it was given."""
    reason = _plain(without_userinfo(reason))
    return Observation(Fact.FAILED, " ".join(reason.split())[:_MAX_REASON] or "the task failed")


@dataclass(frozen=True)
class Failure:
    """What a result backend keeps of a task that failed, be it for good or to be tried again.

    `state` is Celery's word for it. What is not kept, or is too long to be read, is empty.
    """

    state: str
    exception: str = ""
    traceback: str = ""

    def last_words(self, *urls: str) -> list[str]:
        """The end of its traceback and the exception, in lines of 2 KiB in all at most.

        No password of any URL is in them, nor any of these `urls`, however it is written.
        """
        lines = self.traceback.splitlines()
        if self.exception not in self.traceback:
            lines += self.exception.splitlines()
        kept = [*_last(_shown(line, urls) for line in reversed(lines))]
        return ["...", *reversed(kept)] if len(kept) < len(lines) else kept[::-1]


def _last(lines: Iterator[str]) -> Iterator[str]:
    """As many of these as there is room for."""
    room = _MAX_WORDS
    for line in lines:
        room -= len(line.encode()) + 1
        if room < 0:
            return
        yield line


def _shown(line: str, urls: tuple[str, ...]) -> str:
    shown = _plain(without_userinfo(scrub(line[:_MAX_READ], *urls))).rstrip()
    return shown if len(shown) <= _MAX_LINE else f"{shown[: _MAX_LINE - 3]}..."


def _plain(text: str) -> str:
    return "".join(each if each.isprintable() else " " for each in text)
