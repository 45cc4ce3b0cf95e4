"""Carries out a plan in a trial."""

from __future__ import annotations

import pickle
import time
from contextlib import ExitStack

from tests.faults.acts.common import Over
from tests.faults.acts.table import ACTS
from tests.faults.plans import Plan, Step
from tests.harness.stage import Stage
from tests.harness.trial import Trial, Verdict

# A step begins at the latest so long after the one before it has ended, whatever was launched.
_PATIENCE = 10.0
# How many rows come when something begins to go wrong, and when it has ended: work is never over.
_ROWS_AMID, _ROWS_AFTER = 6, 3


class _Running:
    """A step of a plan, on its way."""

    def __init__(self, trial: Trial, step: Step) -> None:
        self._trial = trial
        self._step = step
        self._act = ExitStack()
        self._due: float | None = None
        self._ends = 0.0
        self._over: Over | None = None
        self.ended = False

    def get_on(self, launched: int, hurry: bool) -> None:
        """Begin or end it, if it is time to."""
        now = time.monotonic()
        if self._due is None and (launched >= self._step.after or hurry):
            self._due = now + self._step.wait
        if self._over is None and self._due is not None and now >= self._due:
            self._begin()
        elif self._over is not None and not self.ended and (now >= self._ends or self._over()):
            self._end()

    def _begin(self) -> None:
        self._over = self._act.enter_context(ACTS[self._step.act](self._trial, self._step.options))
        self._ends = time.monotonic() + self._step.lasts
        self._trial.insert(_ROWS_AMID)

    def _end(self) -> None:
        self._act.close()
        self._trial.insert(_ROWS_AFTER)
        self.ended = True


def run(plan: Plan, stage: Stage, *, keep: bool = False) -> Verdict:
    """Carry out a plan, and have what was observed judged."""
    with Trial(stage, plan.setting) as trial:
        trial.start()
        _carry_out(trial, plan)
        verdict = trial.finish(plan.patience, recovery=plan.recovery, quiet=plan.quiet)
        if keep or not verdict.kept:
            folder = trial.keep()
            (folder / "history.pickle").write_bytes(pickle.dumps(verdict.history))
            verdict.notes["folder"] = str(folder)
        return verdict


def _carry_out(trial: Trial, plan: Plan) -> None:
    steps = [_Running(trial, step) for step in plan.steps]
    patient_until = time.monotonic() + _PATIENCE
    while left := [step for step in steps if not step.ended]:
        launched = int(trial.status.get("launched", 0))
        hurry = time.monotonic() > patient_until
        for step in left:
            step.get_on(launched, hurry)
            if step.ended:
                patient_until = time.monotonic() + _PATIENCE
        time.sleep(0.02)
