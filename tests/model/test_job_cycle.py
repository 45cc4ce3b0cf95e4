"""The whole cycle with Jobs, against a world in which everything fails.

SCANNERJOB_PROVE_STEPS=100000 walks about so many steps instead of the few of a test run.
"""

from __future__ import annotations

import pytest

from tests.model.job_machine import JobCycle
from tests.model.machine import STEPS, STEPS_PER_WALK, run


@pytest.mark.timeout(24 * 3600)
def test_no_promise_breaks_whatever_fails_where_rows_become_jobs() -> None:
    run(JobCycle, max_examples=max(1, STEPS // STEPS_PER_WALK), print_blob=True)
