"""The Dockerfile's own steps, carried out here: there is no need of a container to try them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HOME = "/opt/scannerjob"
Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of each stage of the build, by name and argument."""
    text = (REPOSITORY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines()]
    instructions = [line.partition(" ") for line in lines if line and not line.startswith("#")]
    found: list[list[Instruction]] = []
    for name, _, argument in instructions:
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, argument))
    return found


def carry_out(stage: list[Instruction], source: Path, home: Path) -> None:
    """Copy what a stage copies and run what it runs, with `home` in place of HOME."""
    for name, argument in stage:
        if name == "COPY":
            *files, target = argument.split()
            for file in files:
                copy(REPOSITORY / file, source / target / ("" if target != file else "."))
        elif name == "RUN":
            command = argument.replace(HOME, str(home)).replace("python -m", f"{sys.executable} -m")
            subprocess.run(command, shell=True, check=True, cwd=source)


def copy(file: Path, target: Path) -> None:
    if file.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(file, target, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy(file, target)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    (folder / "source").mkdir()
    carry_out(stages()[0], folder / "source", folder / "home")
    return folder / "home"


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
    size = sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
    print(f"what the image adds to its base: {size / 2**20:.0f} MiB")
    assert size < 400 * 2**20


def test_it_does_not_run_as_root_and_names_its_user_by_number() -> None:
    (user,) = (argument for name, argument in stages()[-1] if name == "USER")

    assert user.split(":") == ["65532", "65532"]
