"""The table of docs/celery.md says what the tests play, and each of its rows is played."""

from pathlib import Path

import tests.services.test_celery_fates as played
from tests.support.fates import SCENARIOS, Outcome

DOCUMENT = (Path(__file__).parents[2] / "docs" / "celery.md").read_text()


def _table() -> list[str]:
    lines = DOCUMENT.partition("<!-- outcomes:")[2].partition("<!-- end of outcomes -->")[0]
    return lines.strip().splitlines()[3:]


def test_the_table_says_what_the_scenarios_expect() -> None:
    assert _table() == [str(scenario) for scenario in SCENARIOS.values()]


def test_every_outcome_is_explained() -> None:
    for outcome in Outcome:
        assert f"- **{outcome.text}**: " in DOCUMENT


def test_every_scenario_is_played_on_its_brokers() -> None:
    tests = [test for name, test in vars(played).items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in test.pytestmark if mark.name == "parametrize"]
    pairs = sorted(param.values[0] for mark in marks for param in mark.args[1])
    expected = [(name, broker) for name, each in SCENARIOS.items() for broker in each.brokers]
    assert pairs == sorted(expected)
