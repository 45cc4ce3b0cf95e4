"""The commands on the ledgers of `scannerjob run`: what they must not believe, repeat or touch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from scannerjob.cli.commands import app
from scannerjob.cli.draining import _emptied
from scannerjob.cli.places import Place
from scannerjob.model.ledger import Ledger, ledger_to_status
from scannerjob.ports import Ref
from scannerjob.standalone import _try_to_apply
from scannerjob.stores.sql import SqlStore
from tests.unit.cases import NOW

REF = Ref("default", "pages")
SPEC = {
    "database": {"urlSecretRef": {"name": "app", "key": "url"}},
    "query": "SELECT id FROM pdf",
    "job": {"template": {}},
}


def document(**annotations: str) -> dict[str, Any]:
    asked = {f"scannerjob.dev/requested-{name}": nonce for name, nonce in annotations.items()}
    return {
        "metadata": {"name": REF.name, "namespace": REF.namespace, "annotations": asked},
        "spec": {**SPEC, "suspend": True},
    }


@pytest.fixture
def state(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/state.db"


def with_store(state: str, work: Callable[[SqlStore], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        store = SqlStore(state)
        try:
            await store.apply(document())
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(main())


def begin(state: str, status: Mapping[str, Any], *, mark: bool = False) -> None:
    async def write(store: SqlStore) -> None:
        snapshot = await store.read(REF)
        assert snapshot is not None
        if mark:
            snapshot = await store.mark(snapshot)
        await store.write(snapshot, status)

    with_store(state, write)


LOST = ledger_to_status(Ledger(lost_at=NOW))


@pytest.mark.parametrize(
    ("status", "marked", "is_empty"),
    [
        (ledger_to_status(Ledger()), True, True),
        ({}, False, True),
        (LOST, True, False),
        ({}, True, False),
    ],
    ids=["empty", "never launched", "lost", "vanished"],
)
def test_a_ledger_that_vanished_is_not_drained(
    state: str, status: Mapping[str, Any], marked: bool, is_empty: bool
) -> None:
    begin(state, {**status, "observedGeneration": 1}, mark=marked)

    async def look(store: SqlStore) -> bool:
        return await _emptied(Place(store, REF.namespace), REF, 0) is not None

    assert with_store(state, look) is is_empty


def test_what_a_document_asks_for_is_not_asked_for_again_at_each_start(state: str) -> None:
    async def start_twice(store: SqlStore) -> Mapping[tuple[Ref, str], str]:
        asked = document(**{"force-drain": "1", "suspend": "", "unknown": "x" * 300})
        await _try_to_apply(REF, asked, store)
        await store.request(REF, "force-drain", "a person's")
        await _try_to_apply(REF, asked, store)
        return await store.requests()

    requests = with_store(state, start_twice)
    assert requests[REF, "force-drain"] == "a person's"
    assert {name for _, name in requests} == {"force-drain", "force-drain of the document"}


def test_a_document_that_asks_for_something_else_is_heard(state: str) -> None:
    async def change(store: SqlStore) -> str:
        for nonce in ("1", "2"):
            await _try_to_apply(REF, document(scan=nonce), store)
        return (await store.requests())[REF, "scan"]

    assert with_store(state, change) == "2"


def test_a_database_that_is_no_ledger_stays_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "app.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE pdf (id INTEGER)")
        connection.commit()
    before = file.read_bytes()

    done = CliRunner().invoke(app, ["status", "--state", f"sqlite:///{file}"])

    assert done.exit_code == 2
    assert "no ledger is in" in done.output
    assert file.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["app.db"]


@pytest.mark.parametrize("command", [["explain", "pages", "7"], ["retry", "pages", "7"]])
def test_a_ledger_of_a_newer_version_is_said_to_be_one(state: str, command: list[str]) -> None:
    begin(state, {"ledgerVersion": 99})

    done = CliRunner().invoke(app, [*command, "--state", state])

    assert (done.exit_code, type(done.exception)) == (1, SystemExit)
    assert "ledgerVersion is 99" in done.output
