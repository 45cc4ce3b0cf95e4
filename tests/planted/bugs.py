"""All bugs that are planted, one at a time."""

from __future__ import annotations

from tests.planted.celery_bugs import CELERY_BUGS
from tests.planted.cycle_bugs import CYCLE_BUGS
from tests.planted.job_bugs import JOB_BUGS
from tests.planted.ledger_bugs import LEDGER_BUGS
from tests.planted.store_bugs import STORE_BUGS

BUGS = (*CYCLE_BUGS, *LEDGER_BUGS, *STORE_BUGS, *JOB_BUGS, *CELERY_BUGS)
