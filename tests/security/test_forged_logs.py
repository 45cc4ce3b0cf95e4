"""What others write into errors, keys and results begins no line of a log and moves no cursor."""

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from scannerjob.logs import _OneLine, scrub_tracebacks
from scannerjob.model.conditions import Condition, stamped
from scannerjob.model.printable import printable
from scannerjob.targets.celery.failures import failed
from tests.support.site import Site
from tests.support.waiting import eventually

_LINE = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ (DEBUG|INFO|WARNING|ERROR|CRITICAL) "
FORGED = "2026-01-01T00:00:00Z INFO default/pages: launched 9"
EVIL = [
    f"x\n{FORGED}",
    f"x\r{FORGED}",
    f"x\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029{FORGED}",
    "\x1b[2J\x1b]0;title\x07",
    "\x9b31m\x90payload\x9c\x7f\x08\x08",
    "\u202eevil\u202c\u2066\u2069\u200b\u200f\ufeff",
    "\ud800 \udfff",
    "\x00",
]


def assert_fit_to_be_shown(said: str) -> None:
    assert said.isprintable(), [each for each in said if not each.isprintable()]


@pytest.mark.parametrize("evil", EVIL)
def test_a_message_is_one_line_without_control_characters(evil: str) -> None:
    record = logging.makeLogRecord({"msg": "row %s: failed", "args": (evil,)})

    assert_fit_to_be_shown(_OneLine("%(message)s").format(record))


@pytest.fixture
def scrubbed() -> Iterator[None]:
    """Logging as an operator sets it up."""
    before = logging.getLogRecordFactory()
    scrub_tracebacks()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.usefixtures("scrubbed")
@pytest.mark.parametrize("evil", EVIL)
def test_a_traceback_forges_no_line(evil: str) -> None:
    try:
        raise ValueError(evil)
    except ValueError:
        told = (logging.ERROR, __file__, 1, "a bug", (), sys.exc_info())
        record = logging.getLogger().makeRecord("scannerjob", *told)

    first, *others = _OneLine("%(message)s").format(record).split("\n")

    assert first == "a bug"
    assert all(each.startswith("  ") for each in others)
    for line in others:
        assert_fit_to_be_shown(line)


@pytest.mark.parametrize("evil", EVIL)
def test_a_condition_is_one_line_without_control_characters(evil: str) -> None:
    said = Condition("Ready", "False", "QueryFailed", evil)

    (condition,) = stamped([said], [], 1, datetime.now(UTC))

    assert_fit_to_be_shown(condition["message"])


@pytest.mark.parametrize("evil", EVIL)
def test_why_a_task_failed_is_one_line_without_control_characters(evil: str) -> None:
    assert_fit_to_be_shown(failed(evil).reason or "")


@pytest.mark.parametrize("said", ["a plain text", "Grüße 🐘", "日本語", 'it\'s \\ "quoted"'])
def test_what_can_be_read_stays_as_it_is(said: str) -> None:
    assert printable(said) == said


@pytest.mark.timeout(300)
def test_the_log_of_a_process_has_no_line_of_anybody_elses(
    tmp_path: Path, postgres_url: str, redis_url: str
) -> None:
    with closing(Site(tmp_path, postgres_url)) as site:
        site.put_secret("app-broker", redis_url)
        # In an error of the database's, and in the key of a row that is too large to be sent.
        evil = f"U&'\\001b[2J\\009b31m\\202e\\0085\\000d{FORGED}\\000a{FORGED}'"
        wrong = site.scanner_job("wrong", query=f"SELECT CAST({evil} AS integer) AS pdf_id")
        large = site.scanner_job("large", query=f"SELECT {evil} AS pdf_id, repeat('x', 70000) AS v")
        with site.scanner(wrong, large):
            failing = eventually(partial(told, site, "wrong", "QueryFailed"), timeout=60)
            held_back = eventually(partial(told, site, "large", "RowsHeldBack"), timeout=60)

        assert "\\x1b[2J\\x9b31m" in failing
        assert "\\x9b31m" in held_back
        for said in (failing, held_back):
            assert_fit_to_be_shown(said)
        lines = site.logs().split("\n")[:-1]
        assert any("QueryFailed" in line for line in lines)
        for line in lines:
            assert re.match(_LINE, line), line
            assert not line.startswith(FORGED)
            assert_fit_to_be_shown(line)


def told(site: Site, name: str, reason: str) -> str:
    """The message of `Ready`, once it is there for this reason."""
    ready: Any = site.condition("Ready", name)
    return str(ready["message"]) if ready.get("reason") == reason else ""
