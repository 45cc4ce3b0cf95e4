"""The commands beside `scannerjob run`: what they show, what they change, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command import Command
from tests.support.site import Site
from tests.support.waiting import eventually

# Each command is a process, and a busy machine takes seconds to start one.
pytestmark = pytest.mark.timeout(300)

# Fails for the rows that a file names.
_TASKS = """\
import os, time
from pathlib import Path
from celery import Celery
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

app = Celery("site", broker=os.environ["BROKER"], backend=os.environ["RESULTS"])
engine = create_engine(os.environ["DATABASE"], poolclass=NullPool)

@app.task(name="site.work")
def work(pdf_id):
    if str(pdf_id) in Path(os.environ["BAD"]).read_text().split():
        raise ValueError(f"page {pdf_id} is torn \\x1b[31m redis://:canary-7f3a91@redis/0")
    time.sleep(float(os.environ["WORK"]))
    with engine.begin() as connection:
        connection.execute(text("UPDATE pdf SET done = 1 WHERE id = :id"), {"id": pdf_id})
"""


class Desk:
    """A site, and the person who types commands beside it."""

    def __init__(self, folder: Path, postgres_url: str, redis_url: str) -> None:
        self.site = Site(folder, postgres_url, tasks=_TASKS)
        self.site.put_secret("app-broker", redis_url)
        self.site.put_secret("app-results", redis_url)
        self.command = Command("--state", self.site.state)
        self.bad = folder / "bad"
        self.bad.write_text("")
        self._redis_url = redis_url

    def scanner(self, **changes: Any) -> Any:
        results = {"urlSecretRef": {"name": "app-results", "key": "url"}}
        return self.site.scanner(self.site.scanner_job(celery__resultBackend=results, **changes))

    def worker(self, work: float = 0.1) -> Any:
        env = {"BAD": str(self.bad)}
        return self.site.worker(self._redis_url, results=self._redis_url, work=work, env=env)

    def status(self) -> Any:
        return self.command.data("status", "pages")

    def wait(self, **fields: Any) -> None:
        def come() -> bool:
            if not Path(self.site.state.removeprefix("sqlite:///")).exists():
                return False
            status = self.site.snapshot().status
            return all(status.get(name) == value for name, value in fields.items())

        eventually(come, timeout=60, message=str(fields))


@pytest.fixture
def desk(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Desk]:
    desk = Desk(tmp_path, postgres_url, redis_url)
    with closing(desk.site):
        yield desk


def test_status_tells_how_it_is_to_people_and_to_programs(desk: Desk) -> None:
    desk.site.add_rows(1, 5)
    with desk.scanner(), desk.worker():
        desk.wait(succeeded=5, active=0)
        header, line = desk.command.says("status").splitlines()
        report = desk.command.says("status", "pages")
        (listed,) = desk.command.data("status")
        told = desk.status()

    assert header.split()[:4] == ["NAME", "READY", "REASON", "SUSPENDED"]
    assert line.split()[:4] == ["pages", "True", "Scanning", "False"]
    assert "default/pages" in report
    assert "0 of 3 taken" in report
    assert "5 launched, 5 succeeded, 0 failed, 0 lost" in report
    assert listed.items() <= told.items()
    assert (told["ready"], told["succeeded"], told["concurrency"]) == ("True", 5, 3)
    assert {each["type"] for each in told["conditions"]} >= {"Ready", "DatabaseReachable"}


def test_a_row_that_failed_is_explained_and_tried_again(desk: Desk) -> None:
    desk.site.add_rows(1, 3)
    desk.bad.write_text("2")
    with desk.scanner(retry={"attempts": 2, "backoff": "0s"}), desk.worker():
        desk.wait(parked=1, succeeded=2)
        story = desk.command.says("explain", "pages", 2, *_secrets(desk))
        told = desk.command.data("explain", "pages", "[2]")
        assert "nothing is remembered" in desk.command.complains("retry", "pages", 3, code=1)

        desk.bad.write_text("")
        assert desk.command.data("retry", "pages", 2)["rows"] == ["[2]"]
        desk.wait(parked=0, succeeded=3)

    assert "Parked" in story
    assert "2 of 2" in story
    assert "page 2 is torn" in story
    assert "scannerjob retry pages" in story
    assert (told["phase"], told["attempt"], told["attempts"]) == ("Parked", 2, 2)
    assert f"task {told['launch']}: FAILURE" in story
    assert "Traceback (most recent call last):" in story
    assert "\n  ValueError: page 2 is torn" in story
    assert "canary" not in story
    assert "\x1b" not in story
    (word,) = told["lastWords"]
    assert "--secrets" in word


def test_a_result_backend_that_is_away_is_told_in_a_line(desk: Desk) -> None:
    desk.site.add_rows(1, 1)
    with desk.scanner():
        desk.wait(active=1)
    desk.site.put_secret("app-results", "redis://:canary-7f3a91@127.0.0.1:1/0")

    (word,) = desk.command.data("explain", "pages", 1, *_secrets(desk))["lastWords"]

    assert word.startswith("result backend 127.0.0.1:1/0: ")
    assert "canary" not in word


def test_all_that_are_parked_are_tried_again(desk: Desk) -> None:
    desk.site.add_rows(1, 3)
    desk.bad.write_text("1 3")
    with desk.scanner(retry={"attempts": 1}), desk.worker():
        desk.wait(parked=2, succeeded=1)
        desk.bad.write_text("")
        assert "2 parked rows" in desk.command.says("retry", "pages", "--all-parked")
        desk.wait(parked=0, succeeded=3)
        assert "no row is parked" in desk.command.says("retry", "pages", "--all-parked")
        assert desk.command.data("retry", "pages", "--all-parked")["rows"] == []
        told = desk.command.data("scan", "pages")

    assert told == {"namespace": "default", "name": "pages", "active": 0, "concurrency": 3}


def test_suspended_it_launches_nothing_even_after_a_restart(desk: Desk) -> None:
    with desk.scanner():
        desk.wait(active=0)
        assert "suspended" in desk.command.says("suspend", "pages")
    desk.site.add_rows(1, 2)
    with desk.scanner(), desk.worker():
        desk.command.says("scan", "pages")
        assert desk.status()["suspended"]
        assert desk.site.done() == []
        assert "suspended" in desk.command.says("explain", "pages", 1, *_secrets(desk))

        assert "resumed" in desk.command.says("resume", "pages")
        desk.wait(succeeded=2)


def test_what_its_document_suspends_is_not_resumed(desk: Desk) -> None:
    with desk.scanner(suspend=True):
        desk.wait(active=0)
        assert "document" in desk.command.complains("resume", "pages", code=1)


def test_a_scan_waits_for_no_interval(desk: Desk) -> None:
    with desk.scanner(interval="1h"), desk.worker():
        desk.wait(active=0)
        desk.site.add_rows(1, 2)
        assert "looked at its rows" in desk.command.says("scan", "pages")
        eventually(lambda: desk.site.done() == [1, 2], message="both rows are done")


def test_a_scan_of_a_database_that_is_away_says_so(desk: Desk) -> None:
    desk.site.put_secret("app-db", "postgresql://app:canary-7f3a91@127.0.0.1:1/app")
    with desk.scanner():
        desk.wait(observedGeneration=1)
        complaint = desk.command.complains("scan", "pages", code=3)

    assert "DatabaseUnreachable" in complaint
    assert "canary" not in complaint


def test_a_request_that_nobody_heeds_is_no_success(desk: Desk) -> None:
    with desk.scanner():
        desk.wait(active=0)

    assert "heeded" in desk.command.complains("scan", "pages", "--timeout", 1, code=1)


def test_drain_waits_for_what_is_out(desk: Desk) -> None:
    desk.site.add_rows(1, 60)
    with desk.scanner(), desk.worker(work=1):
        desk.wait(active=3)
        assert "drained" in desk.command.says("drain", "pages")
        done = desk.site.done()
        assert 3 <= len(done) < 60
        assert desk.status()["active"] == 0
        assert desk.status()["suspended"]


def test_what_no_worker_takes_is_drained_by_force_alone(desk: Desk) -> None:
    desk.site.add_rows(1, 2)
    with desk.scanner():
        desk.wait(active=2)
        complaint = desk.command.complains("drain", "pages", "--timeout", 2, code=1)
        assert "2 launches are still out" in complaint
        assert "--force" in complaint

        desk.command.says("drain", "pages", "--force")
        told = desk.status()

    assert (told["active"], told["lost"], told["waiting"]) == (0, 2, 2)
    assert {item["reason"] for item in told["items"]} == {"GivenUp"}


def _secrets(desk: Desk) -> tuple[str, str]:
    return "--secrets", str(desk.site.secrets)


def test_preview_tells_of_each_row_why_or_why_not(desk: Desk) -> None:
    desk.site.add_rows(1, 5)
    with desk.scanner():
        desk.wait(active=3)
        told = desk.command.data("preview", "pages", *_secrets(desk))
        table = desk.command.says("preview", "pages", *_secrets(desk), "--limit", 4)

    rows = {row["key"]: row for row in told["rows"]}
    assert [row["launch"] for row in rows.values()] == [False] * 5
    assert "is out" in rows["[1]"]["why"]
    assert rows["[5]"]["why"] == "no slot is free: 3 of 3 are taken"
    assert rows["[5]"]["values"] == {"pdf_id": 5}
    assert told["complete"] is True
    assert told["plan"].keys() == {"finding", "message", "cost", "estimatedRows"}
    assert told["plan"]["finding"] == "Indexed"
    assert "the database expects: cost" in table
    assert "0 rows would be launched now; 4 rows are shown (more rows may match)" in table


def test_preview_of_a_document_launches_nothing(desk: Desk) -> None:
    desk.site.add_rows(1, 5)
    file = desk.site.scanner_job()
    command = Command()

    told = command.data("preview", "--file", file, *_secrets(desk))

    assert [row["launch"] for row in told["rows"]] == [True, True, True, False, False]
    assert not Path(desk.site.state.removeprefix("sqlite:///")).exists()
    url = desk.site.folder / "url"
    url.write_text(desk.site.database_url)
    assert command.data("preview", "--file", file, "--database-url-file", url) == told


def test_preview_says_where_the_url_is_missing(desk: Desk) -> None:
    complaint = Command().complains("preview", "--file", desk.site.scanner_job(), code=2)

    assert "--secrets" in complaint
    assert "--database-url-file" in complaint


def test_a_row_that_is_not_remembered_is_looked_up(desk: Desk) -> None:
    desk.site.add_rows(1, 5)
    with desk.scanner():
        desk.wait(active=3)
        matches = desk.command.data("explain", "pages", 5, *_secrets(desk))
        absent = desk.command.data("explain", "pages", 99, *_secrets(desk))
        unknown = desk.command.data("explain", "pages", 5)

    assert "when a slot is free: 3 of 3 are taken" in matches["next"]
    assert "does not match" in absent["next"]
    assert "could not be looked up" in unknown["next"]
    assert (matches["phase"], matches["key"]) == (None, "[5]")


def test_what_is_mistyped_gets_a_suggestion(desk: Desk, tmp_path: Path) -> None:
    with desk.scanner():
        desk.wait(active=0)
    complaint = desk.command.complains("status", "pagse", code=1)
    nowhere = Command("--state", f"sqlite:///{tmp_path / 'other.db'}")

    assert complaint == "ScannerJob pagse is not there; did you mean pages?\n"
    assert "scannerjob run" in nowhere.complains("status", code=2)
    assert not (tmp_path / "other.db").exists()


def test_a_task_s_log_is_its_worker_s(desk: Desk) -> None:
    desk.site.add_rows(1, 1)
    with desk.scanner():
        desk.wait(active=1)
        launch = desk.command.data("explain", "pages", 1)["launch"]
        complaint = desk.command.complains("logs", "pages", 1, code=1)

    assert f"look there for task id {launch}" in complaint
