"""What a cycle knows: facts about launches, rows and endpoints, and what was decided from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from scannerjob.model.ledger import Item, Ledger
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import NO_TIME


class Fact(StrEnum):
    """What is known of one launch."""

    ACCEPTED = "accepted"  # the broker or the API server has it
    NOT_SENT = "not sent"  # proven: this send put nothing, and will not
    REFUSED = "refused"  # as NOT_SENT, and for what the row is: it will be refused again
    SUPERSEDED = "superseded"  # proven: nothing of this launch ever ran, and nothing will
    UNCERTAIN = "uncertain"  # sending ended without an answer
    STARTED = "started"  # a worker runs it or ran it; how it ended is not known
    NOT_STARTED = "not started"  # nothing ran it so far (a revoked task); proves no more than that
    RUNNING = "running"  # a worker holds a lease on it
    SILENT = "silent"  # its worker's lease has lapsed; it has to be superseded to prove its end
    LAPSED = "lapsed"  # proven: it ran, nothing of it runs now, and nothing will
    FORGOTTEN = "forgotten"  # as far as can be seen nothing is left of it: to be sent again
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    GONE = "gone"  # looked for live: it is not there, and nothing of it runs


@dataclass(frozen=True, slots=True)
class Observation:
    """A fact about one launch, and in a few words why.

    Of one that is merely ACCEPTED or STARTED, the reason says why it does not get on.
    """

    fact: Fact
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Stray:
    """A launch of ours that has not ended and holds no slot: its ledger vanished, or it came late.

    `name` is what a person knows it by, `since` when it was launched.
    """

    id: str
    key: str
    attempt: int
    since: datetime
    name: str


@dataclass(frozen=True, slots=True)
class Report:
    """What became of one send of a launch: the `sends`-th."""

    sends: int
    observation: Observation


@dataclass(frozen=True, slots=True)
class Hold:
    """Why nothing may be launched now: a CamelCase reason, and a message saying what to do."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Backlog:
    """The queue that launches wait in for a worker.

    `waiting` counts its messages, whoever sent them; `consumers` the workers that listen there, or
    is None where the broker does not know them.
    """

    queue: str
    waiting: int
    consumers: int | None = None


@dataclass(frozen=True)
class Sightings:
    """What a target told: of the launches it was asked about, by id, and of others.

    `hold` is a reason seen there to launch nothing; `backlog` what waits there for workers.
    `hinted`: some of them may have ended, which is a reason to look at their rows now, and proves
    nothing.
    """

    observations: Mapping[str, Observation] = field(default_factory=lambda: MappingProxyType({}))
    strays: tuple[Stray, ...] = ()
    hold: Hold | None = None
    backlog: Backlog | None = None
    hinted: bool = False


@dataclass(frozen=True, slots=True)
class TargetTraits:
    """What can be known of launches on a target, and how safely they can be repeated.

    `tells_outcomes`: `observe` will tell how each launch ended, so that a row which left the query
    settles nothing by itself. `resend_within`: how long after a claim the same id can be sent again
    without a second execution, since the target remembers it; None where it does not. `republish`:
    the author would rather have it executed twice than hold it. `life_margin`: how much longer than
    `expires` and `deadline` say a launch may live here. `sees_all`: `observe` tells of every launch
    whether it is there, so that a long silence means work and not doubt. `guarded`: workers keep a
    lease on what they run, and nothing of a launch that was superseded runs any more.
    """

    tells_outcomes: bool
    resend_within: timedelta | None
    life_margin: timedelta = NO_TIME
    republish: bool = False
    sees_all: bool = False
    guarded: bool = False


@dataclass(frozen=True)
class Facts:
    """All that a cycle read. What could not be read is None, and None launches and frees nothing.

    `observations` (by launch id) were made strictly before `rows` were read, and reading began at
    `read_at`: what ended after that may not show in them. `reports` tell of this process's own
    sends. `query_hash` and `endpoints` say where was looked. `hold` is a reason found
    outside to launch nothing. `strays` are launches that hold no slot though they should.
    `known_for` says how long this process has known the last claim of each launch, by a clock that
    nobody sets; None where that was not measured.
    """

    traits: TargetTraits
    query_hash: str
    endpoints: Mapping[str, str]
    read_at: datetime
    observations: Mapping[str, Observation] | None
    rows: Rows | None
    reports: Mapping[str, Report] = field(default_factory=lambda: MappingProxyType({}))
    hold: Hold | None = None
    strays: tuple[Stray, ...] = ()
    known_for: Mapping[str, timedelta] | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """One launch that may be sent, once the ledger which records it was written.

    `expires_at` is the same for every send of one launch.
    """

    item: Item
    row: Row
    expires_at: datetime | None
    time_limit: timedelta | None


@dataclass(frozen=True)
class Decision:
    """The ledger to write, and what may be sent once it is written.

    `holds` says why nothing was launched; `brakes`, where rows were read, why no new row was.
    `more_rows` says that rows wait for a slot, so that the next free one is reason enough to look.
    """

    ledger: Ledger
    sends: tuple[Send, ...] = ()
    holds: tuple[Hold, ...] = ()
    brakes: tuple[Hold, ...] = ()
    more_rows: bool = False
