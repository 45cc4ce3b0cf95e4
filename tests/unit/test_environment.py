"""A row as environment variables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scannerjob.model.environment import column_problems, environment, variable
from scannerjob.model.row import UnusableRow
from scannerjob.ports import SourceError
from scannerjob.sources.records import check_variables
from tests.support.pods import expanded
from tests.unit.job_cases import CONTAINER, template

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


def values(**columns: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in environment(columns)}


def problems(*columns: str, env: Any = None) -> list[str]:
    return list(column_problems(columns, template({**CONTAINER, "env": env})))


@given(TEXTS, TEXTS)
def test_a_program_gets_the_very_text_that_stands_in_the_row(one: str, other: str) -> None:
    env = [*environment({"a": one, "b": other}), {"name": "C", "value": "$(A)"}]

    assert expanded({"env": env}).env == {"A": one, "B": other, "C": one}


def test_values_of_other_kinds_are_written_as_json_and_null_is_empty() -> None:
    nested = {"a": [1, "$x"]}

    found = values(n=7, x=1.5, yes=True, no=False, none=None, data=nested, umlaut=["ü"])

    assert found == {
        "N": "7",
        "X": "1.5",
        "YES": "true",
        "NO": "false",
        "NONE": "",
        "DATA": '{"a": [1, "$$x"]}',
        "UMLAUT": '["ü"]',
    }
    assert json.loads(found["DATA"].replace("$$", "$")) == nested


def test_a_nul_is_unusable_and_the_column_named() -> None:
    with pytest.raises(UnusableRow, match="column title"):
        environment({"id": 1, "title": "a\0"})
    assert values(data=["\0"]) == {"DATA": '["\\u0000"]'}


def test_columns_become_upper_case() -> None:
    assert variable("pdf_id") == "PDF_ID"


def test_ordinary_columns_are_no_problem() -> None:
    assert problems("id", "_x", "pdf_id2", "home_page", "path_id", "python_version") == []


@pytest.mark.parametrize("column", ["1a", "ä", "a-b", "a b", ""])
def test_a_column_that_is_no_variable_is_named(column: str) -> None:
    (problem,) = problems("id", column)

    assert problem.startswith(f"column {column!r} cannot be an environment variable")


@pytest.mark.parametrize(
    "column",
    ["path", "Path", "ld_preload", "kubernetes_service_host", "scannerjob_x", "pythonpath", "ifs"],
)
def test_a_column_that_would_change_how_programs_run_is_named(column: str) -> None:
    (problem,) = problems("id", column)

    assert repr(column) in problem
    assert variable(column) in problem


def test_a_column_that_the_template_sets_already_is_named() -> None:
    (problem,) = problems("id", "title", env=[{"name": "TITLE", "value": "x"}])

    assert problem == "column 'title' would become TITLE, which spec.job.template sets already"


def test_init_containers_count_too() -> None:
    pod = {"initContainers": [{"env": [{"name": "ID"}]}], "containers": [CONTAINER]}

    assert len(list(column_problems(["id"], {"spec": {"template": {"spec": pod}}}))) == 1


def test_two_columns_that_would_become_one_are_both_named() -> None:
    assert len(problems("id", "Title", "title")) == 2


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"spec": None},
        {"spec": {"template": "a"}},
        {"spec": {"template": {"spec": {"containers": 1}}}},
        template({**CONTAINER, "env": 5}),
        template({**CONTAINER, "env": ["a", None]}),
    ],
)
def test_a_template_that_is_not_written_as_one_is_left_to_the_api_server(written: Any) -> None:
    assert list(column_problems(["id"], written)) == []


def test_a_querys_columns_are_checked_before_its_rows_are_used() -> None:
    check_variables(["id"], template())
    with pytest.raises(SourceError, match=r"spec\.query: column 'path' .* AS another_name") as e:
        check_variables(["id", "path"], template())
    assert e.value.reason == "InvalidColumn"
