"""The conditions of a ScannerJob: what a person, `kubectl wait` and kstatus read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from scannerjob.model.facts import Hold
from scannerjob.model.ledger import Item, Ledger, format_time
from scannerjob.model.limits import NO_CONSUMER_AFTER, NOTHING_TAKEN_AFTER, STALLED_AFTER
from scannerjob.model.plan import PlanFinding
from scannerjob.model.printable import printable

Truth = Literal["True", "False", "Unknown"]
MAX_MESSAGE = 1024
# All that there are: others in a status are somebody else's doing, and could take all the room.
_TYPES = frozenset(
    {
        "Ready",
        "DatabaseReachable",
        "TargetReachable",
        "ScanNotIndexed",
        "WorkersMissing",
        "Stalled",
    }
)
# What its author asked for leaves a ScannerJob ready.
_READY_ALL_THE_SAME = frozenset({"Suspended"})
_NOT_INDEXED: Mapping[str, Truth] = {"Indexed": "False", "PlanUnknown": "Unknown"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, before it is known since when it holds."""

    type: str
    status: Truth
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something outside that failed: a CamelCase reason, and a message that names it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Contact:
    """How the last contact with a database or a target went; if it was `tried` at all."""

    tried: bool = False
    trouble: Trouble | None = None


def unusable(trouble: Trouble) -> list[Condition]:
    """The conditions of a ScannerJob that cannot be run as it is written."""
    return [Condition("Ready", "False", trouble.reason, trouble.message)]


@dataclass(frozen=True, slots=True)
class Look:
    """What the last look at the database found amiss: it holds until the next one."""

    problems: Sequence[str] = ()
    blocked: bool = False
    brakes: Sequence[Hold] = ()


@dataclass(frozen=True, slots=True)
class Workers:
    """Since when no worker was seen on a queue; None while some are, or nothing is launched.

    `counted`: by a broker that knows who listens, and not only by what is taken from the queue.
    """

    queue: str
    unseen_since: datetime | None
    counted: bool


def running(
    ledger: Ledger,
    look: Look,
    holds: Sequence[Hold],
    warnings: Sequence[str],
    plan: PlanFinding | None,
    database: Contact,
    target: Contact,
    workers: Workers | None,
    stuck: Sequence[str] | None,
    alive: Collection[str],
    now: datetime,
) -> list[Condition]:
    """The conditions after a whole cycle.

    `stuck` says which launches do not get on, and why, where the target sees them all; None where a
    long silence is all that there may be to go by. `alive` are the ids of launches known to run.
    """
    return [
        _ready(look, holds, warnings, database, target),
        *_reachable("DatabaseReachable", database),
        *_reachable("TargetReachable", target),
        *_not_indexed(plan),
        *_missing(workers, now),
        _silent(ledger, alive, now) if stuck is None else _stuck(stuck),
    ]


def _ready(
    look: Look,
    holds: Sequence[Hold],
    warnings: Sequence[str],
    database: Contact,
    target: Contact,
) -> Condition:
    for trouble in (database.trouble, target.trouble):
        if trouble is not None:
            return Condition("Ready", "False", trouble.reason, trouble.message)
    for hold in (*holds, *look.brakes):
        truth: Truth = "True" if hold.reason in _READY_ALL_THE_SAME else "False"
        return Condition("Ready", truth, hold.reason, hold.message)
    if look.blocked:
        return Condition("Ready", "False", "ScanBlocked", _held_back(look))
    if look.problems:
        return Condition("Ready", "True", "RowsHeldBack", _held_back(look))
    if warnings:
        return Condition("Ready", "True", "Scanning", "; ".join(warnings))
    return Condition("Ready", "True", "Scanning", "the query runs and its rows are launched")


def _held_back(look: Look) -> str:
    shown = "; ".join(look.problems[:5])
    more = f"; and {len(look.problems) - 5} more" if len(look.problems) > 5 else ""
    return f"{len(look.problems)} rows are held back: {shown}{more}"


def _reachable(kind: str, contact: Contact) -> Iterator[Condition]:
    if contact.trouble is not None:
        yield Condition(kind, "False", contact.trouble.reason, contact.trouble.message)
    elif contact.tried:
        yield Condition(kind, "True", "Reachable")


def _not_indexed(plan: PlanFinding | None) -> Iterator[Condition]:
    """What looks cost makes nobody less ready; it is for its author to know."""
    if plan is not None:
        truth = _NOT_INDEXED.get(plan.reason, "True")
        yield Condition("ScanNotIndexed", truth, plan.reason, plan.message)


def _missing(workers: Workers | None, now: datetime) -> Iterator[Condition]:
    """Whether launches wait where nobody takes them. The cap bounds them; nothing is lost."""
    if workers is None:
        return
    since = workers.unseen_since
    patience = NO_CONSUMER_AFTER if workers.counted else NOTHING_TAKEN_AFTER
    if since is None or now - since < patience:
        yield Condition("WorkersMissing", "False", "WorkersSeen")
        return
    message = (
        f"no worker seen on {workers.queue} since {format_time(since)}: what was launched waits "
        f"there; start workers that take from it (celery worker --queues {workers.queue})"
    )
    reason = "NoConsumer" if workers.counted else "NothingTaken"
    yield Condition("WorkersMissing", "True", reason, message)


def _stuck(stuck: Sequence[str]) -> Condition:
    """Whether launches are out that something keeps from going on or from ending."""
    if not stuck:
        return Condition("Stalled", "False", "Progressing")
    more = f"; and {len(stuck) - 5} more" if len(stuck) > 5 else ""
    return Condition("Stalled", "True", "JobsStuck", "; ".join(stuck[:5]) + more)


def _silent(ledger: Ledger, alive: Collection[str], now: datetime) -> Condition:
    """Whether launches are out of which, by what is configured, nothing may ever be heard."""
    quiet = [item for item in ledger.outstanding if item.id not in alive]
    old = [item for item in quiet if now - item.since >= STALLED_AFTER]
    silent = [item for item in old if item.until is None or item.until + STALLED_AFTER <= now]
    if not silent:
        return Condition("Stalled", "False", "Progressing")
    return Condition("Stalled", "True", "NoEvidence", _silence(silent, now))


def _silence(silent: Sequence[Item], now: datetime) -> str:
    hours = (now - min(item.since for item in silent)).total_seconds() / 3600
    return (
        f"{len(silent)} launches hold their slots and nothing was heard of them, the oldest for "
        f"{hours:.0f} h; what became of them cannot be known. Have the workers guard what they run "
        "(celery.guard, and scannerjob.worker.install in the Celery app), or set celery.expires "
        "and deadline together, so that the slots of lost work are freed"
    )


def stamped(
    conditions: Iterable[Condition],
    previous: Iterable[Mapping[str, Any]],
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """The conditions as they stand in `status`; the transition time moves only with the status.

    A condition of which nothing new is said keeps what was last said of it.
    """
    before = {str(old["type"]): dict(old) for old in previous if old.get("type") in _TYPES}
    for condition in conditions:
        old = before.get(condition.type, {})
        same = old.get("status") == condition.status
        before[condition.type] = {
            "type": condition.type,
            "status": condition.status,
            "reason": condition.reason,
            "message": printable(condition.message)[:MAX_MESSAGE],
            "observedGeneration": generation,
            "lastTransitionTime": (same and old.get("lastTransitionTime")) or format_time(now),
        }
    return [before[kind] for kind in sorted(before)]


def find(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    """The condition of this type in a `status`; empty if there is none."""
    found = (each for each in status.get("conditions", ()) if each.get("type") == kind)
    return next(found, {})
