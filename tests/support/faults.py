"""What can go wrong between a client and the API server, and which requests it is for."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
}


@dataclass(frozen=True)
class Answer:
    """The proxy answers with this status; the API server hears nothing of it."""

    status: int
    reason: str = ""
    retry_after: int | None = None


@dataclass(frozen=True)
class LoseRequest:
    """The API server hears nothing of it; the connection ends after so many seconds."""

    seconds: float = 0.0


@dataclass(frozen=True)
class LoseReply:
    """The API server does it, but the connection ends unanswered, so many seconds later.

    Watches have no reply, and are left alone.
    """

    seconds: float = 0.0


@dataclass(frozen=True)
class Delay:
    """It reaches the API server late, even if the client gave up, or is answered late."""

    before: float = 0.0
    after: float = 0.0


@dataclass(frozen=True)
class Stall:
    """Watches stay open, and nothing comes any more; so do those that are open now.

    A watch that was stalled stays so when the rule is removed: later ones are not.
    """


@dataclass(frozen=True)
class EndWatch:
    """Watches end, those that are open now too; with a code, an ERROR event says why.

    410 is what a watch ends with when its resourceVersion is too old.
    """

    code: int | None = None


@dataclass(frozen=True)
class Lag:
    """Each event of a watch comes so many seconds late, of those that are open now too.

    A watch that lags goes on so when the rule is removed: later ones do not.
    """

    seconds: float


@dataclass(frozen=True)
class Stale:
    """Whatever is read the first time is what is read from then on, as from a cache that is stuck.

    Watches are left alone: one that goes on from a list which was answered so shows all that has
    happened since.
    """


WatchFault = Stall | EndWatch | Lag
Fault = Answer | LoseRequest | LoseReply | Delay | Stale | WatchFault


@dataclass(eq=False)
class Request:
    """What a client asked, at a `time.time()`.

    `port` is the client's, which tells its process. `forwarded` is the API server's answer, None if
    there is none (yet); `status` is what the client was told, None if nothing (yet).
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: bytes
    user_agent: str
    time: float
    port: int = 0
    forwarded: int | None = None
    status: int | None = None

    @property
    def watch(self) -> bool:
        """Whether it is a watch."""
        return self.query.get("watch", "").lower() in ("1", "true")

    def matches(self, method: str | None, path: str) -> bool:
        """Whether it is of this method, or any, and its path has a match of this pattern."""
        return method in (None, self.method) and re.search(path, self.path) is not None

    def json(self) -> Any:
        """The object that it sends, None if there is none; kubectl does not always send JSON."""
        return json.loads(self.body) if self.body else None


@dataclass(eq=False)
class Rule:
    """A fault, the requests that it is for, and those that it took (`hits`), `times` at most."""

    fault: Fault
    method: str | None
    path: str
    when: Callable[[Request], bool]
    times: int | None
    hits: list[Request] = field(default_factory=list)

    def takes(self, request: Request) -> bool:
        """Whether it is for this request, which is then one of its hits."""
        if self.times is not None and len(self.hits) >= self.times:
            return False
        taken = self._is_for(request)
        if taken:
            self.hits.append(request)
        return taken

    def _is_for(self, request: Request) -> bool:
        if isinstance(self.fault, LoseReply) and request.watch:
            return False
        if isinstance(self.fault, WatchFault) and not request.watch:
            return False
        if isinstance(self.fault, Stale) and (request.method != "GET" or request.watch):
            return False
        return request.matches(self.method, self.path) and self.when(request)


def problem(code: int, reason: str = "") -> dict[str, Any]:
    """The Status by which the API server would say so."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "the proxy was told to say so",
        "reason": reason or _REASONS.get(code, "Unknown"),
        "code": code,
    }
