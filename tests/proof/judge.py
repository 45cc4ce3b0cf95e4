"""The judge of a run: which promises were broken, by what was observed from outside.

It knows nothing of the operator's code. It accuses only where what was observed allows no other
reading; a history with holes is acquitted where they are. So it does not see

- what a witness did not: between two versions of a watch, in a gap, or in rows that nobody watched;
- overlaps shorter than `Promised.slack` between what two witnesses saw;
- whether a slot was freed too soon, if what held it had ended by then for an observer: a launch
  whose worker has died unseen by the operator, a message of which no execution was recorded once
  any worker has died, a row that left for reasons of its own;
- a claim sent within the send deadline after a fault, a lowered cap or a deletion;
- how a launch was counted, where its outcome has several readings (it failed, and its row left);
- what is within one Job: its pods are Kubernetes' business;
- what an excuse names, from then on; attempts used up too soon by launches that were never alive;
- that a launch was late, where no slot was free beyond doubt: if a launch is held for ever, all
  that wait for its slot are held as well.
"""

from __future__ import annotations

from tests.proof import (
    cap,
    counters,
    deletion,
    liveness,
    once,
    one_at_a_time,
    one_execution,
    one_job,
    ownership,
    recorded,
    relaunch,
    status,
    unknown,
)
from tests.proof.history import History
from tests.proof.promised import Promised
from tests.proof.run import Run
from tests.proof.violation import Violation

CHECKS = (
    cap.check,
    once.check,
    one_job.check,
    one_execution.check,
    one_at_a_time.check,
    relaunch.check,
    counters.check,
    liveness.check,
    status.check,
    unknown.check,
    deletion.check,
    ownership.check,
    recorded.check,
)


def judge(history: History, promised: Promised) -> list[Violation]:
    """Every broken promise, in the order of the checks; nothing where all were kept."""
    run = Run(history, promised)
    return [found for check in CHECKS for found in check(run)]
