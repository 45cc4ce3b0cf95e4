from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest

from scannerjob import logs

CANARY = "c4n4ry/7f3a91"
URL = "postgresql://app:c4n4ry%2F7f3a91@db/app"


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_hidden", {})
    logs.hide("docs/pages", URL)


def _logged(error: Exception) -> str:
    try:
        raise error
    except ValueError:
        told = sys.exc_info()
    record = logs._Record("x", logging.ERROR, "here.py", 1, "a bug", (), told)
    return logging.Formatter().format(record)


@pytest.mark.usefixtures("hidden")
def test_a_traceback_shows_no_password_of_a_url_in_use() -> None:
    said = _logged(ValueError(f"bad URL {URL}, password {CANARY!r}"))
    assert said.endswith("ValueError: bad URL postgresql://app:***@db/app, password '***'")
    assert "test_logs.py" in said


@pytest.mark.usefixtures("hidden")
def test_urls_replace_those_of_the_same_user() -> None:
    logs.hide("docs/pages", "postgresql://app:other7f3a91@db/app")
    assert _logged(ValueError(f"{CANARY} other7f3a91")).endswith(f"{CANARY} ***")


@pytest.mark.parametrize(("name", "told"), [("kopf.reactor", False), ("scannerjob", True)])
def test_what_kopf_says_of_its_own_ends_is_left_out(name: str, told: bool) -> None:
    """It comes with a traceback for the task that failed and for each that is around it."""

    def guard() -> logging.LogRecord:
        return logging.getLogger(name).makeRecord(
            name, logging.ERROR, "aiotasks.py", 1, "has failed", (), None, func="guard"
        )

    assert logs._is_news(guard()) is told


@pytest.mark.parametrize(
    ("name", "told"), [("sqlalchemy.pool.impl.QueuePool", False), ("scannerjob", True)]
)
def test_what_sqlalchemy_says_of_a_broken_connection_is_left_out(name: str, told: bool) -> None:
    try:
        raise ConnectionError("server closed the connection unexpectedly")
    except ConnectionError:
        broken = logs._Record(
            name, logging.ERROR, "base.py", 1, "Error closing cursor", (), sys.exc_info()
        )
    leaked = logs._Record(name, logging.ERROR, "base.py", 1, "non-checked-in", (), None)

    assert logs._is_news(broken) is told
    assert logs._is_news(leaked)


_ENDS = f"""
import threading
from scannerjob.logs import hide, set_up_logging

set_up_logging()
hide("docs/pages", {URL!r})

def fail():
    raise ValueError({CANARY!r})

thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


def test_what_nobody_catches_is_logged_without_a_password() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", _ENDS],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": "operator"},
    )
    assert ended.returncode == 1
    assert "CRITICAL a bug has ended a thread" in ended.stderr
    assert "CRITICAL a bug has ended this process" in ended.stderr
    assert ended.stderr.count("ValueError: ***\n") == 2
