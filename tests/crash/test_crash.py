"""A minute of crashes, by fixed seeds; `make prove` goes on for hours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.crash.plan import plan
from tests.crash.run import run
from tests.harness.campaign import stage
from tests.harness.setting import Target
from tests.harness.stage import Stage

pytestmark = pytest.mark.timeout(600)

KILLS = 12


@pytest.fixture(scope="module")
def opened() -> Iterator[Stage]:
    with stage() as opened:
        yield opened


@pytest.mark.parametrize(("target", "seed"), [("celery", 1), ("celery", 2), ("job", 1), ("job", 2)])
def test_no_promise_is_broken_by_crashes(opened: Stage, target: Target, seed: int) -> None:
    verdict = run(plan(seed, target, KILLS), opened)
    assert verdict.kept, f"python -m tests.crash replay {target} {seed}\n{verdict}"
    assert verdict.notes["kills"] >= KILLS // 3
    assert verdict.done > 0
