"""The document that `init` writes: valid, and as it was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from scannerjob.cli.documents import DocumentError
from scannerjob.cli.init import Answers, document

QUERY = "SELECT id AS pdf_id, title\nFROM pdf\nWHERE title <> 'a: #b' ORDER BY id"
CELERY = Answers(
    name="pdf-pages",
    namespace="docs",
    query=QUERY,
    database="app-db/dsn",
    interval="30s",
    concurrency=10,
    task="docs.tasks.create_pages",
    broker="app-redis",
)
JOB = replace(CELERY, task=None, image="registry.example/pages:1", command="[create-pages]")


def spec(answers: Answers) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(document(answers))["spec"]
    return found


def test_for_celery() -> None:
    made = spec(replace(CELERY, guard="app-redis/guard"))

    assert made["query"].strip() == QUERY
    assert made["database"] == {"urlSecretRef": {"name": "app-db", "key": "dsn"}}
    assert made["celery"]["broker"] == {"urlSecretRef": {"name": "app-redis", "key": "url"}}
    assert made["celery"]["guard"] == {"urlSecretRef": {"name": "app-redis", "key": "guard"}}
    assert made["celery"]["task"] == "docs.tasks.create_pages"
    assert "job" not in made


def test_for_jobs() -> None:
    made = spec(JOB)

    (container,) = made["job"]["template"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "registry.example/pages:1"
    assert container["command"] == ["create-pages"]
    assert "celery" not in made


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("['python', -m, \"app:main\"]", ["python", "-m", "app:main"]),
        ("- a b\n- '5'", ["a b", "5"]),
    ],
)
def test_a_command_is_a_list_of_texts(command: str, expected: list[str]) -> None:
    made = spec(replace(JOB, command=command))["job"]["template"]["spec"]["template"]["spec"]

    assert made["containers"][0]["command"] == expected


@pytest.mark.parametrize("command", ["python -m app", "[sleep, 5]", "[a", "{a: b}", "[[a]]", "[]"])
def test_what_is_no_list_of_texts_is_no_command(command: str) -> None:
    with pytest.raises(DocumentError, match="--command: expected a YAML list of texts"):
        document(replace(JOB, command=command))


@pytest.mark.parametrize(
    "inside", ["a\u2028b", "a\x85b", "a\rb", "a\tb", "a\x07b", "a\n\n b", "😀"]
)
def test_a_query_is_not_changed(inside: str) -> None:
    query = f"SELECT id FROM pdf WHERE title <> '{inside}'"

    assert spec(replace(CELERY, query=query))["query"].strip() == query


def test_each_field_has_a_comment() -> None:
    lines = document(CELERY).splitlines()
    for field in ("interval", "concurrency", "retry"):
        (number,) = (n for n, line in enumerate(lines) if line.startswith(f"  {field}:"))
        assert lines[number - 1].startswith("  #")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"name": "Pdf Pages"}, "metadata.name"),
        ({"interval": "soon"}, "spec.interval"),
        ({"concurrency": -1}, "spec.concurrency"),
        ({"database": "app db/url"}, "spec.database.urlSecretRef.name"),
        ({"name": "../sub/x"}, "metadata.name"),
        ({"name": "x" * 300}, "metadata.name"),
        ({"query": "SELECT '\udcff'"}, "query: expected text in UTF-8"),
    ],
)
def test_what_cannot_be_used_is_named_without_a_file(change: dict[str, Any], named: str) -> None:
    with pytest.raises(DocumentError) as raised:
        document(replace(CELERY, **change))

    assert any(problem.startswith(named) for problem in raised.value.problems)


PRINTABLE = st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"))


@settings(deadline=None)
@given(st.text(PRINTABLE, min_size=1, max_size=100))
def test_whatever_is_typed_is_a_value_and_no_yaml(text: str) -> None:
    assert spec(replace(CELERY, task=text))["celery"]["task"] == text


def test_a_file_of_the_refused_name_is_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "evil.yaml"
    precious.write_text("precious")

    with pytest.raises(DocumentError, match=r"metadata\.name"):
        document(replace(CELERY, name=str(tmp_path / "evil")))

    assert precious.read_text() == "precious"
