"""Which changes are made, and in which order: it follows from a seed alone.

All of them are shuffled and dealt out, so that every so many trials have each of them once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.harness.setting import Setting, Target
from tests.misoperations.changes import Step
from tests.misoperations.fields import steps

# Into so many trials.
HANDS = {"celery": 10, "job": 6}
_SHORTEST, _LONGEST = 1.0, 3.0


@dataclass(frozen=True)
class Plan:
    """A setting, the changes in their order, and for how many seconds each is held."""

    seed: int
    setting: Setting
    steps: tuple[tuple[Step, float], ...]


def plan(seed: int, target: Target, hands: int | None = None) -> Plan:
    """The plan of this number, from 1 on; `hands` says among how many the changes are dealt out."""
    hands = hands or HANDS[target]
    deal, hand = divmod(seed - 1, hands)
    rng = random.Random(f"{deal}/{target}")
    shuffled = rng.sample(all_steps := steps(target), len(all_steps))
    mine = shuffled[hand::hands]
    setting = Setting(target=target, rows=12, fails_every=0)
    return Plan(seed, setting, tuple((each, rng.uniform(_SHORTEST, _LONGEST)) for each in mine))
