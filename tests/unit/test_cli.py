"""The command line as a process: what it refuses, how it says so, and how fast it answers."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from scannerjob.cli.printing import Output, emit
from tests.unit.test_cli_documents import GOOD

COMMANDS = (
    *("run", "operator", "demo", "version", "init", "validate", "preview", "status", "explain"),
    *("retry", "scan", "suspend", "resume", "drain", "logs"),
)
HEAVY = ("asyncio", "celery", "kombu", "kopf", "kubernetes", "pydantic", "sqlalchemy", "yaml")


def _scannerjob(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scannerjob", *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        env={**os.environ, "COLUMNS": "200", "TERM": "dumb"},
    )


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    folder = tmp_path / "secrets"
    folder.mkdir()
    return folder


def test_help_names_every_command() -> None:
    done = _scannerjob("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_a_mistyped_command_gets_a_suggestion() -> None:
    done = _scannerjob("statsu")
    assert done.returncode == 2
    assert "Did you mean 'status'?" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["preview"], "expected either NAME or --file"),
        (["preview", "pages", "--file", "pages.yaml"], "expected either NAME or --file"),
        (["retry", "pages"], "expected either KEY or --all-parked"),
        (["retry", "pages", "7", "--all-parked"], "expected either KEY or --all-parked"),
        (["status", "--watch", "--output", "json"], "--watch: shows a table only"),
        (["status", "--state", "sqlite:///x.db", "--context", "docs"], "--state: not together"),
        (["status", "--state", "sqlite:///missing.db"], "no ledger is in the file"),
        (["status", "--state", "postgresql://app:canary-7f3a91@h/x?bad=1"], "--state"),
        (["init", "pages"], "--database, --query, --task or --image"),
        (["init", "pages", "--task", "a", "--image", "b"], "--task: not together with --image"),
        (["init", "pages", "--image", "b", "--guard", "a/b"], "--guard: not together with"),
        (["init", "pages", "--image", "b", "--broker", "a/b"], "--broker: not together with"),
        (["init", "pages", "--task", "a", "--command", "[b]"], "--command: not together with"),
        (["init", "pages", "--output", "."], "--output: . exists"),
        (
            ["init", "pages", "--query", "SELECT 1", "--database", "a/b", "--task", "t"],
            "--broker: required",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_line(
    arguments: list[str], said: str, tmp_path: Path
) -> None:
    done = _scannerjob(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert said in done.stderr
    assert "canary" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("init a $JOB --output none/x.yaml", 2, "none/x.yaml: No such file or directory"),
        ("init a $JOB --query $'\\xff'", 2, "query: expected text in UTF-8, not '\\udcff'"),
        ("explain $'\\xff' 1 --kubeconfig none", 2, "none does not exist; set KUBECONFIG"),
        ("version >/dev/full", 2, ": No space left on device"),
        ("validate jobs.yaml >/dev/full", 2, ": No space left on device"),
        ("validate jobs.yaml >&-", 0, ""),
        ("validate jobs.yaml | true; exit ${PIPESTATUS[0]}", None, ""),
        ("init a $JOB --query 'SELECT ä' | cat; exit ${PIPESTATUS[0]}", 0, ""),
        ("status --kubeconfig jobs.yaml", 2, "no usable kubeconfig"),
    ],
)
def test_what_goes_wrong_around_a_command_is_a_line(
    line: str, code: int | None, said: str, tmp_path: Path
) -> None:
    (tmp_path / "jobs.yaml").write_text(GOOD)
    job = "--query SELECT --database a/b --image c"
    program = f"{sys.executable} -m scannerjob"
    done = subprocess.run(
        ["bash", "-c", f"JOB='{job}'; {program} {line}"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert code in (None, done.returncode), done.stderr
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == bool(said)


@pytest.mark.parametrize(("output", "read"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_what_programs_read_is_whole_in_every_encoding(
    output: str, read: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii", write_through=True))

    emit(Output(output), {"key": "ä"}, list)

    assert read(printed.getvalue().decode()) == {"key": "ä"}


def test_a_document_of_init_is_valid(tmp_path: Path) -> None:
    file = tmp_path / "pages.yaml"
    asked = ["--query", "SELECT id FROM pdf", "--database", "app-db/url", "--image", "pages:1"]
    assert "preview --file" in _scannerjob("init", "pages", *asked, "--output", file).stdout
    assert "is valid" in _scannerjob("validate", file).stdout


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sta"], ["status"]),
        (["status", "--wa"], ["--watch"]),
        (["status", "--output", "j"], ["json"]),
    ],
)
def test_kubectl_is_told_how_a_word_goes_on(words: list[str], expected: list[str]) -> None:
    program = (
        f"import sys; sys.argv[1:] = {words!r}\n"
        "from scannerjob.cli.completion import complete_for_kubectl as c; c()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == [*expected, ":4"]


def test_completion_says_nothing_where_no_cluster_is(tmp_path: Path) -> None:
    program = (
        "import sys; sys.argv[1:] = ['status', '']\n"
        "from scannerjob.cli.completion import complete_for_kubectl as c; c()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none")},
    )
    assert (done.stdout.split(), done.stderr) == ([":4"], "")


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], set()),
        (["validate", "pages.yaml"], {"asyncio", "pydantic", "sqlalchemy", "yaml"}),
        (["status", "--kubeconfig", "none"], {"asyncio", "kubernetes", "pydantic", "yaml"}),
        (["status", "--state", "sqlite:///none.db"], {"asyncio", "pydantic", "sqlalchemy"}),
        (
            ["preview", "--file", "pages.yaml", "--database-url-file", "url"],
            {"asyncio", "pydantic", "sqlalchemy", "yaml"},
        ),
    ],
)
def test_a_command_imports_of_what_is_heavy_what_it_needs(
    arguments: list[str], needed: set[str], tmp_path: Path
) -> None:
    (tmp_path / "pages.yaml").write_text(GOOD)
    (tmp_path / "url").write_text("sqlite:///none.db")
    program = (
        f"import sys; sys.argv[1:] = {arguments!r}\n"
        "from scannerjob.cli import main\n"
        f"try: main()\nexcept SystemExit: print(*set(sys.modules) & set({HEAVY!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert set(done.stdout.splitlines()[-1].split()) <= needed


@pytest.mark.parametrize(
    ("missing", "arguments"),
    [("typer", ["--help"]), ("yaml", ["validate", "jobs.yaml"]), ("kopf", ["operator"])],
)
def test_without_the_extra_it_names_it(missing: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments!r}\n"
        "from scannerjob.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == f"{missing} is not installed: pip install 'scannerjob[operator]'\n"


def test_help_of_run_says_that_the_state_must_outlive_the_process() -> None:
    said = " ".join(_scannerjob("run", "--help").stdout.replace("│", " ").split())
    assert "must outlive the process: in a container, a file on a volume" in said


def test_version() -> None:
    assert _scannerjob("version").stdout.startswith("0.")


def test_validate_accepts(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(GOOD)
    done = _scannerjob("validate", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}:1: default/pdf-pages is valid\n"


def test_validate_names_each_problem_on_a_line_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(GOOD.replace("interval: 30s", "intervall: 30s").replace("task:", "tsk:"))
    done = _scannerjob("validate", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(done.stderr.splitlines()) == [
        f"{file}:10: spec.celery.tsk: unknown field; did you mean task?",
        f"{file}:7: spec.intervall: unknown field; did you mean interval?",
        f"{file}:8: spec.celery.task: required, but missing",
    ]


def test_run_starts_nothing_where_one_document_is_bad(tmp_path: Path, secrets: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(GOOD)
    bad.write_text(GOOD.replace("interval: 30s", "interval: 30"))
    done = _scannerjob("run", "-f", good, "-f", bad, "--secrets", secrets, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{bad}:7: spec.interval: must be a duration with a unit")
    assert not (tmp_path / "scannerjob-state.db").exists()


def test_run_refuses_kubernetes_jobs(tmp_path: Path, secrets: Path) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(GOOD.partition("  celery:")[0] + "  job: {template: {}}\n")
    done = _scannerjob("run", "-f", file, "--secrets", secrets)
    assert done.returncode == 2
    assert "spec.job: Kubernetes Jobs are launched by the operator only" in done.stderr


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense-hunter2", "cannot be read"),
        ("oracle://scott:hunter2@db.example/app", "must begin with postgresql://"),
        ("sqlite://", "expected sqlite:///PATH"),
        ("sqlite:////no/such/hunter/state.db", "its directory does not exist"),
    ],
)
def test_run_refuses_a_state_that_cannot_be_used(
    tmp_path: Path, secrets: Path, url: str, expected: str
) -> None:
    file = tmp_path / "jobs.yaml"
    file.write_text(GOOD)
    done = _scannerjob("run", "-f", file, "--secrets", secrets, "--state", url)
    assert done.returncode == 2
    assert done.stderr.startswith("--state: ")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-f", "jobs.yaml", "--secrets", "missing"],
        ["run", "-f", "jobs.yaml", "--secrets", ".", "--namespace", "Not_A_Namespace"],
        ["run", "--secrets", "."],
        ["run", "--fil", "jobs.yaml"],
        ["rnu"],
        ["validate"],
        ["demo", "--output", "xml"],
    ],
)
def test_a_mistake_in_the_arguments_is_no_traceback(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "jobs.yaml").write_text(GOOD)
    done = _scannerjob(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_demo_keeps_nothing_in_a_directory_that_is_in_use(tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    done = _scannerjob("demo", "--keep", tmp_path)
    assert done.returncode == 2
    assert str(tmp_path) in done.stderr
    assert "Traceback" not in done.stderr
