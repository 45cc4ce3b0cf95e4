"""A minute of changes by hand, by fixed seeds; `make prove` makes them all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.harness.campaign import stage
from tests.harness.setting import Target
from tests.harness.stage import Stage
from tests.misoperations.plan import plan
from tests.misoperations.run import run

pytestmark = pytest.mark.timeout(900)

# Into so many hands: the more there are, the fewer changes each has.
HANDS = 40


@pytest.fixture(scope="module")
def opened() -> Iterator[Stage]:
    with stage() as opened:
        yield opened


@pytest.mark.parametrize("target", ["celery", "job"])
def test_whatever_is_changed_by_hand_all_recovers(opened: Stage, target: Target) -> None:
    verdict = run(plan(3, target, HANDS), opened)
    assert verdict.kept, str(verdict)
    assert verdict.done > 0
