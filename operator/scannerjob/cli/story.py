"""Why a row is where it is: what `explain` tells of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from scannerjob.cli.printing import ago, brief, fields, styled
from scannerjob.model.conditions import find
from scannerjob.model.ledger import Item, Ledger, Phase, format_time
from scannerjob.model.printable import printable
from scannerjob.model.row import Presence
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import Ref, Snapshot


@dataclass(frozen=True)
class Story:
    """One row: what is remembered of it, what it was last heard to say, and what comes next."""

    snapshot: Snapshot
    spec: ScannerJobSpec
    key: str
    item: Item | None
    next: str
    last_words: tuple[str, ...] = ()

    @property
    def launch(self) -> str | None:
        """What its launch is known by: a Celery task's id, or a Job's name."""
        if self.item is None:
            return None
        if self.spec.job is None:
            return self.item.id
        from scannerjob.targets.job.names import job_name

        return job_name(self.snapshot.ref.name, self.item.id)


# What keeps launches from arriving, from being taken and from ending, by the status that says so.
_IN_THE_WAY = {"TargetReachable": "False", "WorkersMissing": "True", "Stalled": "True"}


def next_of(item: Item, snapshot: Snapshot, options: str, now: datetime) -> str:
    """What becomes of a row that is remembered; `options` tell other commands of the place."""
    in_the_way = "; ".join(_in_the_way(snapshot))
    match item.phase:
        case Phase.CLAIMED:
            but = f"; but {in_the_way}" if in_the_way else ""
            return f"it is being sent; whether it arrived is not known yet{but}"
        case Phase.LAUNCHED:
            waits = f"its slot is held: {in_the_way}" if in_the_way else "its end is waited for"
            return waits + _at_the_latest(item, now)
        case Phase.WAITING:
            due = item.until is None or item.until <= now
            when = "as soon as a slot is free" if due else f"in {_left(item, now)}"
            return f"attempt {item.attempt} {when}, if its row still matches{_unless(snapshot)}"
        case Phase.COOLING:
            return f"forgotten in {_left(item, now)}, if its row has left the query by then"
        case Phase.PARKED:
            return (
                f"nothing, until `{_retry(snapshot.ref, item.key, options)}`, or until its row "
                "leaves the query and comes back"
            )


def _in_the_way(snapshot: Snapshot) -> Iterator[str]:
    for kind, status in _IN_THE_WAY.items():
        condition = find(snapshot.status, kind)
        if condition.get("status") == status:
            yield f"{condition.get('reason')}: {condition.get('message')}"


def _retry(ref: Ref, key: str, options: str) -> str:
    """The command, as it can be pasted into a shell."""
    return f"scannerjob retry {ref.name} {shlex.quote(_visible(key))} {options}".rstrip()


def _visible(key: str) -> str:
    """The same key with JSON's escapes for what is not printable, which a terminal leaves alone."""
    return "".join(each if each.isprintable() else _escape(each) for each in key)


def _escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return re.sub("....", r"\\u\g<0>", units)


def next_of_unknown(
    presence: Presence | None, snapshot: Snapshot, spec: ScannerJobSpec, ledger: Ledger
) -> str:
    """What becomes of a row of which nothing is remembered; `presence` None: nobody looked."""
    if presence is None or presence is Presence.UNKNOWN:
        return "nothing is remembered of it; whether its row matches now could not be looked up"
    if presence is Presence.ABSENT:
        return "its row does not match the query: there is nothing to launch"
    taken = len(ledger.outstanding)
    if not spec.suspend and taken < spec.concurrency:
        return f"launched at the next look, within {brief(spec.interval)}{_unless(snapshot)}"
    return (
        f"launched when a slot is free: {taken} of {spec.concurrency} are taken{_unless(snapshot)}"
    )


def _unless(snapshot: Snapshot) -> str:
    """What keeps everything from being launched, if anything does."""
    ready = find(snapshot.status, "Ready")
    if snapshot.spec.get("suspend"):
        return "; but nothing is launched while it is suspended"
    if ready.get("status") == "False":
        return f"; but nothing is launched now: {ready.get('reason')}: {ready.get('message')}"
    return ""


def _at_the_latest(item: Item, now: datetime) -> str:
    return f"; it is given up in {_left(item, now)}" if item.until else ""


def _left(item: Item, now: datetime) -> str:
    return brief(item.until - now) if item.until and item.until > now else "a moment"


def as_data(story: Story) -> dict[str, Any]:
    """For programs."""
    item = story.item
    return {
        "namespace": story.snapshot.ref.namespace,
        "name": story.snapshot.ref.name,
        "key": story.key,
        "phase": item.phase.value if item else None,
        "attempt": item.attempt if item else None,
        "attempts": story.spec.retry.attempts,
        "since": format_time(item.since) if item else None,
        "until": format_time(item.until) if item else None,
        "reason": item.reason if item else None,
        "launch": story.launch,
        "lastWords": list(story.last_words),
        "next": story.next,
    }


def as_table(story: Story, now: datetime) -> Iterator[str]:
    """For a person."""
    item, spec = story.item, story.spec
    yield styled(printable(f"{story.snapshot.ref}: row {story.key}"), bold=True)
    yield from fields(
        [
            ("phase", f"{item.phase} for {ago(item.since, now)}" if item else "not remembered"),
            ("attempt", f"{item.attempt} of {spec.retry.attempts}" if item else ""),
            ("reason", item.reason if item else ""),
            ("Job" if spec.job else "task", story.launch),
            ("sent", f"{item.sends} times" if item and item.sends > 1 else ""),
            ("next", story.next),
        ]
    )
    yield from _words(story.last_words)


def _words(words: Sequence[str]) -> Iterator[str]:
    if words:
        yield ""
        yield styled("its last words", bold=True)
        yield from (f"  {printable(word)}" for word in words)
