"""Runs the tiers of tests against a copy of the repository, with a bug in it or without."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.planted.bug import Bug
from tests.planted.origin import COPY, VERDICT
from tests.planted.tiers import Tier

REPOSITORY = Path(__file__).parents[2]
# What a run of pytest that was no run of its tests ends with is none of these.
_PASSED, _FAILED = 0, 1


class TrialError(Exception):
    """The tests could not be run, so that nothing is known."""


@dataclass(frozen=True, slots=True)
class Catch:
    """The first test that failed, in which tier, and what it said."""

    tier: str
    test: str
    said: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the tiers told of one bug (None: of the code without any), after how many seconds."""

    bug: Bug | None
    catch: Catch | None
    seconds: float


def try_out(bug: Bug | None, tiers: Sequence[Tier], seed: int) -> Outcome:
    """Run the tiers until one notices. Raises TrialError where one cannot be run to its end."""
    began = time.monotonic()
    with copied(bug) as copy:
        seeing = [tier for tier in tiers if bug is None or tier.runs(bug.file)]
        catches = (_run(tier, copy, seed) for tier in seeing)
        catch = next((each for each in catches if each), None)
    return Outcome(bug, catch, time.monotonic() - began)


@contextmanager
def copied(bug: Bug | None) -> Iterator[Path]:
    """A copy of the repository with this bug in it, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="planted-") as folder:
        copy = Path(folder).resolve() / "repository"
        hidden = shutil.ignore_patterns(".*", "__pycache__")
        shutil.copytree(REPOSITORY, copy, ignore=hidden, symlinks=True)
        if bug:
            bug.plant(copy / "operator" / "scannerjob")
        yield copy


def _run(tier: Tier, copy: Path, seed: int) -> Catch | None:
    options = ["--exitfirst", "--quiet", "-p", "tests.planted.origin", f"--hypothesis-seed={seed}"]
    command = [sys.executable, "-m", "pytest", *options, *tier.arguments]
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=environment(copy) | _depth(tier),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        told, _ = process.communicate(timeout=tier.within)
    except subprocess.TimeoutExpired:
        raise TrialError(f"{tier.name}: not done within {tier.within:g} s") from None
    finally:
        _end(process)
    if process.returncode not in (_PASSED, _FAILED):
        raise TrialError(f"{tier.name}: pytest ended with {process.returncode}:\n{told}")
    return _caught(tier, copy) if process.returncode == _FAILED else None


def environment(copy: Path) -> dict[str, str]:
    """That of processes which import the copy, and of all that they start."""
    return {**os.environ, "PYTHONPATH": str(copy / "operator"), COPY: str(copy)}


def _depth(tier: Tier) -> dict[str, str]:
    return {} if tier.steps is None else {"SCANNERJOB_PROVE_STEPS": str(tier.steps)}


def _end(process: subprocess.Popen[str]) -> None:
    """Interrupt it, so that it takes its servers along."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


def _caught(tier: Tier, copy: Path) -> Catch:
    verdict = json.loads((copy / VERDICT).read_text())
    return Catch(tier.name, verdict["test"], verdict["said"])
