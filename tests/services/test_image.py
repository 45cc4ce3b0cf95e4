"""The Dockerfile's own steps, carried out here: there is no need of a container to try them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.image import REPOSITORY, build, size_of, stages


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("image"))


def test_its_program_runs_and_finds_all_that_it_needs(home: Path) -> None:
    def said(*arguments: str) -> str:
        command = [str(home / "bin" / "scannerjob"), *arguments]
        env = {"PATH": "/usr/bin:/bin"}
        return subprocess.run(
            command, check=True, capture_output=True, text=True, env=env, cwd=home
        ).stdout

    assert "operator" in said("--help")
    assert said("version").strip()
    python = home / "bin" / "python"
    modules = "kopf, celery, psycopg, pymysql, redis, scannerjob.controller"
    subprocess.run([python, "-c", f"import {modules}"], check=True, cwd=home)


def test_it_can_install_nothing_and_holds_no_tests(home: Path) -> None:
    programs = {file.name for file in (home / "bin").iterdir()}
    (packages,) = home.glob("lib/python*/site-packages")
    names = {file.name for file in packages.iterdir()}

    assert not {name for name in programs if name.startswith(("pip", "gcc", "pytest", "mypy"))}
    assert not names & {"pip", "pytest", "mypy", "hypothesis", "tests"}
    assert size_of(home) < 300 * 2**20


def test_it_does_not_run_as_root_and_names_its_user_by_number() -> None:
    (user,) = (argument for name, argument in stages()[-1] if name == "USER")

    assert user.split(":") == ["65532", "65532"]


def test_its_base_is_pinned_by_its_digest() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()

    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim\S*@sha256:[0-9a-f]{64}$", text, re.M)
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["${PYTHON}", "${PYTHON}"]
