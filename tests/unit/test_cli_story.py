"""What people are told of ScannerJobs, of rows, and of what would be launched."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import yaml

from scannerjob.cli import story as stories
from scannerjob.cli import summary
from scannerjob.cli.keys import find_item
from scannerjob.cli.places import Where
from scannerjob.cli.preview import Preview, as_data, as_table, preview
from scannerjob.cli.printing import Output, brief, columns, emit
from scannerjob.cli.story import Story, next_of, next_of_unknown
from scannerjob.model.ledger import Item, Ledger, Phase, ledger_to_status
from scannerjob.model.plan import INDEXED, PlanEstimate, PlanFinding
from scannerjob.model.row import Presence, Row, Rows, canonical_key
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import Ref, Snapshot
from tests.unit.cases import NOW, ago, item, later, ledger, rows, spec

REF = Ref("docs", "pdf-pages")


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    since = "2026-01-01T00:00:00Z"
    told = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**told, "lastTransitionTime": since}


def snapshot(known: Ledger | None = None, *conditions: dict[str, str], **fields: Any) -> Snapshot:
    status = {**ledger_to_status(known or ledger()), "conditions": list(conditions)}
    return Snapshot(REF, "uid", 1, {"concurrency": 2, **fields}, status, "1")


class Source:
    """Rows that were read."""

    query_hash = "q"
    warnings = ("rows are capped anyway",)
    plan = PlanFinding("Sort", "each look sorts all rows of pdf", "add an index on uploaded_at")

    def __init__(self, found: Rows) -> None:
        self._found = found
        self.asked = 0

    async def estimate(self) -> PlanEstimate:
        return PlanEstimate(1431.26, 23_000)

    async def scan(self, limit: int) -> Rows:
        self.asked = limit
        return self._found

    async def fetch(self, rows: Rows, keys: Collection[str]) -> Rows:
        raise AssertionError("nothing is looked up by key")


def previewed(found: Rows, known: Ledger | None = None, limit: int = 20, **fields: Any) -> Preview:
    a_spec = spec(**{"concurrency": 2, **fields})
    return asyncio.run(preview(Source(found), a_spec, snapshot(known), limit, NOW))


def why(seen: Preview) -> dict[str, tuple[bool, str]]:
    return {verdict.row.key: (verdict.launch, verdict.why) for verdict in seen.verdicts}


NEW = "it is new, and a slot is free"


class TestAPreview:
    def test_of_a_new_scannerjob_launches_up_to_the_cap(self) -> None:
        seen = previewed(rows("a", "b", "c"))

        full = "no slot is free: 2 of 2 are taken"
        assert why(seen) == {"a": (True, NEW), "b": (True, NEW), "c": (False, full)}
        assert (seen.launched, seen.complete) == (2, True)

    def test_tells_of_each_phase_why_its_row_is_not_launched(self) -> None:
        known = ledger(
            item("out", since=ago(90)),
            item("parked", Phase.PARKED, attempt=3, reason="exit code 1"),
            item("waits", Phase.WAITING, attempt=2, until=later(600), reason="OOMKilled"),
            item("cools", Phase.COOLING, until=later(600)),
        )

        seen = previewed(rows("out", "parked", "waits", "cools", "new"), known)

        assert why(seen) == {
            "out": (False, "its launch is out since 90s"),
            "parked": (False, "out of attempts: exit code 1"),
            "waits": (False, "waits for attempt 2 for 10m: OOMKilled"),
            "cools": (False, "finished; not looked at again for 10m"),
            "new": (True, NEW),
        }

    def test_launches_what_is_due_again(self) -> None:
        due = item("a", Phase.WAITING, attempt=2, until=ago(1))

        assert why(previewed(rows("a"), ledger(due))) == {
            "a": (True, "attempt 2 is due, and a slot is free")
        }

    def test_of_a_suspended_one_launches_nothing(self) -> None:
        seen = previewed(rows("a"), suspend=True)

        assert why(seen) == {"a": (False, "Suspended")}
        assert [hold.reason for hold in seen.holds] == ["Suspended"]

    def test_does_not_take_what_is_out_for_finished(self) -> None:
        """Nobody was asked about it, and its row has left."""
        seen = previewed(rows("a", "b"), ledger(item("gone"), item("also gone")))

        assert seen.launched == 0

    def test_shows_as_many_as_are_asked_for(self) -> None:
        seen = previewed(rows("a", "b", "c"), limit=2)

        assert list(why(seen)) == ["a", "b"]
        assert not seen.complete

    def test_counts_what_would_be_launched_beyond_what_is_shown(self) -> None:
        seen = previewed(rows("a", "b", "c"), limit=1, concurrency=3)

        assert as_data(seen)["launch"] == 3
        assert "3 rows would be launched now; 1 rows are shown (more rows may match)" in as_table(
            seen
        )

    def test_tells_what_else_is_worth_knowing(self) -> None:
        held = replace(rows("a"), problems=("row 3: its key is NULL",))

        text = "\n".join(as_table(previewed(held)))

        assert "held back: row 3: its key is NULL" in text
        assert "warning: rows are capped anyway" in text

    def test_tells_what_the_query_costs_and_which_index_would_help(self) -> None:
        seen = previewed(rows("a"))

        assert list(as_table(seen))[-3:] == [
            "plan: Sort: each look sorts all rows of pdf",
            "index: add an index on uploaded_at",
            "the database expects: cost 1,431.3 in its own units, 23,000 rows match",
        ]
        assert as_data(seen)["plan"] == {
            "finding": "Sort",
            "message": "each look sorts all rows of pdf",
            "index": "add an index on uploaded_at",
            "cost": 1431.26,
            "estimatedRows": 23_000,
        }

    def test_of_a_plan_it_tells_no_more_than_the_database(self) -> None:
        silent = replace(previewed(rows("a")), plan=INDEXED, estimate=PlanEstimate())

        assert not any("expects" in line or "index:" in line for line in as_table(silent))
        assert as_data(silent)["plan"].keys() == {"finding", "message"}
        assert as_data(replace(silent, plan=None))["plan"] == {}

    def test_shows_no_value_that_moves_a_cursor(self) -> None:
        row = Row("a", {"title": "\x1b[2Jx" + "y" * 100})
        found = Rows("q", (row,), complete=True)

        line = next(line for line in as_table(previewed(found)) if line.startswith("a "))

        assert "\x1b" not in line
        assert line.endswith("...")


class TestWhatIsNext:
    @pytest.mark.parametrize(
        ("known", "told"),
        [
            (item("a", Phase.CLAIMED), "being sent"),
            (item("a", until=later(60)), "given up in 60s"),
            (item("a", Phase.WAITING, attempt=2, until=later(600)), "attempt 2 in 10m"),
            (item("a", Phase.WAITING, attempt=2, until=ago(1)), "as soon as a slot is free"),
            (item("a", Phase.COOLING, until=later(600)), "forgotten in 10m"),
            (item("[7]", Phase.PARKED), "scannerjob retry pdf-pages '[7]'"),
        ],
    )
    def test_of_a_row_that_is_remembered(self, known: Item, told: str) -> None:
        assert told in next_of(known, snapshot(), "", NOW)

    @pytest.mark.parametrize(
        "value",
        ["a b\nc", 'q"x', "c:\\d", "it's", "$HOME `x`", "\x9b2J\x7f\u202e", "\U000e0001", "日本"],
    )
    def test_its_command_can_be_pasted(self, value: str) -> None:
        parked = item(canonical_key([value]), Phase.PARKED)

        told = next_of(parked, snapshot(), "-n docs", NOW)

        assert told.isprintable()
        command = told.partition("until `")[2].rpartition("`, or")[0]
        *named, key, option, namespace = shlex.split(command)
        assert named == ["scannerjob", "retry", "pdf-pages"]
        assert find_item(key, ledger(parked)) == parked
        assert (option, namespace) == ("-n", "docs")

    def test_its_command_is_for_the_place_that_was_asked(self) -> None:
        parked, asked = item("[7]", Phase.PARKED), Where("docs", context="a b", kubeconfig="k")

        told = next_of(parked, snapshot(), asked.options, NOW)

        assert "pdf-pages '[7]' -n docs --context 'a b' --kubeconfig k`" in told

    def test_its_command_shows_no_password(self) -> None:
        assert Where(state="sqlite:///state.db").options == "--state sqlite:///state.db"
        assert Where(state="postgresql://u:secret@h/d").options == ""

    def test_of_one_that_does_not_get_on_is_why(self) -> None:
        stalled = condition("Stalled", "True", "JobsStuck", "no node has room")

        assert "no node has room" in next_of(item("a"), snapshot(ledger(), stalled), "", NOW)

    @pytest.mark.parametrize("phase", [Phase.CLAIMED, Phase.LAUNCHED])
    @pytest.mark.parametrize(
        ("kind", "status", "reason"),
        [
            ("TargetReachable", "False", "BrokerUnreachable"),
            ("WorkersMissing", "True", "NoConsumer"),
            ("Stalled", "True", "JobsStuck"),
        ],
    )
    def test_of_one_that_is_out_is_what_is_in_its_way(
        self, phase: Phase, kind: str, status: str, reason: str
    ) -> None:
        known = item("a", phase, until=later(60) if phase is Phase.LAUNCHED else None)
        healthy = condition(kind, "True" if status == "False" else "False", reason, "redis:6379")
        amiss = {**healthy, "status": status}

        assert f"{reason}: redis:6379" in next_of(known, snapshot(ledger(), amiss), "", NOW)
        assert reason not in next_of(known, snapshot(ledger(), healthy), "", NOW)

    def test_of_one_whose_slot_is_held_is_still_when_it_is_given_up(self) -> None:
        missing = condition("WorkersMissing", "True", "NoConsumer", "no worker seen on celery")
        told = next_of(item("a", until=later(60)), snapshot(ledger(), missing), "", NOW)

        assert told == (
            "its slot is held: NoConsumer: no worker seen on celery; it is given up in 60s"
        )

    @pytest.mark.parametrize(
        ("presence", "known", "told"),
        [
            (Presence.ABSENT, ledger(), "does not match"),
            (Presence.PRESENT, ledger(), "launched at the next look"),
            (Presence.PRESENT, ledger(item("b"), item("c")), "when a slot is free: 2 of 2"),
            (Presence.UNKNOWN, ledger(), "could not be looked up"),
            (None, ledger(), "could not be looked up"),
        ],
    )
    def test_of_one_that_is_not(self, presence: Presence | None, known: Ledger, told: str) -> None:
        a_spec: ScannerJobSpec = spec(concurrency=2)

        assert told in next_of_unknown(presence, snapshot(known), a_spec, known)

    def test_names_what_keeps_all_from_being_launched(self) -> None:
        away = condition("Ready", "False", "DatabaseUnreachable", "db:5432: refused")
        said = next_of_unknown(Presence.PRESENT, snapshot(ledger(), away), spec(), ledger())

        assert "DatabaseUnreachable: db:5432: refused" in said


NASTY = "\x1b\x7f\x9b\u2028\u202e"


class TestAStory:
    def test_shows_nothing_that_a_terminal_obeys(self) -> None:
        known = item(canonical_key([NASTY]), Phase.PARKED, reason=NASTY)
        told = Story(snapshot(), spec(), known.key, known, "nothing", (NASTY,))

        assert all(line.isprintable() for line in stories.as_table(told, NOW))


class TestAStatus:
    def test_of_one_that_nobody_has_seen_says_so(self) -> None:
        new = Snapshot(REF, "uid", 1, {"concurrency": 2}, {}, "1")

        assert summary.summary(new)["reason"] == "NotSeenYet"
        assert "no operator has looked at it so far" in "\n".join(summary.report(new, NOW))

    def test_puts_first_what_is_wrong(self) -> None:
        good = condition("DatabaseReachable", "True")
        bad = condition("WorkersMissing", "True", "NoConsumer", "no worker seen on celery")
        ready = condition("Ready", "True", "Scanning")

        lines = list(summary.report(snapshot(ledger(), good, ready, bad), NOW))

        assert lines[2].split()[:3] == ["WorkersMissing", "True", "NoConsumer"]

    def test_names_only_so_many_rows(self) -> None:
        many = ledger(*(item(f"[{number}]") for number in range(100)))

        lines = list(summary.report(snapshot(many), NOW))

        assert lines[-1].strip() == "and 60 more: --output json shows all"
        assert len(summary.details(snapshot(many))["items"]) == 100

    def test_shows_nothing_that_moves_a_cursor(self) -> None:
        bad = item("\x1b[2J", reason="\x1b]0;x\x07")

        assert "\x1b" not in "\n".join(summary.report(snapshot(ledger(bad)), NOW))


@pytest.mark.parametrize(
    ("output", "read"), [(Output.JSON, json.loads), (Output.YAML, yaml.safe_load)]
)
def test_what_is_for_programs_has_no_character_that_a_terminal_obeys(
    output: Output, read: Callable[[str], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    data = {"key": NASTY, "town": "日本"}

    emit(output, data, list)

    shown = capsys.readouterr().out
    assert shown.isascii()
    assert shown.replace("\n", "").isprintable()
    assert read(shown) == data


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172800, "2d"),
        (-5, "0s"),
    ],
)
def test_ages_are_told_in_the_largest_unit_of_which_there_are_two(seconds: int, text: str) -> None:
    assert brief(timedelta(seconds=seconds)) == text


def test_columns_are_as_wide_as_they_look() -> None:
    lines = list(columns(("A", "B"), [["日本", "x"], ["a", "y"]]))

    assert lines == ["A      B", "日本   x", "a      y"]


def test_what_is_wrong_stands_out_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["a"], ["b"]]
    plain = list(columns(("A",), rows, [False, True]))
    monkeypatch.setattr("scannerjob.cli.printing.is_terminal", lambda: True)
    head, good, bad = columns(("A",), rows, [False, True])

    assert plain == ["A", "a", "b"]
    assert good == "a"
    assert head.startswith("\x1b[1m")
    assert bad.startswith("\x1b[31m")
