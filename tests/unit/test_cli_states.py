"""The commands on the ledgers of `scannerjob run`: what they must not believe, repeat or touch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from scannerjob.cli.commands import app
from scannerjob.cli.completion import keys, names
from scannerjob.cli.draining import _emptied
from scannerjob.cli.places import Place
from scannerjob.model.ledger import Item, Ledger, Phase, ledger_to_status
from scannerjob.ports import Ref
from scannerjob.standalone import _try_to_apply
from scannerjob.stores.sql import SqlStore
from tests.unit.cases import NOW, ledger
from tests.unit.cases import document as celery_spec

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


def asked(state: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--state", state], env={"COLUMNS": "300"})


def put(state: str, *refs: str, known: Ledger | None = None) -> None:
    """ScannerJobs of Celery tasks, as NAMESPACE/NAME, with this ledger."""

    async def write() -> None:
        store = SqlStore(state)
        try:
            for text in refs:
                namespace, _, name = text.partition("/")
                metadata = {"name": name, "namespace": namespace}
                ref = await store.apply({"metadata": metadata, "spec": celery_spec()})
                snapshot = await store.read(ref)
                assert snapshot is not None
                await store.write(snapshot, ledger_to_status(known or Ledger()))
        finally:
            await store.close()

    asyncio.run(write())


@pytest.mark.parametrize("name", ["pages", "docs/pages"])
def test_the_only_namespace_of_a_state_need_not_be_said(state: str, name: str) -> None:
    put(state, "docs/pages")

    assert asked(state, "status").output.splitlines()[1].startswith("pages ")
    assert asked(state, "status", name).output.startswith("docs/pages\n")
    assert "docs/pages: suspended" in asked(state, "suspend", name).output


def test_of_several_namespaces_all_are_shown(state: str) -> None:
    put(state, "docs/pages", "media/thumbnails")

    header, *lines = asked(state, "status").output.splitlines()

    assert header.split()[0] == "NAMESPACE"
    assert [line.split()[:2] for line in lines] == [["docs", "pages"], ["media", "thumbnails"]]
    assert asked(state, "status", "thumbnails").output.startswith("media/thumbnails\n")


def test_a_name_in_several_namespaces_is_not_guessed(state: str) -> None:
    put(state, "docs/pages", "media/pages")

    done = asked(state, "suspend", "pages")

    assert done.exit_code == 2
    assert "docs/pages and media/pages: expected NAMESPACE/NAME, or -n" in done.output
    assert "media/pages: suspended" in asked(state, "suspend", "media/pages").output
    assert "docs/pages: suspended" in asked(state, "suspend", "pages", "-n", "docs").output


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "pagse"], 1, "ScannerJob pagse is not there; did you mean pages?"),
        (["status", "zzz"], 1, "zzz is not there; there are: docs/pages, media/thumbnails"),
        (["status", "media/pages"], 1, "media/pages is not there; there are: thumbnails"),
        (["status", "docs/pages", "-n", "docs"], 0, "docs/pages"),
        (["status", "docs/pages", "-n", "media"], 2, "--namespace: media, but docs/pages is of"),
        (["scan", "/pages"], 2, "expected NAME or NAMESPACE/NAME, not /pages"),
        (["retry", "docs/", "7"], 2, "expected NAME or NAMESPACE/NAME, not docs/"),
    ],
)
def test_a_name_that_is_not_there_is_told_with_what_is(
    state: str, words: list[str], code: int, said: str
) -> None:
    put(state, "docs/pages", "media/thumbnails")

    done = asked(state, *words)

    assert (done.exit_code, said in done.output) == (code, True), done.output


def test_a_command_to_be_typed_next_names_the_namespace(state: str) -> None:
    put(state, "docs/pages", known=ledger(Item("[7]", "id-7", Phase.PARKED, 1, 1, NOW)))

    told = asked(state, "explain", "docs/pages", "7").output

    assert f"scannerjob retry pages '[7]' -n docs --state {state}" in told


def test_the_log_of_a_task_is_its_worker_s(state: str) -> None:
    put(state, "docs/pages", known=ledger(Item("[7]", "id-7", Phase.LAUNCHED, 1, 1, NOW)))

    done = asked(state, "logs", "pages", "7")

    assert done.exit_code == 1
    assert "is in the log of its worker: look there for task id id-7" in done.output


def test_beside_one_process_there_are_no_pods(state: str) -> None:
    begin(state, ledger_to_status(Ledger()))

    done = asked(state, "logs", "pages", "7")

    assert done.exit_code == 1
    assert "no pods are beside `scannerjob run`" in done.output


@pytest.mark.parametrize(
    ("begun", "names_there"),
    [("", ["pages", "thumbnails"]), ("thu", ["thumbnails"]), ("docs/", ["docs/pages"]), ("x/", [])],
)
def test_a_name_is_completed_as_it_was_begun(
    state: str, begun: str, names_there: list[str]
) -> None:
    put(state, "docs/pages", "media/thumbnails")

    assert names(SimpleNamespace(params={"state": state}), begun) == names_there


@pytest.mark.parametrize(
    ("begun", "rows"),
    [("", ["7", "70", "invoice-4"]), ("7", ["7", "70"]), ("in", ["invoice-4"]), ("x", [])],
)
def test_a_row_is_completed_as_a_person_types_it(state: str, begun: str, rows: list[str]) -> None:
    remembered = ["[7]", "[70]", '["invoice-4"]', '["70"]', '["a b"]', '[1,"a"]', '["\\n"]']
    items = [Item(key, f"id{n}", Phase.PARKED, 1, 1, NOW) for n, key in enumerate(remembered)]
    put(state, "docs/pages", known=ledger(*items))
    typed = {"state": state, "name": "docs/pages"}

    assert keys(SimpleNamespace(params=typed), begun) == rows
    assert keys(SimpleNamespace(params={**typed, "name": "thumbnails"}), begun) == []
