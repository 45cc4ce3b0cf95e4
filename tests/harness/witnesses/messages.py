"""The messages that the operator publishes, told from all others, and what each says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

from tests.proof.history import Message, time_of

Headers = Mapping[str, Any]

# The operator's own, which holds the launch's id. A task that gives itself back takes it along.
_LAUNCH = "scannerjob"


def message_of(
    time: float, headers: Headers, body: str | bytes, key: Sequence[str]
) -> Message | None:
    """A Celery message; None where the operator did not publish it, but for instance a worker.

    `key` names the columns by which its row is known.
    """
    launch = headers.get(_LAUNCH)
    if launch is None or launch != headers["id"] or headers["retries"]:
        return None
    _, values, _ = json.loads(body)
    expires, (time_limit, _) = headers["expires"], headers["timelimit"]
    return Message(
        time,
        launch,
        _row(values, key),
        inf if expires is None else time_of(expires),
        inf if time_limit is None else float(time_limit),
    )


def _row(values: Mapping[str, Any], key: Sequence[str]) -> str:
    parts = [values[column] for column in key]
    return json.dumps(parts, separators=(",", ":"), ensure_ascii=False)
