"""Whether something grows, judged by noisy samples of it.

What is warm by then stays as it is: the first tenth of the samples is left out, and the second
quarter of the others is compared with the last one. Medians bear what comes and goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Literal

MIB = 2.0**20
_WARM_UP = 0.1
# With fewer samples a quarter says nothing.
FEWEST = 12
# The slope is that of so many medians: of all pairs of thousands of samples it takes minutes.
_POINTS = 120

Points = Sequence[tuple[float, float]]
"""Times in seconds, and what was measured then."""


@dataclass(frozen=True)
class Rule:
    """How much more at the end is no growth: this share of what was there, and this amount.

    The last quarter's median is compared with the second quarter's, or with the most that there
    was until then, for what comes in steps and is to be had again.
    """

    share: float
    amount: float
    above: Literal["median", "maximum"] = "median"


MEMORY = Rule(0.05, 4 * MIB)
COUNT = Rule(0.0, 2.0, above="maximum")
SIZE = Rule(0.05, 2048.0)


@dataclass(frozen=True)
class Growth:
    """What became of a figure; `slope` is per hour."""

    start: float
    early: float
    late: float
    maximum: float
    slope: float
    grows: bool


def judge(points: Points, rule: Rule | None) -> Growth:
    """How it went, and whether it grows; without a rule nothing is growth."""
    if len(points) < FEWEST:
        raise ValueError(f"{len(points)} samples tell nothing of growth: {FEWEST} are needed")
    warm = points[int(len(points) * _WARM_UP) :]
    values = [value for _, value in warm]
    quarter = len(values) // 4
    half = values[: 2 * quarter]
    early, late = median(half[quarter:]), median(values[-quarter:])
    return Growth(
        start=points[0][1],
        early=early,
        late=late,
        maximum=max(value for _, value in points),
        slope=slope(warm) * 3600,
        grows=rule is not None and late > _limit(rule, early, max(half)),
    )


def _limit(rule: Rule, early: float, most: float) -> float:
    base = early if rule.above == "median" else most
    return base * (1 + rule.share) + rule.amount


def slope(points: Points) -> float:
    """By Theil and Sen: the median of the slopes between all pairs, which no outlier moves."""
    slopes = [
        (second[1] - first[1]) / (second[0] - first[0])
        for first, second in combinations(_thinned(points), 2)
        if second[0] > first[0]
    ]
    return median(slopes) if slopes else 0.0


def _thinned(points: Points) -> Points:
    """The medians of as many neighbours as leave no more points than can be paired."""
    width = -(-len(points) // _POINTS)
    groups = [points[begin : begin + width] for begin in range(0, len(points), width)]
    return [
        (median(time for time, _ in group), median(value for _, value in group)) for group in groups
    ]
