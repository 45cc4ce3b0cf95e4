"""Short ways to write down a spec, a ledger and what a cycle read."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from scannerjob.model.decide import decide
from scannerjob.model.facts import Decision, Fact, Facts, Observation, Report, TargetTraits
from scannerjob.model.ledger import Item, Ledger, Phase
from scannerjob.model.row import Row, Rows
from scannerjob.model.spec import ScannerJobSpec, parse_spec

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
ENDPOINTS = {"broker": "b"}
WITH_BACKEND = {"broker": "b", "resultBackend": "r"}

SILENT = TargetTraits(tells_outcomes=False, resend_within=None)
TELLING = TargetTraits(tells_outcomes=True, resend_within=None)
IDEMPOTENT = TargetTraits(tells_outcomes=False, resend_within=timedelta(hours=23))


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def document(**fields: Any) -> dict[str, Any]:
    secret = {"urlSecretRef": {"name": "app", "key": "url"}}
    return {
        "database": secret,
        "query": "SELECT id FROM pdf",
        "concurrency": 2,
        "celery": {"broker": secret, "task": "docs.make_pages"},
        **fields,
    }


def spec(**fields: Any) -> ScannerJobSpec:
    return parse_spec(document(**fields))


def bounded(**fields: Any) -> ScannerJobSpec:
    """A spec whose launches live for 120 s, and 12 s for clocks."""
    celery = {**document()["celery"], "expires": "60s"}
    return spec(celery=celery, deadline="60s", **fields)


def item(key: str, phase: Phase = Phase.LAUNCHED, **fields: Any) -> Item:
    known = {"attempt": 1, "sends": 1, "since": ago(60), **fields}
    return Item(key=key, id=f"id-{key}", phase=phase, **known)


def ledger(*items: Item, **fields: Any) -> Ledger:
    launched = sum(each.phase is Phase.LAUNCHED for each in items)
    known = {"query_hash": "q", "endpoints": ENDPOINTS, "launched": launched, **fields}
    return Ledger(items=items, **known)


def rows(*keys: str, complete: bool = True, **fields: Any) -> Rows:
    return Rows("q", tuple(Row(key, {"id": key}) for key in keys), complete=complete, **fields)


def seen(**facts: Fact) -> Mapping[str, Observation]:
    return {f"id-{key}": Observation(fact) for key, fact in facts.items()}


def report(key: str, fact: Fact, sends: int = 1) -> Mapping[str, Report]:
    return {f"id-{key}": Report(sends, Observation(fact, "a reason"))}


def facts(found: Rows | None = None, **fields: Any) -> Facts:
    known: dict[str, Any] = {
        "traits": SILENT,
        "query_hash": "q",
        "endpoints": ENDPOINTS,
        "read_at": NOW,
        "observations": {},
        **fields,
    }
    return Facts(rows=found, **known)


def decided(a_spec: ScannerJobSpec, a_ledger: Ledger, read: Facts) -> Decision:
    numbers = itertools.count(1)
    return decide(a_spec, a_ledger, read, NOW, lambda: f"new-{next(numbers)}")


def sent(decision: Decision) -> Sequence[tuple[str, str, int]]:
    return [(send.item.key, send.item.id, send.item.sends) for send in decision.sends]


def phases(decision: Decision) -> Mapping[str, Phase]:
    return {each.key: each.phase for each in decision.ledger.items}


def only(decision: Decision) -> Item:
    (one,) = decision.ledger.items
    return one
