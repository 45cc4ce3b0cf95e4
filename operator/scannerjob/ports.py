"""What the cycle needs of the world: databases, brokers and API servers as interfaces.

Every method may take as long as its own deadline, and none blocks the event loop. What cannot be
known is an exception here, never an empty answer: an empty answer launches work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from scannerjob.model.facts import Observation, Send, Sightings, TargetTraits
from scannerjob.model.ledger import Item
from scannerjob.model.notice import Notice
from scannerjob.model.plan import PlanFinding
from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec


@dataclass(frozen=True, slots=True)
class Ref:
    """Which ScannerJob: its namespace and name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Snapshot:
    """A ScannerJob as it was read: what its author wrote, what we wrote, and the version of both.

    `version` is the resourceVersion (or its counterpart) that the next write must still find.
    `marked` says that a ledger was begun for this object before, so that a status without one is a
    ledger that vanished; `deleting` that it is about to go. `requests` holds the nonces of
    `scannerjob.dev/requested-*`.
    """

    ref: Ref
    uid: str
    generation: int
    spec: Mapping[str, Any]
    status: Mapping[str, Any]
    version: str
    marked: bool = False
    deleting: bool = False
    requests: Mapping[str, str] = field(default_factory=dict)


class PortError(Exception):
    """Something outside failed. The message names it and says what to do, and holds no secret.

    `reason` is a CamelCase word for a condition.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class ConflictError(Exception):
    """The write lost against another one: nothing was written. Read again."""


class UnknownOutcomeError(PortError):
    """Whether the write or the read took place is not known. Read again before anything else."""


class UnreachedError(UnknownOutcomeError):
    """There was not even a connection to ask over: nothing took place."""


class RefusedError(PortError):
    """The API server said no, and did nothing.

    `status` is the HTTP status, `told` the API server's own words, and `causes` has a field's path
    and what is wrong with it for each field that was named.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        told: str = "",
        causes: Sequence[tuple[str, str]] = (),
    ) -> None:
        self.status = status
        self.told = told or message
        self.causes = tuple(causes)
        super().__init__(reason, message)


class SourceError(PortError):
    """The database could not be read: DatabaseUnreachable, QueryFailed and the like."""


class TargetError(PortError):
    """The broker, the result backend or the API server could not be asked."""


class ConfigurationError(PortError):
    """The ScannerJob refers to what is not there, or not usable: SecretNotFound, InvalidURL, ..."""


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Let a ConfigurationError that is raised within begin with the field of the spec."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(error.reason, f"{field}: {error}") from None


class LedgerStore(Protocol):
    """Where ScannerJobs and their ledgers are kept; its compare-and-swap is the only lock."""

    async def read(self, ref: Ref) -> Snapshot | None:
        """The ScannerJob as it is now, or None if there is none. Raises UnknownOutcomeError."""
        ...

    async def write(self, snapshot: Snapshot, status: Mapping[str, Any]) -> Snapshot:
        """Replace the status if nothing changed since `snapshot` was read.

        Returns the new snapshot. Raises ConflictError if something had changed (or the object is
        gone or another of the same name), UnknownOutcomeError where the reply was lost.
        """
        ...

    async def mark(self, snapshot: Snapshot) -> Snapshot:
        """Record outside the status that a ledger is begun; conditions and errors as in `write`."""
        ...


class RowSource(Protocol):
    """The database and the query of one ScannerJob."""

    @property
    def query_hash(self) -> str:
        """A hash of query, key columns and the database's identity without credentials."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """What the author should know of this query (a LIMIT of its own, a superuser's role)."""
        ...

    @property
    def plan(self) -> PlanFinding | None:
        """What each look costs, by the database's plan; None while that is not known."""
        ...

    async def scan(self, limit: int) -> Rows:
        """The first `limit` usable rows in the query's own order, fewer only if there are no more.

        Reads on, doubling, to 10,000 rows while rows are unusable. Raises SourceError.
        """
        ...

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        """`rows`, and what a look by key, or at more rows, told of these keys.

        Keys for which it cannot be told stay UNKNOWN. Raises SourceError.
        """
        ...


class Target(Protocol):
    """Where work is launched: a broker or the Kubernetes API."""

    @property
    def traits(self) -> TargetTraits:
        """What can be known of launches here, and how safely they can be repeated."""
        ...

    @property
    def endpoints(self) -> Mapping[str, str]:
        """A hash of each endpoint's identity without credentials, by its field's name."""
        ...

    async def check(self) -> None:
        """Make sure that launches would be taken. Raises TargetError if they would not.

        Asked once for each spec, and again after each failure.
        """
        ...

    async def observe(self, ids: Collection[str]) -> Sightings:
        """What became of these launches, the outstanding ones, and which others are there.

        Nothing for those of which nothing is known. Raises TargetError where it could not be asked:
        then nothing is known of any.
        """
        ...

    async def launch(self, sends: Sequence[Send], deadline: float) -> Mapping[str, Observation]:
        """Send what was claimed, in order, and say of each id what is known afterwards.

        Nothing may be handed to the network after `deadline` (Clock.boottime): a process that was
        frozen must not send late. Never raises for a failure outside: an Observation says ACCEPTED,
        NOT_SENT or REFUSED (proven, with the reason), SUPERSEDED or, for all others, UNCERTAIN.
        """
        ...

    async def supersede(self, ids: Collection[str]) -> Mapping[str, Observation]:
        """Make sure that a late send of these ids does nothing.

        ACCEPTED: it had been sent before. SUPERSEDED: it never was and never will be. Nothing for
        those of which neither can be had. Believed only within `traits.resend_within` of the first
        claim. Raises TargetError.
        """
        ...

    async def clean_up(self, outstanding: Collection[str], settled: Collection[Item]) -> None:
        """Remove what launches left behind, once their end is in the ledger. Never raises.

        `outstanding` are the ids that the ledger holds slots for, as it was just read or written;
        `settled` those whose slots a write that was just won has freed.
        """
        ...


@dataclass(frozen=True)
class Connections:
    """What a ScannerJob is connected to."""

    source: RowSource
    target: Target


class Connector(Protocol):
    """Opens what a spec refers to; one for all ScannerJobs, so that equal URLs share pools."""

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        """For this ScannerJob, whose `spec` was parsed. Cheap when nothing changed.

        Raises ConfigurationError.
        """
        ...

    def forget(self, ref: Ref) -> None:
        """Keep nothing of this ScannerJob: it is gone, or is to be looked at all anew."""
        ...

    def reread(self, ref: Ref) -> None:
        """Read its Secrets anew: what they held may be why something failed."""
        ...


class Recorder(Protocol):
    """Where changes are told to people, beside the log: best effort, and of no use to safety."""

    def record(self, ref: Ref, uid: str, notice: Notice) -> None:
        """Tell of this change of a ScannerJob soon. Never waits, and never raises."""
        ...


class Clock(Protocol):
    """Time, injected, so that a test can own it."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def boottime(self) -> float:
        """Seconds that never go back and go on while the machine sleeps (CLOCK_BOOTTIME)."""
        ...
