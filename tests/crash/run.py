"""Carries out a plan: operators are killed as it says, and then left to finish."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

from tests.crash.plan import Life, Plan
from tests.crash.points import DIES_AT, SUPERSEDED
from tests.harness.operators import Operator
from tests.harness.stage import Stage
from tests.harness.trial import Trial, Verdict

_LOOK_EVERY = 0.01
# There is always work to do while processes are killed.
_FEWEST_ROWS, _MORE_ROWS = 6, 6


def run(plan: Plan, stage: Stage, *, keep: bool = False) -> Verdict:
    """The verdict on what happened; `notes` tells how many were killed, and where."""
    with Trial(stage, plan.setting) as trial:
        trial.apply()
        killed: Counter[str] = Counter()
        with trial.fault("operator"):
            _kill(plan, trial, killed)
            for operator in trial.operators:
                operator.kill()
        for operator in trial.operators:
            operator.start()
        verdict = trial.finish()
        verdict.notes.update(kills=killed.total(), points=dict(killed))
        if keep or not verdict.kept:
            verdict.notes["folder"] = str(trial.keep())
        return verdict


def _kill(plan: Plan, trial: Trial, killed: Counter[str]) -> None:
    replicas = [
        _Replica(operator, plan.lives(number)) for number, operator in enumerate(trial.operators)
    ]
    while killed.total() < plan.kills:
        for replica in replicas:
            if died := replica.attend():
                killed[died] += 1
                if trial.rows.waiting() < _FEWEST_ROWS:
                    trial.insert(_MORE_ROWS)
                if replica.waits_for_a_row_that_leaves:
                    trial.rows.withdraw()
        time.sleep(_LOOK_EVERY)


class _Replica:
    def __init__(self, operator: Operator, lives: Iterator[Life]) -> None:
        self._operator = operator
        self._lives = lives
        self._life = self._begin()

    @property
    def waits_for_a_row_that_leaves(self) -> bool:
        """Whether it is to die where it gives up a launch, for which no other reason comes soon."""
        return self._life.point == SUPERSEDED

    def attend(self) -> str | None:
        """See whether it has died, or is due to; where it did, and let the next one begin."""
        operator, life = self._operator, self._life
        if operator.running and operator.age < life.after:
            return None
        was_there = operator.kill()
        where = "at random" if was_there else life.name
        if not was_there and not self._died_at_point():
            raise RuntimeError(f"an operator ended by itself: {operator.log()[-4000:]}")
        self._life = self._begin()
        return where

    def _begin(self) -> Life:
        life = next(self._lives)
        arguments = {"name": life.point, "passes": life.passes, "seed": life.seed}
        self._operator.start(*([("tests.crash.points:arm", arguments)] if life.point else []))
        return life

    def _died_at_point(self) -> bool:
        # Another thread of it may have written a line in the very moment.
        last = self._operator.log().splitlines()[-3:]
        return f"{DIES_AT} {self._life.point}" in last
