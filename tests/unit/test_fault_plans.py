"""The plans of what goes wrong: data that must be the same everywhere."""

from __future__ import annotations

from dataclasses import asdict

from tests.faults.acts.table import ACTS
from tests.faults.plans import FAMILIES, plans


def test_there_are_enough_plans_and_no_two_are_the_same() -> None:
    found = plans()
    assert len(found) >= 600
    harms = {repr((asdict(plan.setting), plan.steps)) for plan in found.values()}
    assert len(harms) == len(found)


def test_a_plan_follows_from_its_name() -> None:
    once = dict(plans())
    plans.cache_clear()
    assert plans() == once
    assert list(plans()) == list(once)


def test_every_act_is_known_and_planned() -> None:
    planned = {variant.act for variants in FAMILIES.values() for variant in variants.values()}
    assert planned == set(ACTS)


def test_the_first_plans_are_a_sample_of_all() -> None:
    first = {plan.family for plan in list(plans().values())[:100]}
    assert first >= set(FAMILIES) - {"killed"}
