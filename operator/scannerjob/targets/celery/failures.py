"""What a worker says of a task that failed, made fit to be shown."""

from __future__ import annotations

from scannerjob.model.facts import Fact, Observation
from scannerjob.model.printable import without_userinfo

_MAX_REASON = 200


def failed(reason: str) -> Observation:
    """That a task failed, and why, in one line. A task may have quoted a URL that it was given."""
    reason = without_userinfo(reason)
    printable = "".join(each if each.isprintable() else " " for each in reason)
    return Observation(Fact.FAILED, " ".join(printable.split())[:_MAX_REASON] or "the task failed")
