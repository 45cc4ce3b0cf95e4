"""`scannerjob run` on servers with TLS alone, while all that its Secrets hold is replaced."""

import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.processes import Process
from tests.support.servers import DatabaseServer
from tests.support.site import Site
from tests.support.tls_servers import TlsMariaDB, TlsPostgres, TlsRabbit, TlsRedis, TlsServer
from tests.support.waiting import eventually


class TlsSite:
    """A site whose scanner comes to each server with a certificate of its own.

    The workers, who have no part in this, come in by the administrators' doors.
    """

    def __init__(
        self, folder: Path, database: TlsPostgres, broker: TlsServer, results: TlsServer
    ) -> None:
        self.folder = folder / "temporary"
        self.folder.mkdir()
        self.database, self.broker, self.results = database, broker, results
        self.site = Site(folder, database.as_admin(database.url))
        self.site.execute("GRANT SELECT ON pdf TO app")
        for name in ("app-db", "app-broker", "app-results"):
            self.put_secrets(name)

    def put_secrets(self, name: str) -> None:
        """Where the server is to be found, and whom it and its clients trust."""
        servers = {
            "app-db": self.database,
            "app-broker": self.broker,
            "app-results": self.results,
        }
        server = servers[name]
        results_in_database = name == "app-results" and isinstance(server, DatabaseServer)
        self.site.put_secret(name, f"{'db+' if results_in_database else ''}{server.tls_url}")
        self._put(f"{name}-tls", server.authority.secret(server.authority.issue(name)))

    def _put(self, name: str, contents: Mapping[str, bytes]) -> None:
        folder = self.site.secrets / name
        folder.mkdir(parents=True, exist_ok=True)
        for key, content in contents.items():
            (folder / key).write_bytes(content)

    def scanner(self) -> Process:
        return self.site.scanner(
            self.site.scanner_job(
                database=_connection("app-db"),
                celery__broker=_connection("app-broker"),
                celery__resultBackend=_connection("app-results"),
            )
        )

    def folders(self) -> list[Path]:
        """Where the scanner keeps certificates as files."""
        return list(self.folder.glob("scannerjob-*"))

    def is_refused(self, kind: str) -> bool:
        """Whether the scanner says that it has the wrong certificates, or password."""
        told = self.site.condition(kind)
        reasons = ("TLSFailed", "AuthenticationFailed", "LaunchFailed")
        return told.get("status") == "False" and told["reason"] in reasons

    def wait_until_done(self, last: int) -> None:
        rows = list(range(1, last + 1))
        eventually(lambda: self.site.done() == rows, 120, f"rows up to {last} are done")


def _connection(name: str) -> dict[str, dict[str, str]]:
    return {
        "urlSecretRef": {"name": name, "key": "url"},
        "tlsSecretRef": {"name": f"{name}-tls"},
    }


def _own_door(server: TlsServer) -> str:
    if isinstance(server, DatabaseServer):
        return f"db+{server.as_admin(server.url)}"
    return server.url


@pytest.mark.timeout(500)
@pytest.mark.parametrize("kinds", [(TlsRedis, TlsMariaDB), (TlsRabbit, TlsRedis)])
def test_rotated_secrets_are_used_without_a_restart(
    kinds: tuple[type[TlsRedis | TlsRabbit], type[TlsMariaDB | TlsRedis]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = Authority("old"), Authority("new")
    with ExitStack() as stack:
        database = stack.enter_context(TlsPostgres(old))
        broker, results = (stack.enter_context(kind(old)) for kind in kinds)
        tls = TlsSite(tmp_path, database, broker, results)
        stack.callback(tls.site.close)
        stack.enter_context(tls.site.worker(broker.url, results=_own_door(results)))
        tls.site.add_rows(1, 4)
        with monkeypatch.context() as patched:
            patched.setenv("TMPDIR", str(tls.folder))
            scanner = stack.enter_context(tls.scanner())
        tls.wait_until_done(4)
        passwords = [database.password]

        database.show(new.issue(), new)
        database.change_password(secrets.token_hex(8))
        tls.site.add_rows(5, 8)
        eventually(lambda: tls.is_refused("DatabaseReachable"), 60)
        tls.put_secrets("app-db")
        tls.wait_until_done(8)

        for server, name in ((broker, "app-broker"), (results, "app-results")):
            first = len(tls.site.executed()) + 1
            server.show(new.issue(), new)
            tls.site.add_rows(first, first + 3)
            eventually(lambda: tls.is_refused("TargetReachable"), 60)
            tls.put_secrets(name)
            tls.wait_until_done(first + 3)

        assert tls.folders()
        scanner.stop()
        assert tls.folders() == []
        assert tls.site.executed() == list(range(1, 17))
        passwords += [database.password, broker.password, results.password]
        written = scanner.log() + (tmp_path / "state.sqlite").read_bytes().decode(errors="replace")
        assert not [word for word in (*passwords, "PRIVATE KEY") if word in written]
        assert "Traceback" not in scanner.log()
