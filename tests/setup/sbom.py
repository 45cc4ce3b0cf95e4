"""Writes the software bill of materials of what the Dockerfile installs, as CycloneDX JSON.

    python tests/setup/sbom.py dist/sbom.json

It tells of the packages in this virtual environment, which were installed from the same pins, but
leaves out what only the tests need: cyclonedx-py is shown an environment with no others in it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
INSTALLED = "scannerjob[operator,postgresql,mysql]"


def main() -> None:
    """Write it to the path that is named, with all options for cyclonedx-py that follow."""
    output, *options = sys.argv[1:]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        python = _environment(Path(folder))
        command = [str(Path(sys.executable).with_name("cyclonedx-py")), "environment", str(python)]
        described = ["--pyproject", str(PROJECT / "pyproject.toml"), "--output-reproducible"]
        subprocess.run([*command, *described, "--output-file", output, *options], check=True)
    print(f"{output} is written")


def _environment(folder: Path) -> Path:
    """A virtual environment that has the metadata of what is installed, and nothing else."""
    venv.create(folder, symlinks=True)
    packages = next(folder.glob("lib/python*/site-packages"))
    for found in _needed(Requirement(INSTALLED), set()):
        metadata = Path(str(found.locate_file(""))) / _metadata_folder(found)
        (packages / metadata.name).symlink_to(metadata)
    return folder / "bin" / "python"


def _needed(requirement: Requirement, seen: set[tuple[str, str]]) -> Iterator[Distribution]:
    """The distributions that it needs, itself left out where it is this project."""
    found = distribution(requirement.name)
    name = canonicalize_name(requirement.name)
    if name != "scannerjob" and not any(each == name for each, _ in seen):
        yield found
    new = {(name, extra) for extra in ("", *requirement.extras)} - seen
    seen |= new
    for text in found.requires or () if new else ():
        needed = Requirement(text)
        wanted = any(_applies(needed, extra) for _, extra in new)
        if wanted:
            yield from _needed(needed, seen)


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _metadata_folder(found: Distribution) -> str:
    return next(
        str(file.parent) for file in found.files or () if file.parent.name.endswith(".dist-info")
    )


if __name__ == "__main__":
    main()
