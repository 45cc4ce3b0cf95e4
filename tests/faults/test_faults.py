"""A minute of planned faults, of several families; `make prove` goes on for hours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.plans import plans
from tests.faults.run import run
from tests.harness.campaign import stage
from tests.harness.stage import Stage

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def opened() -> Iterator[Stage]:
    with stage() as opened:
        yield opened


@pytest.mark.parametrize(
    "name",
    [
        "watch/one-back-in-time/jobs-two/1",
        "guard/reply-lost/guarded-rabbit-two/1",
        # A name was free by the clock of a replica that is an hour ahead, while a create of it was
        # on its way still.
        "pair/api-create-late+clock-one-ahead/jobs-two/1",
        "state/disk-full/alone-guarded-two/1",
    ],
)
def test_no_promise_is_broken_by_faults(opened: Stage, name: str) -> None:
    verdict = run(plans()[name], opened)
    assert verdict.kept, f"python -m tests.faults replay {name}\n{verdict}"
    assert verdict.notes["hits"] != 0
    assert verdict.done > 20
