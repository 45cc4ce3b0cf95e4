"""The examples, each run by the commands of its own README."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.processes import Process
from tests.support.readme import commands
from tests.support.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
ALONE, WORKER_DIES = "Without a cluster", "When a worker dies"
# What stays in the terminal where it was typed, and what it says when it is at work.
LASTING = {"celery": " ready.", "scannerjob run": ": scanning"}


class Example:
    """A copy of an example, and the terminals in which its README is followed.

    `servers` are the URLs that the README names, and those that are there instead.
    """

    def __init__(self, name: str, folder: Path, servers: Mapping[str, str]) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder)
        self.readme = self.folder / "README.md"
        self._servers = servers
        self._exports: list[str] = []
        self._processes: list[Process] = []
        self._open = ExitStack()

    def follow(self, section: str) -> str:
        """Type all commands of a section; gives what those that ended have printed."""
        return "".join(self._type(command) for command in commands(self.readme, section))

    def show(self) -> str:
        """What the README's last look prints."""
        return self._type(commands(self.readme, ALONE)[-1])

    def log(self, program: str) -> str:
        """All that the processes of one of the lasting programs have written."""
        logs = [each.log() for each in self._processes if each.log_file.stem.startswith(program)]
        return "".join(logs)

    def close(self) -> None:
        """Close all terminals."""
        self._open.close()

    def _type(self, command: str) -> str:
        for theirs, ours in self._servers.items():
            command = command.replace(theirs, ours)
        if command.startswith("pip install "):
            return ""  # the tests' own environment has it
        if command.startswith("export "):
            self._exports.append(command)
            return ""
        lasting = next((each for each in LASTING if command.startswith(each)), None)
        return self._start(command, lasting) if lasting else self._run(command)

    def _run(self, command: str) -> str:
        done = subprocess.run(
            self._in_bash(command),
            check=False,
            cwd=self.folder,
            env=self._env(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout}"
        return done.stdout

    def _start(self, command: str, program: str) -> str:
        name = f"{program.replace(' ', '-')}-{len(self._processes)}"
        # As in a terminal, what is typed leads a group of processes of its own.
        line, log = self._in_bash(f"exec {command}"), self.folder / f"{name}.log"
        process = Process(line, log=log, cwd=self.folder, env=self._env())
        self._processes.append(self._open.enter_context(process))
        eventually(
            lambda: LASTING[program] in process.log(), timeout=120, message=f"{command} is at work"
        )
        return ""

    def _in_bash(self, command: str) -> list[str]:
        return ["bash", "-e", "-c", "\n".join([*self._exports, command])]

    def _env(self) -> dict[str, str]:
        programs = Path(sys.executable).parent
        return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


@pytest.fixture
def plain(tmp_path: Path, redis_url: str) -> Iterator[Example]:
    """The plain example on SQLite, as its README has it."""
    example = Example("celery", tmp_path, {"redis://localhost:6379/0": redis_url})
    yield example
    example.close()


@pytest.fixture
def plain_on_postgresql(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Example]:
    """The plain example on PostgreSQL, as it is in a cluster."""
    servers = {
        "sqlite:///$PWD/pdfs.sqlite": postgres_url,
        "redis://localhost:6379/0": redis_url,
    }
    example = Example("celery", tmp_path, servers)
    yield example
    example.close()


@pytest.fixture
def django(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Example]:
    """The Django example."""
    servers = {
        "postgresql://docs:docs@localhost/docs": postgres_url,
        "redis://localhost:6379/0": redis_url,
    }
    example = Example("django", tmp_path, servers)
    yield example
    example.close()


def _eventually_done(example: Example, rows: int) -> None:
    done = f"{rows} of {rows} PDFs have their pages"
    eventually(lambda: done in example.show(), timeout=200, message=done, interval=1)


def _finished(example: Example) -> list[int]:
    """The PDF of each execution that came to its end."""
    return sorted(map(int, re.findall(r"succeeded in .*: 'PDF (\d+) has", example.log("celery"))))


def _received(example: Example) -> set[str]:
    """The ids of all tasks that reached a worker."""
    return set(re.findall(r"Task \S+\[(\S+)\] received", example.log("celery")))


ALL = pytest.mark.parametrize("name", ["plain", "plain_on_postgresql", "django"])


@ALL
@pytest.mark.timeout(400)
def test_every_pdf_is_done_once(name: str, request: pytest.FixtureRequest) -> None:
    example: Example = request.getfixturevalue(name)
    printed = example.follow(ALONE)
    assert "0 of 20 PDFs have their pages" in printed
    _eventually_done(example, 30)
    assert _finished(example) == list(range(1, 31))
    assert len(_received(example)) == 30
    assert " raised " not in example.log("celery")
