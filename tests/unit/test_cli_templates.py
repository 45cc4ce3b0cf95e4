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
    assert list(template_problems({"spec": {"zzz": 1}}, "template")) == []
