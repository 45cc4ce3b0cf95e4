"""The examples, each run by the commands of its own README."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from scannerjob.worker.records import State
from scannerjob.worker.stores import open_store
from tests.support.processes import Process
from tests.support.readme import commands
from tests.support.waiting import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
ALONE, WORKER_DIES, IN_A_CLUSTER = "Without a cluster", "When a worker dies", "In a cluster"
# What stays in the terminal where it was typed, and what it says when it is at work.
LASTING = {"celery": " ready.", "scannerjob run": ": scanning"}


class Example:
    """A copy of an example, and the terminals in which its README is followed.

    `servers` are the URLs that the README names, and those that are there instead.
    """

    def __init__(self, name: str, folder: Path, servers: Mapping[str, str]) -> None:
        self.folder = folder / name
        shutil.copytree(EXAMPLES / name, self.folder)
        self._readme = self.folder / "README.md"
        self._servers = servers
        self._exports: list[str] = []
        self._started: dict[str, list[Process]] = {program: [] for program in LASTING}
        self._open = ExitStack()

    def commands(self, section: str) -> list[str]:
        """Those of a section, with the servers that are there."""
        return [self._with_our_servers(each) for each in commands(self._readme, section)]

    def follow(self, section: str, *, but: tuple[str, ...] = ()) -> str:
        """Type all commands of a section; gives what those that ended have printed.

        Those that begin like one of `but` are left out.
        """
        typed = [each for each in self.commands(section) if not each.startswith(but)]
        return "".join(map(self._type, typed))

    def show(self) -> str:
        """What the README's last look prints."""
        return self._type(self.commands(ALONE)[-1])

    def wait_done(self, rows: int) -> None:
        """Return when so many PDFs, which are all, have their pages."""
        done = f"{rows} of {rows} PDFs have their pages"
        eventually(lambda: done in self.show(), timeout=200, message=done, interval=1)

    def finished(self) -> list[int]:
        """The PDF of each execution that came to its end."""
        return sorted(map(int, re.findall(r"succeeded in .*: 'PDF (\d+) has", self.log("celery"))))

    def received(self) -> set[str]:
        """The ids of all tasks that reached a worker."""
        return set(re.findall(r"Task \S+\[(\S+)\] received", self.log("celery")))

    def freeze_at_work(self, guard_url: str) -> bool:
        """Freeze the worker if both of its processes are in the middle of a launch."""
        worker = self.process("celery")
        worker.pause()
        at_work = False
        try:
            at_work = self._running(guard_url) == 2 and self._has_told_of_all()
        finally:
            if not at_work:
                worker.resume()
        return at_work

    def process(self, program: str) -> Process:
        """The process of one of the lasting programs that was started last."""
        return self._started[program][-1]

    def log(self, program: str) -> str:
        """All that the processes of one of the lasting programs have written."""
        return "".join(process.log() for process in self._started[program])

    def close(self) -> None:
        """Close all terminals."""
        self._open.close()

    def _running(self, guard_url: str) -> int:
        store = open_store(guard_url)
        records = store.read(sorted(self.received())).records.values()
        store.close()
        return sum(record.state is State.RUNNING for record in records)

    def _has_told_of_all(self) -> bool:
        """Whether nothing was committed that its log does not tell of yet."""
        return self.show().startswith(f"{len(self.finished())} of ")

    def _with_our_servers(self, command: str) -> str:
        for theirs, ours in self._servers.items():
            command = command.replace(theirs, ours)
        return command

    def _type(self, command: str) -> str:
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
