"""`scannerjob run` in a directory of its own, and all that can be seen of it."""

import json
import os
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import MetaData, create_engine

from tests.support.bad_urls import SecretUrl
from tests.support.canary import assert_none, songs, songs_in_files, songs_in_processes
from tests.support.processes import Process
from tests.support.site import Site

_STATE = "SCANNERJOB_STATE"
_CHANGES = {
    "database": "database",
    "broker": "celery__broker",
    "results": "celery__resultBackend",
    "guard": "celery__guard",
}


class Household:
    """One process that runs ScannerJobs, and what it leaves where others may look."""

    def __init__(self, folder: Path, broker: str) -> None:
        for each in ("site", "work", "tmp"):
            (folder / each).mkdir()
        self.folder = folder
        self.site = Site(folder / "site", f"sqlite:///{folder / 'app.sqlite'}")
        self.site.put_secret("app-broker", broker)
        self.site.add_rows(1, 1)
        self.file = folder / "work" / "state.sqlite"

    def job(self, url: SecretUrl, **changes: Any) -> Path:
        """The ScannerJob that has this URL, all else being right."""
        folder = self.site.secrets / url.name
        folder.mkdir(exist_ok=True)
        content = url.url
        (folder / "url").write_bytes(content.encode() if isinstance(content, str) else content)
        changes[_CHANGES[url.part]] = {"urlSecretRef": {"name": url.name, "key": "url"}}
        return self.site.scanner_job(url.name, queryTimeout="3s", **changes)

    def run(
        self,
        files: Sequence[Path],
        state: str | None = None,
        log: str = "run",
        path: Path | None = None,
    ) -> Process:
        """The process, which is told of its state in the environment alone; not yet started.

        `path`: where it finds modules first.
        """
        arguments = [argument for file in files for argument in ("-f", str(file))]
        paths = [*filter(None, [path]), Path("operator").absolute()]
        secrets = ("--secrets", str(self.site.secrets))
        return Process(
            [sys.executable, "-m", "scannerjob", "run", *arguments, *secrets],
            log=self.folder / f"{log}.log",
            cwd=self.folder / "work",
            env={
                **os.environ,
                _STATE: state or f"sqlite:///{self.file}",
                "TMPDIR": str(self.folder / "tmp"),
                "PYTHONPATH": os.pathsep.join(str(each) for each in paths),
            },
        )

    def ready(self) -> dict[str, Mapping[str, str]]:
        """The condition Ready of each ScannerJob in the SQLite state, as far as there is one."""
        with closing(sqlite3.connect(f"file:{self.file}?mode=ro", uri=True)) as state:
            rows = list(state.execute("SELECT name, status FROM scannerjob_ledger"))
        return {name: condition for name, status in rows for condition in _ready(status)}

    def assert_silent(self, process: Process) -> None:
        """Nothing of a canary is in what the process says, writes and shows of itself."""
        assert process.running, process.log()
        assert_none(songs_in_processes(process.pid, given=_STATE))
        self.assert_wrote_nothing(process)

    def assert_wrote_nothing(self, process: Process) -> None:
        """Nothing of a canary is in its log, and in the files that it wrote; and no bug was."""
        assert_none(songs(process.log()))
        assert_none(songs_in_files(self.folder / "work"))
        assert_none(songs_in_files(self.folder / "tmp"))
        assert "Traceback" not in process.log(), process.log()

    def close(self) -> None:
        self.site.close()


def _ready(status: str) -> list[Mapping[str, str]]:
    conditions = json.loads(status).get("conditions", ())
    return [each for each in conditions if each["type"] == "Ready"]


def dump(url: str) -> str:
    """All rows of all tables of a database."""
    engine = create_engine(url)
    tables = MetaData()
    tables.reflect(engine)
    with engine.connect() as connection:
        rows = [connection.execute(table.select()).all() for table in tables.sorted_tables]
    engine.dispose()
    assert rows, "no tables to look into"
    return str(rows)
