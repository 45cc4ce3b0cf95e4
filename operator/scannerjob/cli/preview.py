"""What would be launched now, and for each row why or why not. Launches nothing, writes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from scannerjob.cli.printing import brief, columns, styled
from scannerjob.model.decide import decide
from scannerjob.model.facts import Decision, Facts, Hold, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase, ledger_from_status
from scannerjob.model.plan import PlanEstimate, PlanFinding
from scannerjob.model.reading import rows_to_read
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import Ref, RowSource, Snapshot

# Nothing is asked about launches: so none is taken to have ended.
_SILENT = TargetTraits(tells_outcomes=True, resend_within=None)
_SHOWN_VALUE = 40


class PlannedSource(RowSource, Protocol):
    """Rows of which the database tells what it takes to give them all."""

    async def estimate(self) -> PlanEstimate:
        """What it expects; nothing where it does not say."""
        ...


@dataclass(frozen=True)
class RowVerdict:
    """A row of the query, and what becomes of it in a look made now."""

    row: Row
    launch: bool
    why: str


@dataclass(frozen=True)
class Preview:
    """What one look told: the rows in the query's order, the first `limit` of them.

    `launched` counts all rows that would be launched now, be they among these or not.
    """

    ref: Ref
    launched: int
    verdicts: tuple[RowVerdict, ...]
    complete: bool
    holds: tuple[Hold, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    plan: PlanFinding | None
    estimate: PlanEstimate


async def preview(
    source: PlannedSource, spec: ScannerJobSpec, snapshot: Snapshot, limit: int, now: datetime
) -> Preview:
    """Look at the rows, read-only, and decide about them as the operator would.

    Raises SourceError where the database cannot be read, LedgerError for a status that cannot.
    """
    ledger = ledger_from_status(snapshot.status) or Ledger()
    rows = await source.scan(max(limit, rows_to_read(spec, ledger)))
    decision = _decision(source, spec, ledger, rows, now)
    verdicts = [_verdict(row, spec, ledger, decision, now) for row in rows.rows]
    return Preview(
        snapshot.ref,
        sum(verdict.launch for verdict in verdicts),
        tuple(verdicts[:limit]),
        rows.complete and len(verdicts) <= limit,
        (*decision.holds, *decision.brakes),
        rows.problems,
        tuple(source.warnings),
        source.plan,
        await source.estimate(),
    )


def _decision(
    source: RowSource, spec: ScannerJobSpec, ledger: Ledger, rows: Rows, now: datetime
) -> Decision:
    facts = Facts(
        traits=_SILENT,
        query_hash=source.query_hash,
        endpoints=ledger.endpoints,
        read_at=now,
        observations={},
        rows=rows,
    )
    return decide(spec, ledger, facts, now, lambda: "preview")


def _verdict(
    row: Row, spec: ScannerJobSpec, ledger: Ledger, decision: Decision, now: datetime
) -> RowVerdict:
    sends = {send.item.key: send.item for send in decision.sends}
    known = {item.key: item for item in ledger.items}
    if row.key in sends:
        attempt = sends[row.key].attempt
        what = f"attempt {attempt} is due" if attempt > 1 else "it is new"
        return RowVerdict(row, True, f"{what}, and a slot is free")
    if row.key in known:
        return RowVerdict(row, False, standing(known[row.key], now))
    return RowVerdict(row, False, why_not_new(spec, decision))


def standing(item: Item, now: datetime) -> str:
    """Why a row that is remembered is not launched."""
    reason = f": {item.reason}" if item.reason else ""
    rest = f" for {brief(item.until - now)}" if item.until and item.until > now else ""
    match item.phase:
        case Phase.CLAIMED | Phase.LAUNCHED:
            return f"its launch is out since {brief(now - item.since)}{reason}"
        case Phase.WAITING:
            return f"waits for attempt {item.attempt}{rest}{reason}"
        case Phase.PARKED:
            return f"out of attempts{reason}"
        case Phase.COOLING:
            return f"finished; not looked at again{rest}"


def why_not_new(spec: ScannerJobSpec, decision: Decision) -> str:
    """Why a row of which nothing is known is not launched."""
    for hold in (*decision.holds, *decision.brakes):
        return hold.reason
    taken = len(decision.ledger.outstanding)
    return f"no slot is free: {taken} of {spec.concurrency} are taken"


def as_data(preview: Preview) -> dict[str, Any]:
    """For programs."""
    return {
        "namespace": preview.ref.namespace,
        "name": preview.ref.name,
        "launch": preview.launched,
        "complete": preview.complete,
        "rows": [
            {
                "key": verdict.row.key,
                "launch": verdict.launch,
                "why": verdict.why,
                "values": dict(verdict.row.values),
            }
            for verdict in preview.verdicts
        ],
        "holds": [{"reason": hold.reason, "message": hold.message} for hold in preview.holds],
        "heldBack": list(preview.problems),
        "warnings": list(preview.warnings),
        "plan": dict(_plan(preview)),
    }


def _plan(preview: Preview) -> Iterator[tuple[str, Any]]:
    """What is known of the query's plan: what the database does not say is not there."""
    plan, estimate = preview.plan, preview.estimate
    if plan:
        yield "finding", plan.reason
        yield "message", plan.told
    if plan and plan.index:
        yield "index", plan.index
    if estimate.cost is not None:
        yield "cost", estimate.cost
    if estimate.rows is not None:
        yield "estimatedRows", estimate.rows


def as_table(preview: Preview) -> Iterator[str]:
    """For a person: the rows, then what is worth knowing."""
    yield from columns(("ROW", "LAUNCH", "WHY", "VALUES"), map(_cells, preview.verdicts))
    yield ""
    more = "" if preview.complete else " (more rows may match)"
    shown = f"{len(preview.verdicts)} rows are shown{more}"
    yield f"{preview.launched} rows would be launched now; {shown}"
    yield from _notes("held", [f"{hold.reason}: {hold.message}" for hold in preview.holds])
    yield from _notes("held back", preview.problems)
    yield from _notes("warning", preview.warnings)
    yield from _plan_notes(preview)


def as_tables(previews: Sequence[Preview]) -> Iterator[str]:
    """For a person: of several, each under its name."""
    for number, each in enumerate(previews):
        if number:
            yield ""
        yield styled(str(each.ref), bold=True)
        yield from as_table(each)


def _plan_notes(preview: Preview) -> Iterator[str]:
    plan, estimate = preview.plan, preview.estimate
    if plan:
        yield from _notes("plan", [f"{plan.reason}: {plan.told}"])
        yield from _notes("index", [plan.index] if plan.index else [])
    cost = "" if estimate.cost is None else f"cost {estimate.cost:,.1f} in its own units"
    rows = "" if estimate.rows is None else f"{estimate.rows:,} rows match"
    if expected := ", ".join(filter(None, (cost, rows))):
        yield from _notes("the database expects", [expected])


def _cells(verdict: RowVerdict) -> Sequence[object]:
    return (
        verdict.row.key,
        "yes" if verdict.launch else "no",
        verdict.why,
        _shown(verdict.row.values),
    )


def _shown(values: Mapping[str, Any]) -> str:
    def cut(text: str) -> str:
        return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 3]}..."

    return " ".join(f"{name}={cut(str(value))}" for name, value in values.items())


def _notes(name: str, texts: Sequence[str]) -> Iterator[str]:
    from scannerjob.model.printable import printable

    return (f"{styled(name, bold=True)}: {printable(text)}" for text in texts)
