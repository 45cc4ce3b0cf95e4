"""What the parts of the world share: its kinds, what may go wrong, and where calls stop."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from scannerjob.model.limits import LATEST_SEND, SEND_WITHIN
from scannerjob.ports import Ref

REF = Ref("docs", "pages")
# Between two seconds: a ledger has whole ones.
START = datetime(2030, 1, 1, 0, 0, 0, 700_000, tzinfo=UTC)
# How long a target that knows sends again keeps its record of one, and is asked to rely on it.
RETENTION = timedelta(hours=24)
RESEND_WITHIN = RETENTION - timedelta(hours=1)
NETWORK_DELAY = LATEST_SEND - SEND_WITHIN
# How long a row that left is seen on a replica, where the cooldown says that there is one.
LAG = {"2s": timedelta(seconds=1.5)}


class Violation(AssertionError):
    """A promise was broken."""


class Fault(StrEnum):
    """What goes wrong with one call. A port takes what makes no sense to it for NONE."""

    NONE = "none"
    REFUSED = "refused"  # it fails, and says so, and nothing happened
    LOST = "lost"  # no answer, and nothing happened
    LANDED = "landed"  # no answer, but it happened
    LATE = "late"  # no answer, and it may happen later
    STALE = "stale"  # a read gives what was there before the last write


@dataclass(frozen=True)
class Setup:
    """A kind of world.

    `idempotent`: a second send of an id puts no second message. `republish`: the author would
    rather have two than none. `outcomes`: at first, workers report to a result backend. `flips`:
    they do at all times, and tasks may take their row out of the query before they are done.
    `lifetime`: messages expire, and tasks are killed at their deadline; without it a launch whose
    worker died without a word needs a person. `loses_ledgers`: its status may vanish, which only a
    lifetime mends. `unfetchable`: of so many rows a look by key tells nothing. `limit`: the query
    has a LIMIT of its own, if it is not 0.

    `jobs`: rows become Jobs, which tell their ends. `refused`: of so many rows the API server takes
    no Job. `predecessor`: a Job of an earlier ScannerJob runs at first. `taken`: so many of the
    first Jobs find that somebody else's has their name. `history`: so many Jobs that ended are
    kept, `ttl`: for so many seconds.
    """

    idempotent: bool = True
    republish: bool = False
    outcomes: bool = False
    flips: bool = False
    lifetime: bool = True
    loses_ledgers: bool = False
    cap: int = 2
    rows: int = 4
    unfetchable: int = 0
    limit: int = 0
    attempts: int = 3
    cooldown: str = "0s"
    jobs: bool = False
    refused: int = 0
    predecessor: bool = False
    taken: int = 0
    history: int = 0
    ttl: int | None = None

    @property
    def lag(self) -> timedelta:
        """How late the scan sees that a row left: less than the cooldown."""
        return LAG.get(self.cooldown, timedelta(0))

    def document(self) -> dict[str, Any]:
        """The spec that its author writes."""
        secret = {"urlSecretRef": {"name": "app", "key": "url"}}
        return {
            "database": secret,
            "query": "SELECT id FROM pdf WHERE NOT done",
            "interval": "1s",
            "concurrency": self.cap,
            "cooldown": self.cooldown,
            "retry": {"attempts": self.attempts, "backoff": "10s"},
            **({"job": self._job()} if self.jobs else {"celery": self._celery(secret)}),
            **({"deadline": "60s"} if self.lifetime else {}),
        }

    def _celery(self, secret: dict[str, Any]) -> dict[str, Any]:
        celery = {"broker": secret, "task": "docs.make_pages"}
        republish = {"onUncertainPublish": "Republish"} if self.republish else {}
        return celery | republish | ({"expires": "60s"} if self.lifetime else {})

    def _job(self) -> dict[str, Any]:
        pod = {"containers": [{"name": "pages", "image": "docs"}]}
        ttl = {} if self.ttl is None else {"ttlSecondsAfterFinished": self.ttl}
        return {
            "template": {"spec": {"template": {"spec": pod}, **ttl}},
            "successfulJobsHistoryLimit": self.history,
            "failedJobsHistoryLimit": self.history,
        }


class Pause:
    """Where a call stops; resumed with the fault that it is to have."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __await__(self) -> Generator[str, Fault, Fault]:
        return (yield self.where)
