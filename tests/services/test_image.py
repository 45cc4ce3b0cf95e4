"""The Dockerfile's own steps, carried out here: there is no need of a container to try them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.image import REPOSITORY, build, size_of, stages

# All that the image holds is installed anew.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        # Half of the work is compiling. A flag that negates is given to pip by the opposite value.
        patched.setenv("PIP_NO_COMPILE", "0")
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
    assert size_of(home) < 200 * 2**20, "without bytecode"


def test_what_builds_its_wheel_is_pinned_as_well(home: Path) -> None:
    pins = dict(
        re.findall(r"^([\w.-]+)==(\S+)$", (REPOSITORY / "constraints.txt").read_text(), re.M)
    )
    (wheel,) = home.glob("lib/python*/site-packages/scannerjob-*.dist-info/WHEEL")
    (step,) = (argument for name, argument in stages()[0] if name == "RUN")

    assert {"hatchling", "packaging", "pathspec", "pluggy", "trove-classifiers"} <= pins.keys()
    assert f"Generator: hatchling {pins['hatchling']}\n" in wheel.read_text()
    # The pip of this machine heeds but one of them.
    both = {"PIP_CONSTRAINT=constraints.txt", "PIP_BUILD_CONSTRAINT=constraints.txt"}
    assert both <= set(step.partition("python -m pip")[0].split())


def test_of_its_base_nothing_is_left_that_installs() -> None:
    names = [name for name, _ in stages()[-1]]
    steps = [argument for name, argument in stages()[-1] if name == "RUN"]
    uninstalls, removes = (command.strip() for command in steps[0].split("&&"))

    assert uninstalls.startswith("python -m pip uninstall --yes")
    assert uninstalls.endswith(" pip setuptools wheel")
    assert removes == "rm -rf /usr/local/lib/python3*/ensurepip"
    # While `python` is still the base's own, and nobody has lost the right to.
    assert names.index("RUN") < min(names.index("ENV"), names.index("USER"))


def test_it_does_not_run_as_root_and_names_its_user_by_number() -> None:
    (user,) = (argument for name, argument in stages()[-1] if name == "USER")

    assert user.split(":") == ["65532", "65532"]


def test_its_base_is_pinned_by_its_digest() -> None:
    text = (REPOSITORY / "Dockerfile").read_text()

    assert re.search(r"^ARG PYTHON=python:3\.\d+\.\d+-slim\S*@sha256:[0-9a-f]{64}$", text, re.M)
    assert re.findall(r"^FROM (\S+)", text, re.M) == ["${PYTHON}", "${PYTHON}"]
