"""The image without a container: the Dockerfile's own steps, carried out in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

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
            env = {**os.environ, "PIP_QUIET": "1"}
            subprocess.run(command, shell=True, check=True, cwd=source, env=env)


def copy(file: Path, target: Path) -> None:
    if file.is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(file, target, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy(file, target)


def build(folder: Path) -> Path:
    """What the last stage copies from the first one, made in this folder.

    The steps of the last stage are never carried out here: they change the machine itself.
    """
    (folder / "source").mkdir()
    carry_out(stages()[0], folder / "source", folder / "home")
    return folder / "home"


def size_of(home: Path) -> int:
    """In bytes, what the image adds to its base."""
    return sum(file.stat().st_size for file in home.rglob("*") if file.is_file())
