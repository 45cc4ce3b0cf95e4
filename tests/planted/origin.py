"""A plugin for pytest: the run tests the copy that it is meant for, and tells what failed first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, settings

# The copy's folder, and the file in it that says what failed.
COPY, VERDICT = "SCANNERJOB_PLANTED_COPY", "first-failure.json"
_WHERE = "import scannerjob; print(scannerjob.__file__)"


def pytest_configure() -> None:
    """Make sure of what is imported, here and in processes that tests start.

    What a walk of a model has found need not be made short.
    """
    for found in _imported():
        if not found.is_relative_to(_copy()):
            raise pytest.UsageError(f"{found} is imported, which is not of the copy {_copy()}")
    settings.register_profile("planted", phases=[Phase.explicit, Phase.generate], database=None)
    settings.load_profile("planted")


def _imported() -> Iterator[Path]:
    import scannerjob

    yield Path(str(scannerjob.__file__))
    command = [sys.executable, "-c", _WHERE]
    yield Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def _copy() -> Path:
    return Path(os.environ[COPY])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Write down the first failure."""
    verdict = _copy() / VERDICT
    if report.failed and not verdict.exists():
        verdict.write_text(json.dumps({"test": report.nodeid, "said": _said(report)}))


def _said(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash else report.longrepr).strip().split("\n")[0]
