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

from scannerjob.worker.records import State
from scannerjob.worker.stores import open_store
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
        self._started: dict[str, list[Process]] = {program: [] for program in LASTING}
        self._open = ExitStack()

    def follow(self, section: str, but: str | None = None) -> str:
        """Type all commands of a section; gives what those that ended have printed.

        With `but`, those that begin like this are left out.
        """
        typed = [
            each for each in commands(self.readme, section) if not (but and each.startswith(but))
        ]
        return "".join(map(self._type, typed))

    def show(self) -> str:
        """What the README's last look prints."""
        return self._type(commands(self.readme, ALONE)[-1])

    def process(self, program: str) -> Process:
        """The process of one of the lasting programs that was started last."""
        return self._started[program][-1]

    def log(self, program: str) -> str:
        """All that the processes of one of the lasting programs have written."""
        return "".join(process.log() for process in self._started[program])

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
        if command.startswith("kill "):
            printed = self._run(command)
            self.process("celery").wait()  # as its terminal does, before another one is typed
            return printed
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
        started = self._started[program]
        log = self.folder / f"{program}-{len(started)}.log"
        # As in a terminal, what is typed leads a group of processes of its own.
        line = self._in_bash(f"exec {command}")
        process = Process(line, log=log, cwd=self.folder, env=self._env())
        started.append(self._open.enter_context(process))
        eventually(lambda: _is_at_work(process, program), timeout=120, message=command)
        return ""

    def _in_bash(self, command: str) -> list[str]:
        return ["bash", "-e", "-c", "\n".join([*self._exports, command])]

    def _env(self) -> dict[str, str]:
        programs = Path(sys.executable).parent
        return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}


def _is_at_work(process: Process, program: str) -> bool:
    if not process.running:
        raise RuntimeError(f"{program} ended while starting:\n{process.log()[-4000:]}")
    return LASTING[program] in process.log()


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


def _is_frozen_at_work(example: Example, guard_url: str) -> bool:
    """Whether both processes of its worker execute a launch; it is frozen then, else goes on."""
    worker = example.process("celery")
    worker.pause()
    store = open_store(guard_url)
    records = store.read(sorted(_received(example))).records.values()
    store.close()
    if sum(record.state is State.RUNNING for record in records) == 2:
        return True
    worker.resume()
    return False


ALL = pytest.mark.parametrize("name", ["plain", "plain_on_postgresql", "django"])


@ALL
@pytest.mark.timeout(400)
def test_every_pdf_is_done_once(name: str, request: pytest.FixtureRequest) -> None:
    example: Example = request.getfixturevalue(name)
    assert "0 of 20 PDFs have their pages" in example.follow(ALONE)
    _eventually_done(example, 30)
    assert _finished(example) == list(range(1, 31))
    assert len(_received(example)) == 30
    assert " raised " not in example.log("celery")


@ALL
@pytest.mark.timeout(400)
def test_what_a_killed_worker_was_at_is_done_again(
    name: str, request: pytest.FixtureRequest, redis_url: str
) -> None:
    example: Example = request.getfixturevalue(name)
    example.follow(ALONE)
    eventually(lambda: _is_frozen_at_work(example, redis_url), timeout=120)
    example.follow(WORKER_DIES)
    _eventually_done(example, 30)
    assert _finished(example) == list(range(1, 31))
    assert len(_received(example)) == 32
    assert " raised " not in example.log("celery")


@pytest.mark.timeout(400)
def test_what_a_dead_container_was_at_is_done_again(plain: Example, redis_url: str) -> None:
    plain.follow(ALONE)
    eventually(lambda: _is_frozen_at_work(plain, redis_url), timeout=120)
    plain.process("celery").kill()  # with all its descendants, so that nobody can tell
    plain.follow(WORKER_DIES, but="kill ")
    _eventually_done(plain, 30)
    assert _finished(plain) == list(range(1, 31))
    assert len(_received(plain)) == 32
