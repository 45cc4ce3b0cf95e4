"""Which changes are told, to whom, and that they are few."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from scannerjob.model.ledger import Ledger, Phase
from scannerjob.model.notice import Notice
from scannerjob.narrate import tell_changes, tell_parked, tell_waiting
from scannerjob.ports import Ref, Snapshot
from tests.support.notices import Told
from tests.unit.cases import item, later, ledger

REF = Ref("docs", "pdf-pages")
SCANNING = ("True", "Scanning", "the query runs")
DOWN = ("False", "DatabaseUnreachable", "db: refused")
STALLED = ("True", "JobsStuck", "Job a: no node")
PROGRESSING = ("False", "Progressing", "")
NOT_INDEXED = ("True", "SequentialScan", "table pdf")
INDEXED = ("False", "Indexed", "few rows are read")
UNKNOWN = ("Unknown", "PlanUnknown", "no plan")


def status(**conditions: tuple[str, str, str]) -> dict[str, Any]:
    fields = ("status", "reason", "message")
    return {
        "conditions": [
            {"type": kind, **dict(zip(fields, said, strict=True))}
            for kind, said in conditions.items()
        ]
    }


def snapshot(before: Mapping[str, Any]) -> Snapshot:
    return Snapshot(REF, "uid-1", 1, {}, before, "1")


def changes(
    before: Mapping[str, Any], after: Mapping[str, Any], *, told: bool = False
) -> list[Notice]:
    recorder = Told(REF, "uid-1")
    tell_changes(snapshot(before), after, recorder, told=told)
    return recorder.notices


def parked(before: Ledger, after: Ledger) -> list[Notice]:
    recorder = Told(REF, "uid-1")
    tell_parked(snapshot({}), before, after, recorder)
    return recorder.notices


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, SCANNING, "Normal"),
        (SCANNING, DOWN, "Warning"),
        (DOWN, SCANNING, "Normal"),
        (SCANNING, ("True", "Suspended", "spec.suspend is true"), "Normal"),
    ],
)
def test_a_new_reason_of_ready_is_told(before: Any, after: Any, expected: Any) -> None:
    was = status(Ready=before) if before else {}
    assert changes(was, status(Ready=after)) == [Notice(expected, after[1], after[2])]


def test_the_same_reason_in_other_words_is_nothing_new() -> None:
    later_on = ("False", "DatabaseUnreachable", "db: no answer")
    assert changes(status(Ready=DOWN), status(Ready=later_on)) == []
    assert changes(status(Ready=DOWN), status()) == []


@pytest.mark.parametrize(
    ("kind", "before", "after", "expected"),
    [
        ("Stalled", PROGRESSING, STALLED, [Notice("Warning", "JobsStuck", "Job a: no node")]),
        ("Stalled", None, STALLED, [Notice("Warning", "JobsStuck", "Job a: no node")]),
        ("Stalled", STALLED, PROGRESSING, [Notice("Normal", "Progressing", "Stalled is False")]),
        ("Stalled", STALLED, ("True", "NoEvidence", "silence"), []),
        ("Stalled", None, PROGRESSING, []),
        ("ScanNotIndexed", INDEXED, NOT_INDEXED, [Notice("Warning", *NOT_INDEXED[1:])]),
        ("ScanNotIndexed", NOT_INDEXED, INDEXED, [Notice("Normal", *INDEXED[1:])]),
        ("ScanNotIndexed", INDEXED, UNKNOWN, []),
        ("ScanNotIndexed", None, UNKNOWN, []),
    ],
)
def test_what_is_wrong_is_told_when_it_begins_and_when_it_ends(
    kind: str, before: Any, after: Any, expected: list[Notice]
) -> None:
    was = status(**{kind: before}) if before else status()
    assert changes(was, status(**{kind: after})) == expected


def test_trouble_that_was_logged_as_it_happened_is_recorded_and_not_logged_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    assert changes(status(Ready=SCANNING), status(Ready=DOWN), told=True)
    assert caplog.messages == []
    assert changes(status(Ready=SCANNING), status(Ready=DOWN), told=False)
    assert caplog.messages == ["docs/pdf-pages: DatabaseUnreachable: db: refused"]


def test_without_a_recorder_the_log_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    tell_changes(snapshot(status(Ready=DOWN)), status(Ready=SCANNING), None, told=False)
    assert caplog.messages == ["docs/pdf-pages: Scanning: the query runs"]


def test_rows_out_of_attempts_are_named_in_one_notice_with_the_last_reason() -> None:
    rows = [item(f"[{n}]", Phase.PARKED, reason=f"exit code {n}") for n in (17, 18)]
    before = ledger(*(replace(each, phase=Phase.LAUNCHED) for each in rows))
    assert parked(before, ledger(*rows)) == [
        Notice(
            "Warning",
            "RowsParked",
            "2 rows are out of attempts: [17], [18]; last reason: exit code 18",
        )
    ]
    assert parked(ledger(*rows), ledger(*rows)) == []
    assert parked(before, before) == []


def test_a_row_that_never_started_is_named_though_it_is_launched_again_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = ledger(item("[17]"), item("[18]"), item("[19]", Phase.WAITING, reason="Lost"))
    again = replace(item("[17]", Phase.CLAIMED, reason="NeverStarted"), id="id-new")
    due = replace(item("[19]", Phase.CLAIMED, reason="Lost"), id="id-newer")
    tell_waiting(REF, before, ledger(again, item("[18]"), due))
    assert caplog.messages == ["docs/pdf-pages: row [17]: NeverStarted; to be tried again at once"]


def test_a_thousand_rows_that_fail_at_once_are_one_notice_and_a_few_lines(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = [item(f"[{'x' * 200}{n}]", Phase.PARKED, reason="OOMKilled") for n in range(1000)]
    waiting = [item(f"[{n}]", Phase.WAITING, reason="x", until=later(9)) for n in range(1000)]
    [notice] = parked(Ledger(), ledger(*rows, *waiting))
    assert notice.message.startswith("1000 rows are out of attempts: ")
    assert notice.message.endswith(", and 990 more; last reason: OOMKilled")
    assert len(notice.message) < 1024
    caplog.clear()
    tell_waiting(REF, Ledger(), ledger(*rows, *waiting))
    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "docs/pdf-pages: the same of 990 more rows"
