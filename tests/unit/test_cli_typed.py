"""What a person types: short forms, what is refused in words, and what programs are given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scannerjob.cli.commands import app
from scannerjob.cli.completion import complete_for_kubectl
from tests.unit.test_cli_documents import GOOD


def _typed(*words: str, given: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=given, env={"COLUMNS": "300"})


@pytest.mark.parametrize("words", [["-h"], ["scan", "-h"], ["--help"]])
def test_help_has_a_short_form(words: list[str]) -> None:
    done = _typed(*words)

    assert (done.exit_code, done.stdout.startswith("Usage: ")) == (0, True)


def test_the_version_is_asked_for_in_either_form() -> None:
    assert _typed("--version").stdout == _typed("version").stdout
    assert f"{json.loads(_typed('version', '-o', 'json').stdout)['version']}\n" == (
        _typed("version").stdout
    )


@pytest.mark.parametrize("seconds", ["nan", "inf", "-inf", "-5"])
@pytest.mark.parametrize("command", [["scan", "a"], ["drain", "a"], ["retry", "a", "7"]])
def test_a_time_that_no_clock_reaches_is_refused_before_anything_is_done(
    command: list[str], seconds: str
) -> None:
    done = _typed(*command, "--timeout", seconds)

    assert done.exit_code == 2
    assert f"expected a number of seconds, as 0.5 or 30, not {seconds}" in done.output


def test_a_mistyped_word_gets_a_suggestion() -> None:
    said = _typed("status", "--output", "jsn").output

    assert "'jsn' is not one of 'table', 'json', 'yaml'. Did you mean json?" in said
    assert "Value error" not in said


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("/path/x.db", "expected a URL: sqlite:////path/x.db for this file"),
        ("./x.db", "expected a URL: sqlite:///x.db for this file"),
        ("postgresql://a@b@c/d", "expected DIALECT://USER:PASSWORD@HOST:PORT/DATABASE, with"),
        ("postgres", "expected sqlite:///PATH (sqlite:////var/lib/x.db), or postgresql://"),
    ],
)
@pytest.mark.parametrize("command", ["status", "run"])
def test_a_state_that_is_no_url_is_told_what_one_is(
    command: str, state: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "jobs.yaml").write_text(GOOD)
    files = ["-f", str(tmp_path / "jobs.yaml"), "--secrets", str(tmp_path)]

    done = _typed(command, *(files if command == "run" else []), "--state", state)

    assert (done.exit_code, said in done.output) == (2, True), done.output


def _kubeconfig(folder: Path, *contexts: str) -> Path:
    named = [{"name": each, "context": {"cluster": "c", "user": "u"}} for each in contexts]
    document: dict[str, Any] = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": named,
        "current-context": contexts[0],
    }
    file = folder / "kubeconfig"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    ("context", "said"),
    [
        ("dcos", "--context: dcos is not in the kubeconfig; did you mean docs?"),
        ("zzz", "--context: zzz is not in the kubeconfig; there are: docs, media"),
    ],
)
def test_a_mistyped_context_gets_a_suggestion(context: str, said: str, tmp_path: Path) -> None:
    kubeconfig = _kubeconfig(tmp_path, "docs", "media")
    done = _typed("status", "--kubeconfig", str(kubeconfig), "--context", context)

    assert (done.exit_code, done.stderr) == (2, f"{said}\n")


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_a_problem_shows_no_password(output: str) -> None:
    url = "postgresql://app:canary-7f3a91@db/app"
    done = _typed("validate", "-", "--output", output, given=GOOD.replace("30s", url))

    assert (done.exit_code, "@db/app" in done.output) == (2, True)
    assert "canary" not in done.output


def test_an_operator_without_a_cluster_cannot_use_what_it_was_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KUBECONFIG", "none")
    monkeypatch.setattr("scannerjob.logs.set_up_logging", lambda: None)

    done = _typed("operator")

    assert done.exit_code == 2
    assert done.stderr.startswith("not in a cluster, and no usable kubeconfig: none")


@pytest.mark.parametrize("output", ["table", "json"])
def test_a_document_is_validated_as_it_comes(output: str) -> None:
    good = _typed("validate", "-", "--output", output, given=GOOD)
    bad = _typed("validate", "-", "--output", output, given=GOOD.replace("30s", "x"))

    assert (good.exit_code, bad.exit_code) == (0, 2)
    if output == "table":
        assert good.stdout == "stdin:1: default/pdf-pages is valid\n"
        assert bad.stderr.startswith("stdin:7: spec.interval: ")
        return
    assert json.loads(good.stdout) == {
        "documents": [{"namespace": "default", "name": "pdf-pages"}],
        "problems": [],
    }
    (problem,) = json.loads(bad.stdout)["problems"]
    assert problem.startswith("stdin:7: spec.interval: ")


@pytest.mark.parametrize(
    ("words", "may_be_file"),
    [
        (["validate", ""], True),
        (["validate", "a.yaml", "b"], True),
        (["validate", "-"], False),
        (["preview", "--file", ""], True),
        (["preview", "-f", "a"], True),
        (["preview", "a", "--secrets", ""], True),
        (["run", "-f", ""], True),
        (["init", "-o", ""], True),
        (["status", "--kubeconfig", ""], True),
        (["status", "-n", ""], False),
        (["status", "-o", "y"], False),
        (["logs", "-f", ""], False),
        (["sta"], False),
        (["unknown", ""], False),
    ],
)
def test_kubectl_is_told_where_a_file_may_stand(
    words: list[str],
    may_be_file: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["kubectl_complete-scannerjob", *words])
    monkeypatch.setenv("KUBECONFIG", "none")
    for name in ("_SCANNERJOB_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")

    complete_for_kubectl()

    assert capsys.readouterr().out.split()[-1] == (":0" if may_be_file else ":4")


class TestInit:
    ANSWERS = ("app-db/url", "SELECT id FROM pdf", "docs.make", "app-redis/url")

    @pytest.fixture
    def terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("scannerjob.cli.author._asks", lambda: True)

    @pytest.mark.usefixtures("terminal")
    def test_asks_again_at_once_for_a_name_that_is_none(self) -> None:
        done = _typed("init", given="\n".join(["Pdf Pages", "pdf-pages", *self.ANSWERS, ""]))

        assert done.exit_code == 0, done.output
        assert "name: pdf-pages" in done.stdout
        assert "NAME: expected lower case letters, digits and -, as in pdf-pages" in done.stderr

    @pytest.mark.usefixtures("terminal")
    def test_asks_nothing_where_a_name_was_given_that_is_none(self) -> None:
        done = _typed("init", "Pdf Pages", given="")

        assert done.exit_code == 2
        assert "NAME: expected lower case letters" in done.stderr
        assert "Secret" not in done.output

    @pytest.mark.usefixtures("terminal")
    def test_is_interrupted_as_every_command(self) -> None:
        assert _typed("init", given="").exit_code == 130

    def test_names_what_is_missing_where_nobody_is_asked(self) -> None:
        done = _typed("init", "pages", "--database", "a", "--query", "SELECT 1 AS id")

        assert done.stderr == "--task or --image: required where nobody is asked\n"
