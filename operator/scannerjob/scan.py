"""One cycle of one ScannerJob: read, observe, query, decide, claim, launch, report.

The data flows one way: row -> decision -> ledger -> launch -> status. The ledger's compare-and-swap
is the only lock: everything that is sent follows a write that was won in the same cycle and
recorded that very send.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import uuid4

from scannerjob.model import conditions
from scannerjob.model.book import longest_life, whole
from scannerjob.model.conditions import Trouble
from scannerjob.model.decide import decide
from scannerjob.model.facts import Decision, Fact, Facts, Hold, Observation, Send
from scannerjob.model.ledger import (
    Item,
    Ledger,
    LedgerError,
    ledger_from_status,
    ledger_to_status,
)
from scannerjob.model.limits import (
    LATEST_SEND,
    MIN_LOOK_DISTANCE,
    SEND_WITHIN,
    STATUS_BYTES_PER_SECOND,
)
from scannerjob.model.reading import next_time
from scannerjob.model.redate import redated
from scannerjob.model.requests import SCAN, asks_anew, heed, known
from scannerjob.model.spec import NO_TIME, ScannerJobSpec, SpecError, parse_spec
from scannerjob.narrate import tell_changes, tell_launched, tell_parked, tell_waiting
from scannerjob.observer import Observer, known_facts
from scannerjob.outbox import Outbox
from scannerjob.peers import Backoff
from scannerjob.ports import (
    Clock,
    ConfigurationError,
    ConflictError,
    Connections,
    Connector,
    LedgerStore,
    PortError,
    Recorder,
    Ref,
    Snapshot,
)
from scannerjob.status import cycle_status, differs, unusable_status

log = logging.getLogger(__name__)

# How long, in seconds, until a target is asked again: where something is awaited that no event
# tells of, and in case an event was lost.
_LOOK_AGAIN, _LOOK_FOR_ENDS = 10.0, 60.0
# Workers renew their leases every five seconds, and who may believe that one has lapsed must have
# seen all of it.
_WATCH_LEASES = 3.0
# A write that was lost to another one is read again after this long: at once, but no busy loop.
_AFTER_CONFLICT = 0.05
_STOPPING = Hold("Stopping", "this process is stopping")
# What says nothing of how the target is.
_ROWS_OWN = (Fact.ACCEPTED, Fact.REFUSED)


def _launch_id() -> str:
    return str(uuid4())


class Scanner:
    """Runs the cycle of one ScannerJob, and remembers between two cycles what is not in the ledger.

    What it remembers is worth nothing to safety: it may be lost at any time, by a crash, and costs
    at most that a send whose outcome was known is looked into again. `cycle` must not be called
    while it runs.
    """

    def __init__(
        self,
        ref: Ref,
        store: LedgerStore,
        connector: Connector,
        clock: Clock,
        new_id: Callable[[], str] = _launch_id,
        recorder: Recorder | None = None,
    ) -> None:
        self.ref = ref
        self._store = store
        self._connector = connector
        self._clock = clock
        self._new_id = new_id
        self._recorder = recorder
        self._outbox = Outbox()
        self._observer = Observer(ref, connector, clock)
        self._store_rest = Backoff()
        self._unusable_rest = Backoff()
        self._generation: tuple[str, int] | None = None

    @property
    def has_reports(self) -> bool:
        """Whether something is known of our sends that the ledger does not know yet."""
        return self._outbox.unbooked

    @property
    def looked(self) -> bool:
        """Whether the last cycle has asked the database."""
        return self._observer.looked

    async def cycle(self, *, stopping: bool = False) -> float | None:
        """Run one cycle; gives the seconds until the next is due, or None if the object is gone.

        Nothing outside is an error here: it becomes a condition, or a rest before the next try.
        With `stopping`, only what is known already is written down.
        """
        try:
            seconds = await self._cycle(stopping)
            self._store_rest.worked()
            return seconds
        except ConflictError:
            self._observer.look_soon()
            return _AFTER_CONFLICT
        except PortError as error:
            self._observer.look_soon()
            rest = self._store_rest.failed(self._clock.boottime())
            log.warning("%s: %s: %s; next try in %.0f s", self.ref, error.reason, error, rest)
            return rest

    async def _cycle(self, stopping: bool) -> float | None:
        # 1. read
        snapshot = await self._store.read(self.ref)
        if snapshot is None:
            self._connector.forget(self.ref)
            return None
        self._note_change(snapshot)
        now, heeded = self._clock.now(), None
        try:
            spec = parse_spec(snapshot.spec)
            ledger = known = self._ledger(snapshot, spec, now)
            if ledger.lost_at is not None:
                # What was seen before may lack what is out: look at all anew, as long as it rests.
                self._connector.forget(self.ref)
            if not stopping:
                ledger = self._heed(snapshot, spec, ledger, now)
                heeded = None if ledger is known else ledger
            connections = await self._connector.connect(snapshot, spec)
        except (SpecError, LedgerError, ConfigurationError) as error:
            return await self._say_unusable(snapshot, error, heeded, now)
        # 2. observe: strictly before the query, so that a task which committed and then reported
        # its end is no longer among the rows.
        reports = self._outbox.reports
        if stopping:
            facts = known_facts(connections, snapshot, reports, _STOPPING, now)
        else:
            facts = await self._observer.observe(connections, ledger, snapshot, reports, now)
        # 3. query
        facts = await self._observer.query(connections, spec, ledger, facts, now)
        # 4. decide. Reading may have taken long, or this process was frozen meanwhile: a claim's
        # time is that of the decision, and from here on whoever freezes sends nothing.
        deadline = self._clock.boottime() + SEND_WITHIN.total_seconds()
        decision = decide(spec, ledger, facts, self._clock.now(), self._new_id)
        self._observer.note_decision(facts, decision)
        # 5. claim. A crash before the write: nothing happened. After it, and before the launch: the
        # claims stand in the ledger with nobody to answer for them, and are sent again or held.
        said = self._conditions(decision, facts, connections, now)
        status = cycle_status(snapshot, decision.ledger, said, facts.rows is not None, now)
        written = await self._claim(snapshot, status, decision)
        settled = _settled(ledger, decision.ledger)
        tell_waiting(self.ref, ledger, decision.ledger)
        tell_parked(snapshot, ledger, decision.ledger, self._recorder)
        # 6. launch. A crash while it runs: as above; the same id again cannot become a second
        # execution where the target's traits say so, and elsewhere is held.
        outcomes = await self._launch(connections, decision.sends, deadline)
        tell_launched(self.ref, outcomes, decision.ledger, spec.concurrency)
        # 7. report: what became of the sends rides on the next cycle's write. A crash before it: as
        # above. What is left of launches whose end was booked by then is removed; a crash before
        # that leaves it to a later cycle.
        await self._clean_up(connections, decision.ledger, settled)
        return self._next(decision, facts, written)

    # 1. read

    def _note_change(self, snapshot: Snapshot) -> None:
        generation = (snapshot.uid, snapshot.generation)
        if generation != self._generation:
            self._generation = generation
            self._unusable_rest.worked()
            self._observer.spec_changed(snapshot)

    def _ledger(self, snapshot: Snapshot, spec: ScannerJobSpec, now: datetime) -> Ledger:
        """The ledger, or a new one. A mark without a ledger is always a ledger that vanished."""
        ledger = ledger_from_status(snapshot.status)
        if ledger is not None:
            return redated(ledger, now)
        if not snapshot.marked:
            return Ledger()
        log.error("%s: its ledger has vanished; nothing is launched for now", self.ref)
        return _lost_ledger(spec, snapshot, now)

    def _heed(
        self, snapshot: Snapshot, spec: ScannerJobSpec, ledger: Ledger, now: datetime
    ) -> Ledger:
        """The ledger after what a person asked for; that it was heeded is written with the rest."""
        if asks_anew(SCAN, snapshot.requests, ledger):
            self._observer.asked_to_look()
        return heed(ledger, snapshot.requests, suspended=spec.suspend, now=now)

    async def _say_unusable(
        self,
        snapshot: Snapshot,
        error: SpecError | LedgerError | ConfigurationError,
        heeded: Ledger | None,
        now: datetime,
    ) -> float:
        """Say why nothing can be done, but for what a person asked for: that is `heeded`."""
        trouble = Trouble(_reason_of(error), str(error))
        said = conditions.unusable(trouble)
        status = unusable_status(snapshot, said, heeded, now)
        if differs(status, snapshot.status):
            log.warning("%s: %s: %s", self.ref, trouble.reason, trouble.message)
            written = await self._store.write(snapshot, status)
            tell_changes(snapshot, written.status, self._recorder, told=True)
        return self._unusable_rest.failed(self._clock.boottime())

    # 5. claim

    def _conditions(
        self, decision: Decision, facts: Facts, connections: Connections, now: datetime
    ) -> list[conditions.Condition]:
        if facts.hold is _STOPPING:
            return []
        return conditions.running(
            decision.ledger,
            self._observer.found,
            decision.holds,
            connections.source.warnings,
            connections.source.plan,
            self._observer.database.contact,
            self._observer.target.contact,
            self._observer.workers.seen,
            _stuck(facts) if facts.traits.sees_all else None,
            _alive(facts),
            now,
        )

    async def _claim(
        self, snapshot: Snapshot, status: Mapping[str, Any], decision: Decision
    ) -> Mapping[str, Any]:
        """Write the ledger if anything in it is new. Every send follows a write won here."""
        if not decision.sends and not differs(status, snapshot.status):
            self._outbox.booked()
            return snapshot.status
        if decision.sends and not snapshot.marked:
            snapshot = await self._begin(snapshot)
        with self._outbox.claiming(decision.sends):
            written = await self._store.write(snapshot, status)
        self._outbox.booked(decision.ledger)
        told = self._observer.database.contact.trouble or self._observer.target.contact.trouble
        tell_changes(snapshot, written.status, self._recorder, told=bool(told))
        return written.status

    async def _begin(self, snapshot: Snapshot) -> Snapshot:
        """Before the first claim: first an empty ledger, then the mark that says there was one.

        A crash between the two leaves a ledger without a mark, which is marked next time.
        """
        if ledger_from_status(snapshot.status) is None:
            status = {**snapshot.status, **ledger_to_status(Ledger())}
            snapshot = await self._store.write(snapshot, status)
        return await self._store.mark(snapshot)

    # 6. launch

    async def _launch(
        self, connections: Connections, sends: Sequence[Send], deadline: float
    ) -> Sequence[Observation]:
        if not sends:
            return ()
        self._outbox.hand_over(sends)
        outcomes = self._outbox.answer(sends, await connections.target.launch(sends, deadline))
        failures = [seen for seen in outcomes if seen.fact not in _ROWS_OWN]
        if failures:
            self._observer.more_rows = True
            reason = failures[0].reason or "no answer"
            message = f"{len(failures)} of {len(outcomes)} launches: {reason}"
            self._observer.target_failed("LaunchFailed", message)
        else:
            self._observer.target.answered()
        return outcomes

    # 7. report

    async def _clean_up(
        self, connections: Connections, ledger: Ledger, settled: Sequence[Item]
    ) -> None:
        if ledger.lost_at is None:
            await connections.target.clean_up([item.id for item in ledger.outstanding], settled)

    def _next(self, decision: Decision, facts: Facts, status: Mapping[str, Any]) -> float:
        """Seconds until the next cycle: at once where there is something to report."""
        spacing = len(json.dumps(status)) / STATUS_BYTES_PER_SECOND
        if self._outbox.unbooked:
            return spacing
        target_rest = self._observer.target.rest(self._clock.boottime())
        if facts.observations is None:
            return max(target_rest, spacing)
        waits = [self._observer.until_next_look()]
        waits += [target_rest] if target_rest else []
        if _stuck(facts) or facts.hold:
            # What ends there is shown by no watch.
            waits.append(_LOOK_AGAIN)
        elif decision.ledger.outstanding:
            waits.append(_WATCH_LEASES if facts.traits.guarded else _LOOK_FOR_ENDS)
        if coming := next_time(decision.ledger, facts.traits, facts.read_at):
            elapsed = self._clock.now() - facts.read_at
            waits.append((coming - elapsed).total_seconds())
        return max(min(waits), spacing, MIN_LOOK_DISTANCE.total_seconds())


def _lost_ledger(spec: ScannerJobSpec, snapshot: Snapshot, now: datetime) -> Ledger:
    """In place of a ledger that vanished. What was asked for before was asked for another loss.

    Some targets add one more deadline to a launch's life; what is out may have been sent to one.
    Jobs are found by their labels, and get their slots back, once no create can be on its way.
    """
    life = LATEST_SEND if spec.job else longest_life(spec, spec.deadline or NO_TIME)
    return Ledger(
        lost_at=now,
        lost_until=whole(now + life) if life else None,
        handled_requests=known(snapshot.requests),
    )


def _stuck(facts: Facts) -> list[str]:
    """What keeps launches from getting on, as far as the target told."""
    seen = (facts.observations or {}).values()
    waiting = [each.reason for each in seen if each.fact is Fact.ACCEPTED and each.reason]
    return sorted(waiting)


def _alive(facts: Facts) -> frozenset[str]:
    """The launches on which a worker holds a lease."""
    seen = facts.observations or {}
    return frozenset(each for each, told in seen.items() if told.fact is Fact.RUNNING)


def _settled(before: Ledger, after: Ledger) -> list[Item]:
    """The launches whose slots were freed."""
    still = {item.id for item in after.outstanding}
    return [item for item in before.outstanding if item.id not in still]


def _reason_of(error: Exception) -> str:
    match error:
        case SpecError():
            return "InvalidSpec"
        case LedgerError():
            return "LedgerUnreadable"
        case PortError():
            return error.reason
        case _:
            return type(error).__name__
