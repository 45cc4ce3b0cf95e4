import random
from collections.abc import Callable

import pytest

from tests.soak.growth import COUNT, FEWEST, MEMORY, MIB, Points, judge, slope

EVERY, SAMPLES = 15.0, 120  # half an hour


def points(measure: Callable[[float], float], samples: int = SAMPLES) -> Points:
    """What a sampler would have measured; `measure` is told the minutes that have passed."""
    return [(EVERY * number, measure(EVERY * number / 60)) for number in range(samples)]


def noisy(base: float, per_minute: float, seed: int) -> Points:
    """Memory that goes up and down by some MiB, and has a peak now and then."""
    rng = random.Random(seed)

    def measure(minutes: float) -> float:
        peak = 40 * MIB if rng.random() < 0.05 else 0.0
        return base + per_minute * minutes + rng.gauss(0, 3 * MIB) + peak

    return points(measure)


@pytest.mark.parametrize("seed", range(15))
def test_a_leak_of_a_mebibyte_a_minute_is_found_in_half_an_hour(seed: int) -> None:
    growth = judge(noisy(100 * MIB, MIB, seed), MEMORY)
    assert growth.grows
    assert growth.slope == pytest.approx(60 * MIB, rel=0.2)


@pytest.mark.parametrize("seed", range(15))
def test_noise_is_no_growth(seed: int) -> None:
    growth = judge(noisy(100 * MIB, 0.0, seed), MEMORY)
    assert not growth.grows
    assert abs(growth.slope) < 12 * MIB


def test_what_warms_up_and_stays_is_no_growth() -> None:
    def measure(minutes: float) -> float:
        return 100 * MIB - 60 * MIB * 2**-minutes

    growth = judge(points(measure), MEMORY)
    assert not growth.grows
    assert growth.start == 40 * MIB


def test_a_single_peak_neither_moves_the_slope_nor_is_growth() -> None:
    flat = [*points(lambda _: 100 * MIB)]
    flat[-3] = (flat[-3][0], 900 * MIB)
    growth = judge(flat, MEMORY)
    assert (growth.slope, growth.grows, growth.maximum) == (0.0, False, 900 * MIB)


def test_connections_that_are_opened_now_and_then_and_never_closed_are_found() -> None:
    assert judge(points(lambda minutes: 5 + minutes // 3), COUNT).grows


def test_connections_that_come_and_go_are_no_growth() -> None:
    assert not judge(points(lambda minutes: 5 + 3 * (minutes % 4 < 1)), COUNT).grows


def test_threads_that_were_there_early_may_be_there_late() -> None:
    def measure(minutes: float) -> float:
        return 20 if 10 < minutes < 11 or minutes > 20 else 12

    assert not judge(points(measure), COUNT).grows


def test_what_has_no_rule_never_grows() -> None:
    assert not judge(points(lambda minutes: minutes), None).grows


def test_a_slope_is_told_of_hours_of_samples_too() -> None:
    assert slope(points(lambda minutes: 3 * minutes, samples=5000)) == pytest.approx(3 / 60)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="tell nothing"):
        judge(points(float, samples=FEWEST - 1), MEMORY)
