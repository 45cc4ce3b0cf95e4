"""What workers and broker recorded, read for the judge and for the screen."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from math import inf
from pathlib import Path
from typing import Any

from scannerjob.demo.judge import Execution, History, Kill, Launch
from scannerjob.demo.stage import CAP, Stage


def read_history(stage: Stage, kills: Sequence[Kill], seconds: float) -> History:
    """All that is on record."""
    rows = _select(stage.application, "SELECT id, pages_created FROM pdf")
    return History(
        cap=CAP,
        rows=frozenset(row for row, _ in rows),
        done=frozenset(row for row, done in rows if done),
        launches=read_launches(stage),
        executions=read_executions(stage),
        kills=kills,
        seconds=seconds,
    )


def read_executions(stage: Stage) -> list[Execution]:
    """What the tasks recorded of themselves."""
    query = "SELECT task_id, pdf_id, worker, started, ended FROM execution ORDER BY id"
    return [Execution(*record) for record in _select(stage.application, query)]


def read_launches(stage: Stage, *, delivered: bool = False) -> list[Launch]:
    """All messages that were ever published: kombu keeps them. With `delivered`, those alone."""
    query = "SELECT payload, at FROM kombu_message JOIN arrival ON message_id = id"
    query += " WHERE NOT visible ORDER BY id" if delivered else " ORDER BY id"
    return [_launch(json.loads(payload), at) for payload, at in _select(stage.broker, query)]


def all_are_begun(stage: Stage) -> bool:
    """Whether every message that was delivered is worked on: no worker just holds one."""
    # In this order: what is begun and delivered in between cannot hide one that is not.
    begun = {run.task_id for run in read_executions(stage)}
    return begun >= {launch.task_id for launch in read_launches(stage, delivered=True)}


def undelivered(stage: Stage) -> int:
    """How many messages wait for a worker."""
    return int(_select(stage.broker, "SELECT count(*) FROM kombu_message WHERE visible")[0][0])


def _launch(message: dict[str, Any], published: float) -> Launch:
    headers = message["headers"]
    _, arguments, _ = json.loads(base64.b64decode(message["body"]))
    expires, (time_limit, _) = headers["expires"], headers["timelimit"]
    return Launch(
        task_id=headers["id"],
        row=arguments["pdf_id"],
        published=published,
        expires=datetime.fromisoformat(expires).timestamp() if expires else inf,
        time_limit=time_limit or inf,
    )


def _select(file: Path, query: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(file, timeout=30)) as database:
        return database.execute(query).fetchall()
