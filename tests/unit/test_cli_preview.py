"""`preview --file`: what is printed of one document and of several, and where the URL is read."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from typer.testing import CliRunner, Result

from scannerjob.apisecrets import KubernetesSecrets
from scannerjob.cli.commands import app
from scannerjob.cli.places import Place, Where
from scannerjob.ports import ConfigurationError
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


def test_of_several_documents_one_that_fails_is_named_beside_the_others() -> None:
    Path("two.yaml").write_text(
        f"{GOOD.replace('pdf-pages', 'broken').replace('FROM pdf', 'FROM x')}---\n{OTHER}"
    )

    table = _preview("--file", "two.yaml", "--database-url-file", "url")
    data = _preview("--file", "two.yaml", "--database-url-file", "url", "--output", "json")

    assert table.exit_code == data.exit_code == 3
    assert table.stdout.startswith("media/thumbnails\n")
    assert table.stderr.startswith("default/broken: ")
    assert [each["name"] for each in json.loads(data.stdout)] == ["thumbnails"]


@pytest.mark.parametrize(
    ("file", "said"),
    [("nofile.yaml", "nofile.yaml: cannot be read: No such"), ("url", "url:1: expected a Scanner")],
)
def test_a_file_is_looked_at_before_any_cluster(
    file: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "none")
    done = _preview("--file", file)

    assert (done.exit_code, done.stderr.startswith(said)) == (2, True), done.stderr


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[Where]:
    """A cluster with a Secret, whose context is of the namespace docs; and who asked for it."""
    asked = []

    @asynccontextmanager
    async def opened(where: Where) -> AsyncIterator[Place]:
        asked.append(where)
        yield Place(cast(Any, None), where.namespace or "docs", cast(Any, "api"))

    async def get(self: KubernetesSecrets, namespace: str, name: str) -> dict[str, bytes]:
        if (namespace, name) == ("docs", "app-db"):
            return {"url": (folder / "url").read_bytes()}
        raise ConfigurationError("SecretNotFound", f"Secret {namespace}/{name} is not there")

    monkeypatch.setattr("scannerjob.cli.looking.opened", opened)
    monkeypatch.setattr(KubernetesSecrets, "get", get)
    return asked


def test_by_default_the_url_is_read_from_the_secret_in_the_cluster(cluster: list[Where]) -> None:
    done = _preview("--file", "one.yaml", "--context", "staging", "--output", "json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["namespace"] == "docs"
    assert cluster == [Where(context="staging")]


def test_a_secret_that_is_not_in_the_namespace_is_named(cluster: list[Where]) -> None:
    done = _preview("--file", "one.yaml", "-n", "media")

    assert done.exit_code == 2
    assert "Secret media/app-db is not there" in done.output
    assert len(cluster) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--database-url-file", "url"], ""),
        (["--secrets", "."], "app-db"),
        (["--state", "sqlite:///state.db"], "give --secrets DIR"),
    ],
)
def test_no_cluster_is_asked_where_an_option_says_so(
    options: list[str], said: str, cluster: list[Where]
) -> None:
    assert said in _preview("--file", "one.yaml", *options).output
    assert cluster == []


def test_without_a_cluster_it_says_what_else_can_be_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "none")
    done = _preview("--file", "one.yaml")

    assert done.exit_code == 2
    assert "set KUBECONFIG; or give --secrets DIR or --database-url-file FILE" in done.output
