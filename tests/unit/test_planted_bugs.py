"""Planted bugs must keep up with the code: each still has its place in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.bug import Bug, StaleError, bug
from tests.planted.bugs import BUGS
from tests.planted.origin import COPY, pytest_configure
from tests.planted.tiers import TIERS, Tier
from tests.planted.trial import REPOSITORY, try_out

_LAYOUT = Tier("layout", ("tests/unit/test_layout.py::test_workers_are_never_asked",), 100)
_ASKS = bug(
    "asks workers",
    "They know best.",
    "clock.py",
    ("time.clock_gettime(time.CLOCK_BOOTTIME)", "time.control.clock()"),
)


@pytest.mark.parametrize("planted", BUGS, ids=lambda planted: planted.name)
def test_each_bug_has_its_place_in_the_code_and_can_be_run(planted: Bug) -> None:
    file = REPOSITORY / "operator" / "scannerjob" / planted.file
    text = planted.planted(file.read_text())

    assert text != file.read_text()
    compile(text, file, "exec")


def test_each_bug_has_a_name_of_its_own() -> None:
    assert len({planted.name for planted in BUGS}) == len(BUGS) >= 20


def test_each_tier_names_tests_that_are_there() -> None:
    named = [each for tier in TIERS for each in tier.arguments if each.startswith("tests/")]

    assert named
    for argument in named:
        file, _, test = argument.partition("::")
        assert (REPOSITORY / file).exists(), argument
        assert not test or f"def {test}(" in (REPOSITORY / file).read_text(), argument


@pytest.mark.parametrize("old", ["no such text", "the "])
def test_a_bug_whose_place_is_gone_or_not_the_only_one_says_so(old: str) -> None:
    stale = bug("stale", "It was written long ago.", "clock.py", (old, "new"))

    with pytest.raises(StaleError, match=r"stale: clock\.py has [02] times"):
        stale.planted("the code, and the clock")


def test_a_bug_is_seen_by_tests_of_the_copy() -> None:
    outcome = try_out(_ASKS, [_LAYOUT], seed=1)

    assert outcome.catch
    assert outcome.catch.tier == "layout"
    assert outcome.catch.test == _LAYOUT.arguments[0]


def test_a_run_that_would_test_other_code_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(COPY, str(tmp_path))

    with pytest.raises(pytest.UsageError, match="which is not of the copy"):
        pytest_configure()
