"""`scannerjob run` as a process of its own, on real databases, brokers and workers."""

import random
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from scannerjob.demo.judge import duplicates, peak_outstanding
from tests.support.processes import Process
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer
from tests.support.site import PublishWitness, Site
from tests.support.waiting import eventually

CANARY = "canary-7f3a91"


@pytest.fixture
def site(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Site]:
    """Rows in PostgreSQL, tasks through Redis, the ledger in SQLite."""
    site = Site(tmp_path, postgres_url)
    site.put_secret("app-broker", redis_url)
    with closing(site):
        yield site


@pytest.fixture
def mariadb_site(tmp_path: Path, mariadb_url: str, redis_url: str) -> Iterator[Site]:
    site = Site(tmp_path, mariadb_url)
    site.put_secret("app-broker", redis_url)
    with closing(site):
        yield site


def _rows(first: int, last: int) -> list[int]:
    return list(range(first, last + 1))


def _eventually_done(site: Site, rows: list[int]) -> None:
    eventually(lambda: site.done() == rows, timeout=60, message=f"{len(rows)} rows are done")


def _says(process: Process, *words: str) -> Callable[[], bool]:
    return lambda: all(word in process.log() for word in words)


@pytest.mark.parametrize("which", ["site", "mariadb_site"])
def test_every_row_is_done_once(which: str, request: pytest.FixtureRequest, redis_url: str) -> None:
    site: Site = request.getfixturevalue(which)
    site.add_rows(1, 20)
    scanner = site.scanner(site.scanner_job())
    with PublishWitness(redis_url) as witness, site.worker(redis_url), scanner:
        _eventually_done(site, _rows(1, 20))
        site.add_rows(21, 25)
        _eventually_done(site, _rows(1, 25))
        scanner.send(signal.SIGTERM)
        assert scanner.wait() == 0
    assert site.executed() == _rows(1, 25)
    assert [launch.row for launch in witness.launches] == _rows(1, 25)
    assert peak_outstanding(site.history(witness.launches, 3)) == 3
    assert "new ledger in /" in scanner.log()
    assert scanner.log().endswith(" INFO stopped\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_while_nothing_answers(site: Site, number: signal.Signals) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        port = hole.getsockname()[1]
        site.put_secret("app-db", f"postgresql://app:{CANARY}@127.0.0.1:{port}/app")
        with site.scanner(site.scanner_job()) as scanner:
            hole.accept()
            scanner.send(number)
            assert scanner.wait(60) == 0


def test_a_second_signal_ends_it_at_once(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        port = hole.getsockname()[1]
        site.put_secret("app-db", f"postgresql://app:{CANARY}@127.0.0.1:{port}/app")
        with site.scanner(site.scanner_job(queryTimeout="1h")) as scanner:
            hole.accept()
            scanner.send(signal.SIGTERM)
            eventually(_says(scanner, "stopping"))
            scanner.send(signal.SIGTERM)
            assert scanner.wait(5) in (0, -signal.SIGTERM)


def test_sigkill_at_any_moment_breaks_nothing(site: Site, redis_url: str) -> None:
    site.add_rows(1, 60)
    file = site.scanner_job(concurrency=4)
    with PublishWitness(redis_url) as witness, site.worker(redis_url):
        for kill in range(6):
            with site.scanner(file) as scanner:
                _wait_for_launches(witness, random.Random(kill).randrange(1, 9))
                scanner.kill()
        with site.scanner(file):
            _eventually_done(site, _rows(1, 60))
    assert site.executed() == _rows(1, 60)
    history = site.history(witness.launches, 4)
    assert (duplicates(history), peak_outstanding(history)) == ([], 4)


def _wait_for_launches(witness: PublishWitness, count: int) -> None:
    """Until so many more were published: what follows happens in the middle of a cycle's sends."""
    goal = len(witness.launches) + count
    eventually(lambda: len(witness.launches) >= goal, timeout=60, interval=0.002)


def test_two_processes_share_one_state(
    site: Site, postgres_server: PostgresServer, redis_url: str
) -> None:
    state = postgres_server.create_database()
    site.add_rows(1, 60)
    file = site.scanner_job(concurrency=4)
    first, second, third = (site.scanner(file, state=state) for _ in range(3))
    with PublishWitness(redis_url) as witness, site.worker(redis_url), first, second:
        eventually(lambda: len(site.done()) >= 20, timeout=60)
        first.kill()
        with third:
            eventually(lambda: len(site.done()) >= 40, timeout=60)
            second.kill()
            _eventually_done(site, _rows(1, 60))
    assert site.executed() == _rows(1, 60)
    history = site.history(witness.launches, 4)
    assert (duplicates(history), peak_outstanding(history)) == ([], 4)


def test_a_database_that_goes_away_and_comes_back(
    site: Site, postgres_server: PostgresServer, redis_url: str
) -> None:
    site.add_rows(1, 30)
    with site.worker(redis_url), site.scanner(site.scanner_job()) as scanner:
        eventually(lambda: len(site.done()) >= 5, timeout=60)
        postgres_server.stop()
        eventually(_says(scanner, "DatabaseUnreachable"), timeout=60)
        postgres_server.start()
        _eventually_done(site, _rows(1, 30))
    assert site.executed() == _rows(1, 30)


def test_a_state_that_goes_away_and_comes_back(
    site: Site, mariadb_server: MariaDBServer, redis_url: str
) -> None:
    state = mariadb_server.create_database()
    site.add_rows(1, 30)
    scanner = site.scanner(site.scanner_job(), state=state)
    with PublishWitness(redis_url) as witness, site.worker(redis_url), scanner:
        eventually(lambda: len(site.done()) >= 5, timeout=60)
        mariadb_server.stop()
        eventually(_says(scanner, "LedgerUnreachable"), timeout=60)
        eventually(lambda: len(site.done()) == len(witness.launches), timeout=60)
        mariadb_server.start()
        _eventually_done(site, _rows(1, 30))
    assert site.executed() == _rows(1, 30)
    assert peak_outstanding(site.history(witness.launches, 3)) == 3


def test_a_state_that_is_away_at_the_start(site: Site, mariadb_server: MariaDBServer) -> None:
    state = mariadb_server.create_database()
    mariadb_server.stop()
    with site.scanner(site.scanner_job(), state=state) as scanner:
        eventually(_says(scanner, "default/pages: LedgerUnreachable"), timeout=60)
        mariadb_server.start()
        eventually(_says(scanner, "default/pages: scanning"), timeout=60)
    assert mariadb_server.password not in scanner.log()


def test_a_frozen_broker_that_comes_back(
    site: Site, redis_server: RedisServer, redis_url: str
) -> None:
    site.add_rows(1, 30)
    with site.worker(redis_url), site.scanner(site.scanner_job()) as scanner:
        eventually(lambda: len(site.done()) >= 5, timeout=60)
        redis_server.pause()
        eventually(_says(scanner, "LaunchFailed"), timeout=90)
        redis_server.resume()
        _eventually_done(site, _rows(1, 30))
    assert site.executed() == _rows(1, 30)


def test_a_broker_that_is_killed_and_comes_back(
    site: Site, redis_server: RedisServer, redis_url: str
) -> None:
    site.add_rows(1, 5)
    with site.worker(redis_url), site.scanner(site.scanner_job()) as scanner:
        _eventually_done(site, _rows(1, 5))
        redis_server.kill()
        site.add_rows(6, 10)
        eventually(_says(scanner, "LaunchFailed"), timeout=60)
        assert site.done() == _rows(1, 5)
        redis_server.start()
        _eventually_done(site, _rows(1, 10))
    assert site.executed() == _rows(1, 10)


@pytest.mark.parametrize("scheme", ["postgresql", "mysql"])
def test_a_wrong_password_is_shown_nowhere(
    scheme: str,
    site: Site,
    postgres_server: PostgresServer,
    mariadb_server: MariaDBServer,
    redis_url: str,
) -> None:
    server = postgres_server if scheme == "postgresql" else mariadb_server
    site.add_rows(1, 3)
    right = site.database_url
    site.put_secret("app-db", f"{scheme}://app:{CANARY}@127.0.0.1:{server.port}/app")
    with site.worker(redis_url), site.scanner(site.scanner_job()) as scanner:
        eventually(_says(scanner, "default/pages: AuthenticationFailed"), timeout=60)
        site.put_secret("app-db", right)
        _eventually_done(site, _rows(1, 3))
    assert CANARY not in scanner.log()
    assert "Traceback" not in scanner.log()


def test_a_wrong_password_of_the_broker_is_shown_nowhere(site: Site) -> None:
    with RedisServer(requirepass=True) as server:
        site.add_rows(1, 3)
        wrong = server.url.replace(server.password, CANARY)
        site.put_secret("app-broker", wrong)
        with site.worker(server.url), site.scanner(site.scanner_job()) as scanner:
            eventually(_says(scanner, "BrokerUnreachable"), timeout=60)
            site.put_secret("app-broker", server.url)
            _eventually_done(site, _rows(1, 3))
    assert CANARY not in scanner.log()
    assert server.password not in scanner.log()
    assert "Traceback" not in scanner.log()


def test_an_unknown_host_is_named(site: Site) -> None:
    site.put_secret("app-db", f"postgresql://app:{CANARY}@no-such-host.invalid/app")
    with site.scanner(site.scanner_job()) as scanner:
        eventually(_says(scanner, "DatabaseUnreachable", "no-such-host.invalid"), timeout=60)
    assert CANARY not in scanner.log()


def test_a_secret_that_is_created_later(site: Site, redis_url: str) -> None:
    site.add_rows(1, 3)
    file = site.scanner_job(
        database={"urlSecretRef": {"name": "late-db", "key": "url"}},
        celery__broker={"urlSecretRef": {"name": "app-broker", "key": "late"}},
    )
    with site.worker(redis_url), site.scanner(file) as scanner:
        eventually(_says(scanner, "spec.database.urlSecretRef", "late-db"), timeout=60)
        site.put_secret("late-db", site.database_url)
        eventually(_says(scanner, "spec.celery.broker.urlSecretRef", "has no key late"), timeout=60)
        (site.secrets / "app-broker" / "late").write_text(redis_url)
        _eventually_done(site, _rows(1, 3))
    assert site.executed() == _rows(1, 3)


def test_a_database_that_never_answers_delays_nobody_else(site: Site, redis_url: str) -> None:
    site.add_rows(1, 20)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        port = hole.getsockname()[1]
        site.put_secret("hole", f"postgresql://app:{CANARY}@127.0.0.1:{port}/app")
        into_the_hole = site.scanner_job(
            "hole", database={"urlSecretRef": {"name": "hole", "key": "url"}}
        )
        files = (into_the_hole, site.scanner_job())
        with site.worker(redis_url), site.scanner(*files) as scanner:
            hole.accept()
            _eventually_done(site, _rows(1, 20))
            assert "DatabaseUnreachable" not in scanner.log().partition("hole: ")[0]
            eventually(_says(scanner, "default/hole: "), timeout=60)
    assert CANARY not in scanner.log()


def test_sql_that_cannot_be_run_holds_back_its_own_scanner_job(site: Site, redis_url: str) -> None:
    site.add_rows(1, 5)
    bad = {
        "syntax": "SELEC id FROM pdf",
        "two": "SELECT id FROM pdf; SELECT id FROM pdf",
        "update": "UPDATE pdf SET done = 1 RETURNING id",
        "unknown": "SELECT nothing FROM pdf",
    }
    files = [site.scanner_job(name, query=query) for name, query in bad.items()]
    with site.worker(redis_url), site.scanner(*files, site.scanner_job()):
        _eventually_done(site, _rows(1, 5))
        for name in bad:
            eventually(partial(_is_not_ready, site, name), message=f"{name} is not ready")
    assert site.executed() == _rows(1, 5)


def _is_not_ready(site: Site, name: str) -> bool:
    return site.condition("Ready", name).get("status") == "False"


def test_rows_without_a_usable_key_are_named_and_hold_back_nobody(
    site: Site, redis_url: str
) -> None:
    site.add_rows(1, 5)
    site.execute("CREATE TABLE page (pdf_id INTEGER, position INTEGER)")
    site.execute("INSERT INTO page SELECT id, id FROM pdf")
    site.execute("INSERT INTO page VALUES (NULL, -2), (4, -1)")
    query = (
        "SELECT page.pdf_id FROM page LEFT JOIN pdf ON pdf.id = page.pdf_id "
        "WHERE coalesce(pdf.done, 0) = 0 ORDER BY position"
    )
    with site.worker(redis_url), site.scanner(site.scanner_job(query=query)) as scanner:
        _eventually_done(site, _rows(1, 5))
    assert "RowsHeldBack: " in scanner.log()
    assert "key column pdf_id is NULL" in scanner.log()
    assert "row [4]: another row has the same key" in scanner.log()
    assert site.executed() == _rows(1, 5)


def test_a_ledger_that_is_wiped_launches_nothing(site: Site, redis_url: str) -> None:
    site.add_rows(1, 6)
    file = site.scanner_job(concurrency=2)
    with site.worker(redis_url, work=0.1) as worker, site.scanner(file) as scanner:
        _eventually_done(site, _rows(1, 6))
        worker.terminate()
        site.add_rows(7, 10)
        eventually(lambda: len(site.items()) >= 2)
        scanner.kill()
        _in_state(site, "UPDATE scannerjob_ledger SET status = '{}'")
        with site.scanner(file) as second:
            eventually(_says(second, "its ledger has vanished"))
            worker.start()
            _eventually_done(site, _rows(1, 8))
            eventually(lambda: site.condition("Ready").get("reason") == "LedgerLost")
            _annotate(file, "scannerjob.dev/requested-accept-lost-ledger", "1")
        with site.scanner(file):
            _eventually_done(site, _rows(1, 10))
    assert site.executed() == _rows(1, 10)


def _in_state(site: Site, statement: str) -> None:
    import sqlite3

    with closing(sqlite3.connect(site.folder / "state.sqlite", timeout=30)) as state, state:
        state.execute(statement)


def _annotate(file: Path, name: str, value: str) -> None:
    file.write_text(
        file.read_text().replace(
            "metadata:\n", f"metadata:\n  annotations: {{{name}: '{value}'}}\n"
        )
    )


def test_a_wiped_ledger_heals_when_all_that_was_out_must_have_ended(
    site: Site, redis_url: str
) -> None:
    site.add_rows(1, 2)
    file = site.scanner_job(deadline="1s", celery__expires="1s")
    with site.worker(redis_url):
        with site.scanner(file):
            _eventually_done(site, _rows(1, 2))
        _in_state(site, "UPDATE scannerjob_ledger SET status = '{}'")
        site.add_rows(3, 4)
        with site.scanner(file) as second:
            eventually(_says(second, "its ledger has vanished"))
            _eventually_done(site, _rows(1, 4))
    assert site.executed() == _rows(1, 4)


def test_a_state_file_that_is_removed(site: Site, redis_url: str) -> None:
    site.add_rows(1, 3)
    file = site.scanner_job()
    with site.worker(redis_url), site.scanner(file) as scanner:
        _eventually_done(site, _rows(1, 3))
        for part in site.folder.glob("state.sqlite*"):
            part.unlink()
        site.add_rows(4, 6)
        eventually(_says(scanner, "LedgerLost", "state.sqlite"), timeout=60)
        assert site.done() == _rows(1, 3)
        scanner.stop()
        with site.scanner(file) as second:
            eventually(_says(second, "new ledger in /"))
            _eventually_done(site, _rows(1, 6))
    assert site.executed() == _rows(1, 6)


def test_a_task_that_no_worker_knows_is_parked_where_results_are_kept(
    site: Site, redis_server: RedisServer, redis_url: str
) -> None:
    results = redis_server.database_url(1)
    site.put_secret("app-results", results)
    site.add_rows(1, 1)
    file = site.scanner_job(
        celery__task="site.wrok",
        celery__resultBackend={"urlSecretRef": {"name": "app-results", "key": "url"}},
        retry={"attempts": 2, "backoff": "500ms"},
    )
    with site.worker(redis_url, results=results), site.scanner(file):
        eventually(lambda: [item["phase"] for item in site.items()] == ["Parked"], timeout=60)
    (item,) = site.items()
    assert item["attempt"] == 2
    assert "NotRegistered" in item["reason"]


def test_a_task_that_no_worker_knows_is_held_where_none_are_kept(
    site: Site, redis_url: str
) -> None:
    site.add_rows(1, 1)
    with site.worker(redis_url) as worker, site.scanner(site.scanner_job(celery__task="wrok")):
        eventually(lambda: "Received unregistered task" in worker.log())
        site.add_rows(2, 2)
        eventually(lambda: [item["phase"] for item in site.items()] == ["Launched"] * 2)
    assert site.executed() == []
