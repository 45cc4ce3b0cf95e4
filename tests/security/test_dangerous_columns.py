"""Columns whose names would let a row's value decide what a program does: refused, by name."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from scannerjob.model.environment import column_problems, variable
from tests.support.sources import execute, failure
from tests.unit.job_cases import template


def shell_file(folder: Path, owned: Path) -> str:
    file = folder / "evil.sh"
    file.write_text(f"touch {owned}\n")
    return str(file)


def site_folder(folder: Path, owned: Path) -> str:
    (folder / "sitecustomize.py").write_text(f"open({str(owned)!r}, 'w')\n")
    return str(folder)


def program_folder(folder: Path, owned: Path) -> str:
    program = folder / "date"
    program.write_text(f"#!/bin/sh\n: > {owned}\n")
    program.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize(
    ("column", "value", "program"),
    [
        ("bash_env", shell_file, ["bash", "-c", "true"]),
        ("path", program_folder, ["sh", "-c", "date"]),
        ("pythonpath", site_folder, ["python3", "-c", "pass"]),
    ],
)
def test_a_value_that_would_be_run_never_becomes_a_variable(
    tmp_path: Path, column: str, value: Callable[[Path, Path], str], program: list[str]
) -> None:
    owned = tmp_path / "owned"
    environment = {"PATH": os.defpath, variable(column): value(tmp_path, owned)}
    subprocess.run(
        [shutil.which(program[0]) or program[0], *program[1:]], env=environment, check=True
    )
    assert owned.exists(), "it would be run"

    (problem,) = column_problems(["id", column], template())

    assert repr(column) in problem
    assert "a reserved one" in problem


@pytest.mark.parametrize(
    "column",
    [
        *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GLIBC_TUNABLES", "GCONV_PATH"),
        *("KUBERNETES_SERVICE_HOST", "KUBERNETES_PORT", "SCANNERJOB_KEY", "HOSTNAME"),
        *("HOME", "IFS", "SHELLOPTS", "BASHOPTS", "PROMPT_COMMAND", "PS4"),
        *("NODE_OPTIONS", "NODE_PATH", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH"),
        *("PERL5OPT", "PERL5LIB", "PERL5DB", "RUBYOPT", "RUBYLIB", "PYTHONSTARTUP", "PYTHONHOME"),
        *("OPENSSL_CONF", "SSL_CERT_FILE", "HTTPS_PROXY", "all_proxy", "GIT_SSH_COMMAND"),
    ],
)
def test_variables_that_programs_obey_are_reserved(column: str) -> None:
    assert any("a reserved one" in problem for problem in column_problems([column], template()))


@pytest.fixture
def sqlite(sqlite_url: str) -> str:
    """A database which names columns as it is told."""
    execute(sqlite_url, "CREATE TABLE t (x)")
    return sqlite_url


@pytest.mark.parametrize(
    "name", ["a=b", "a\nb", "a b", "a-b", "1a", "", "$(x)", "\u202ea", "a\x1b"]
)
def test_a_name_that_is_none_is_refused_before_any_row_is_used(sqlite: str, name: str) -> None:
    query = f'SELECT 1 AS id, 2 AS "{name}"'

    refused = failure(sqlite, query)

    assert refused.reason == "InvalidColumn"
    assert repr(name) in str(refused)


def test_a_name_given_twice_is_refused(sqlite: str) -> None:
    assert failure(sqlite, "SELECT 1 AS id, 2 AS x, 3 AS x").reason == "InvalidColumn"
