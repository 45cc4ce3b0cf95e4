"""Steps 2 and 3 of the cycle: what became of the launches that are out, and which rows match."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from scannerjob.model import conditions
from scannerjob.model.facts import Decision, Fact, Facts, Hold, Report
from scannerjob.model.ledger import Ledger
from scannerjob.model.reading import (
    free_slots,
    keys_to_look_up,
    rows_to_read,
    to_supersede,
    urgent,
    worth_a_look,
)
from scannerjob.model.row import Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.peers import Peer
from scannerjob.ports import (
    Clock,
    Connections,
    Connector,
    Ref,
    Snapshot,
    SourceError,
    Target,
    TargetError,
)
from scannerjob.workerwatch import WorkerWatch

log = logging.getLogger(__name__)

_DELETING = Hold("Deleting", "the ScannerJob is being deleted; what is out goes on")
# What a Secret holds may have been replaced.
_REFUSED_SECRETS = ("AuthenticationFailed", "TLSFailed")


class Observer:
    """Gathers the facts of a ScannerJob's cycles.

    Between two of them it remembers how it went with target and database, when the next look at the
    rows is due, what the last one `found`, and whether `workers` were seen; `more_rows` says that
    rows wait for a slot, `looked` that the last cycle has asked the database. It may be lost at any
    time.
    """

    def __init__(self, ref: Ref, connector: Connector, clock: Clock) -> None:
        self.database = Peer()
        self.target = Peer()
        self.workers = WorkerWatch()
        self.found = conditions.Look()
        self.more_rows = False
        self.looked = False
        self._ref = ref
        self._connector = connector
        self._clock = clock
        self._next_look = 0.0
        self._target_checked = False
        self._asked = False
        self._claims = KnownClaims()

    def spec_changed(self, snapshot: Snapshot) -> None:
        """Look at once: its author is waiting for what the change does.

        A target that was asked about this very spec before, by any process, is not asked again.
        """
        self.look_soon()
        self.workers = WorkerWatch()
        told = conditions.find(snapshot.status, "TargetReachable")
        same = told.get("observedGeneration") == snapshot.generation
        self._target_checked = same and told.get("status") == "True"
        self.database.try_at_once()
        self.target.try_at_once()

    def look_soon(self) -> None:
        """Have the next query look at the rows, without regard to the interval."""
        self._next_look = 0.0

    def asked_to_look(self) -> None:
        """Look in this cycle, even if no row could change anything: a person asked for it."""
        self.look_soon()
        self.database.try_at_once()
        self._asked = True

    def until_next_look(self) -> float:
        """Seconds until a look at the rows is due and its database no longer left alone."""
        boottime = self._clock.boottime()
        return max(self._next_look - boottime, self.database.rest(boottime))

    async def observe(
        self,
        connections: Connections,
        ledger: Ledger,
        snapshot: Snapshot,
        reports: Mapping[str, Report],
        now: datetime,
    ) -> Facts:
        """What became of the launches that are out, and whether anything forbids new ones."""
        target = connections.target
        facts = known_facts(connections, snapshot, reports, self._hold(snapshot), now)
        facts = replace(facts, known_for=self._claims.known_for(ledger, self._clock.boottime()))
        facts = replace(facts, hold=facts.hold or await self._check(target))
        try:
            seen = await target.observe([item.id for item in ledger.outstanding])
        except TargetError as error:
            return replace(facts, hold=self.target_failed(error.reason, str(error)))
        busy = any(told.fact is Fact.RUNNING for told in seen.observations.values())
        self.workers.note(seen.backlog, ledger, now, busy=busy)
        if seen.hinted:
            self.look_soon()
        return replace(
            facts,
            observations=seen.observations,
            strays=seen.strays,
            hold=facts.hold or seen.hold,
            traits=target.traits,
        )

    def _hold(self, snapshot: Snapshot) -> Hold | None:
        if snapshot.deleting:
            return _DELETING
        trouble = self.target.contact.trouble
        if trouble is None or not self.target.rest(self._clock.boottime()):
            return None
        return Hold(trouble.reason, trouble.message)

    async def _check(self, target: Target) -> Hold | None:
        """Ask before anything is claimed: an outage, or a bad template, is no reason for claims."""
        if self._target_checked and self.target.contact.trouble is None:
            return None
        try:
            await target.check()
        except TargetError as error:
            return self.target_failed(error.reason, str(error))
        self._target_checked = True
        if self.target.contact.trouble is None:
            self.target.answered()
        return None

    def target_failed(self, reason: str, message: str) -> Hold:
        """Leave the target alone for a while; gives the reason to launch nothing there."""
        self._connector.reread(self._ref)
        rest = self.target.failed(reason, message, self._clock.boottime())
        log.warning("%s: %s: %s; nothing is sent for %.0f s", self._ref, reason, message, rest)
        return Hold(reason, message)

    async def query(
        self,
        connections: Connections,
        spec: ScannerJobSpec,
        ledger: Ledger,
        facts: Facts,
        now: datetime,
    ) -> Facts:
        """Which rows match, if a look at them is due and could change anything."""
        self.looked, asked, self._asked = False, self._asked, False
        if facts.observations is None:
            return facts
        facts = await self._supersede(connections, spec, ledger, facts, now)
        if not asked and not worth_a_look(spec, ledger, facts, now):
            self._plan_next_look(spec)
            return facts
        if not self._look_is_due(spec, ledger, facts, now):
            return facts
        self.looked = True
        try:
            rows = await self._look(connections, spec, ledger, facts, now)
        except SourceError as error:
            self._database_failed(error)
            return facts
        self.database.answered()
        self._next_look = self._clock.boottime()
        self._plan_next_look(spec)
        facts = replace(facts, rows=rows)
        return await self._supersede(connections, spec, ledger, facts, now)

    def _look_is_due(
        self, spec: ScannerJobSpec, ledger: Ledger, facts: Facts, now: datetime
    ) -> bool:
        boottime = self._clock.boottime()
        if self.database.rest(boottime):
            return False
        refill = self.more_rows and free_slots(spec, len(ledger.outstanding)) > 0
        return boottime >= self._next_look or refill or urgent(ledger, facts, now)

    def _plan_next_look(self, spec: ScannerJobSpec) -> None:
        """One interval after the last look, or after the last time that none was worth it.

        A look that failed, or could not be made, stays due.
        """
        boottime = self._clock.boottime()
        if boottime >= self._next_look:
            self._next_look = boottime + spec.interval.total_seconds()

    async def _look(
        self,
        connections: Connections,
        spec: ScannerJobSpec,
        ledger: Ledger,
        facts: Facts,
        now: datetime,
    ) -> Rows:
        source = connections.source
        rows = await source.scan(rows_to_read(spec, ledger))
        unclear = keys_to_look_up(ledger, facts, rows, now)
        return await source.fetch(rows, unclear) if unclear else rows

    def _database_failed(self, error: SourceError) -> None:
        if error.reason in _REFUSED_SECRETS:
            self._connector.reread(self._ref)
        rest = self.database.failed(error.reason, str(error), self._clock.boottime())
        log.warning("%s: %s: %s; next try in %.0f s", self._ref, error.reason, error, rest)

    async def _supersede(
        self,
        connections: Connections,
        spec: ScannerJobSpec,
        ledger: Ledger,
        facts: Facts,
        now: datetime,
    ) -> Facts:
        """Make sure that nothing comes any more of what is about to be settled.

        A crash after this leaves records that tell the next look what was done.
        """
        ids = to_supersede(spec, ledger, facts, now)
        if not ids:
            return facts
        try:
            superseded = await connections.target.supersede(ids)
        except TargetError as error:
            return replace(facts, hold=self.target_failed(error.reason, str(error)))
        return replace(facts, observations={**(facts.observations or {}), **superseded})

    def note_decision(self, facts: Facts, decision: Decision) -> None:
        """Remember that the target answers, and what a look found: true until the next one."""
        if not facts.hold and not decision.sends:
            # Asked after its failure, it answered, and there is no launch to prove it by.
            self.target.mended()
        if facts.rows is None:
            return
        rows = facts.rows
        self.found = conditions.Look(rows.problems, rows.blocked, decision.brakes)
        if not decision.holds:
            self.more_rows = decision.more_rows


class KnownClaims:
    """Since when this process has known each claim, by a clock that nobody sets."""

    def __init__(self) -> None:
        self._since: dict[tuple[str, int], float] = {}

    def known_for(self, ledger: Ledger, boottime: float) -> Mapping[str, timedelta]:
        """How long the last claim of each launch that is out has been known."""
        claims = [(item.id, item.sends) for item in ledger.outstanding]
        self._since = {claim: self._since.get(claim, boottime) for claim in claims}
        return {claim[0]: timedelta(seconds=boottime - at) for claim, at in self._since.items()}


def known_facts(
    connections: Connections,
    snapshot: Snapshot,
    reports: Mapping[str, Report],
    hold: Hold | None,
    now: datetime,
) -> Facts:
    """What is known before anything outside was asked."""
    return Facts(
        traits=connections.target.traits,
        query_hash=connections.source.query_hash,
        endpoints=connections.target.endpoints,
        read_at=now,
        observations=None,
        rows=None,
        reports=reports,
        hold=hold,
    )
