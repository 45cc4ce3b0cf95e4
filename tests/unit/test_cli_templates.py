"""Job templates are checked by name and type, without an API server."""

from __future__ import annotations

import pytest

from scannerjob.cli.templates import template_problems
from tests.corpus.templates import BAD_TEMPLATES, GOOD_TEMPLATES, Template


@pytest.mark.parametrize("template", GOOD_TEMPLATES.values(), ids=GOOD_TEMPLATES)
def test_a_good_template_has_no_problem(template: Template) -> None:
    assert list(template_problems(template, "template")) == []


@pytest.mark.parametrize(("template", "problem"), BAD_TEMPLATES.values(), ids=BAD_TEMPLATES)
def test_a_bad_template_has_one(template: Template, problem: str) -> None:
    assert list(template_problems(template, "template")) == [f"template.{problem}"]


def test_a_field_that_resembles_none_may_be_of_a_newer_cluster() -> None:
    template = {**GOOD_TEMPLATES["labels"], "zzz": 1}
    assert list(template_problems(template, "template")) == []


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"spec": None},
        {"spec": {"template": {}}},
        {"spec": {"template": {"spec": {"containers": []}}}},
    ],
)
def test_a_template_without_a_container_runs_nothing(template: Template) -> None:
    assert list(template_problems(template, "template")) == [
        "template.spec.template.spec.containers: expected a container at least"
    ]
