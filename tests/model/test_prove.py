"""The walks that are written down: they go on where they ended, and what broke is seen again."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness.record import Record
from tests.model.basics import Violation
from tests.model.prove import KIND, MACHINES, prove, walk

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path / "proof" / "model.jsonl")


def test_a_walk_is_the_same_by_the_same_seed() -> None:
    assert walk("celery", 1, 180) == walk("celery", 1, 180) > 60


def test_walks_go_on_where_they_ended(record: Record) -> None:
    prove(record, 200, batch=120)
    before = list(record.lines(KIND))
    assert {line["machine"] for line in before} == set(MACHINES)
    assert all(line["verdict"] == "kept" for line in before)
    walked = sum(line["steps"] for line in before)
    assert walked >= 200
    prove(record, walked + 1, batch=60)
    after = list(record.lines(KIND))
    assert after[:-1] == before
    assert len({(line["machine"], line["seed"]) for line in after}) == len(after)


def test_a_seed_that_broke_a_promise_is_named_and_comes_again(
    record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(machine: str, seed: int, steps: int) -> int:
        raise Violation("two live launches of one row")

    with monkeypatch.context() as patch:
        patch.setattr("tests.model.prove.walk", breaks)
        with pytest.raises(SystemExit, match=r"two live launches.*\n.*\n.*--replay celery 0$"):
            prove(record, 1, batch=60)
    prove(record, 1, batch=60)
    verdicts = [(line["seed"], line["verdict"]) for line in record.lines(KIND)]
    assert verdicts == [(0, "broken"), (0, "kept")]
