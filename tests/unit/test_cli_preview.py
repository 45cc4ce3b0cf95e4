"""`preview --file`: what is printed of one document and of several, and where the URL is read."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from scannerjob.cli.commands import app
from tests.unit.test_cli_documents import GOOD

OTHER = GOOD.replace("{name: pdf-pages}", "{name: thumbnails, namespace: media}")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with documents in it and the database that they read."""
    (tmp_path / "one.yaml").write_text(GOOD)
    (tmp_path / "two.yaml").write_text(f"{GOOD}---\n{OTHER}")
    (tmp_path / "url").write_text(f"sqlite:///{tmp_path}/app.db")
    with sqlite3.connect(tmp_path / "app.db") as database:
        database.execute("CREATE TABLE pdf (id INTEGER PRIMARY KEY)")
        database.execute("INSERT INTO pdf VALUES (7)")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _preview(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["preview", *arguments])


def _read(file: str, output: str) -> str:
    done = _preview("--file", file, "--database-url-file", "url", "--output", output)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_one_document_is_one_object() -> None:
    told = json.loads(_read("one.yaml", "json"))

    assert (told["namespace"], told["name"], told["launch"]) == ("default", "pdf-pages", 1)


def test_several_documents_are_one_list() -> None:
    told = json.loads(_read("two.yaml", "json"))

    assert [each["name"] for each in told] == ["pdf-pages", "thumbnails"]
    assert yaml.safe_load(_read("two.yaml", "yaml")) == told


def test_several_documents_are_tables_under_their_names() -> None:
    one, two = _read("one.yaml", "table"), _read("two.yaml", "table")

    assert two == f"default/pdf-pages\n{one}\nmedia/thumbnails\n{one}"
