from itertools import islice

from tests.crash.plan import plan
from tests.crash.points import POINTS
from tests.harness.setting import Target

TARGETS: tuple[Target, ...] = ("celery", "job")


def test_a_plan_follows_from_its_seed() -> None:
    first, again = plan(7, "celery"), plan(7, "celery")
    assert first == again
    assert list(islice(first.lives(0), 50)) == list(islice(again.lives(0), 50))
    assert list(islice(first.lives(0), 50)) != list(islice(first.lives(1), 50))


def test_plans_come_to_every_point_and_every_setting() -> None:
    plans = [plan(seed, target) for target in TARGETS for seed in range(36)]
    points = {life.point for each in plans for life in islice(each.lives(0), 200)}
    assert points == POINTS.keys() | {None}
    kinds = {
        (each.setting.way, each.setting.target, each.setting.broker, each.setting.guard)
        for each in plans
        if each.setting.target == "celery"
    }
    assert len(kinds) == 2 * 3 * 2
    assert {each.setting.replicas for each in plans} == {1, 2}
    assert {each.setting.election for each in plans} == {True, False}
