"""A PostgreSQL that follows another one, as far behind as a test says.

with PostgresServer() as primary, PostgresReplica(primary) as replica:
    replica.pause_replay()
"""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.binaries import need
from tests.support.servers import PostgresServer
from tests.support.waiting import eventually


class PostgresReplica(PostgresServer):
    """A streaming replica with the same roles and databases, which can only be read.

    What is committed on the primary is seen here `lag` seconds later.
    """

    def __init__(self, primary: PostgresServer, lag: float = 0.0) -> None:
        super().__init__()
        self._primary = primary
        self._lag = lag
        self.password, self.admin_password = primary.password, primary.admin_password

    def prepare(self) -> None:
        service = self.folder / "primary"
        service.write_text(f"127.0.0.1:{self._primary.port}:*:*:{self.admin_password}\n")
        service.chmod(0o600)
        if self._run_as:
            shutil.chown(service, self._run_as)
        origin = f"host=127.0.0.1 port={self._primary.port} user=postgres passfile={service}"
        copy = ("--pgdata", self.folder / "data", "--checkpoint=fast", "--no-sync")
        self._run([need("pg_basebackup"), "--dbname", origin, "--write-recovery-conf", *copy])

    def command(self) -> list[str | Path]:
        lag = f"recovery_min_apply_delay={round(self._lag * 1000)}"
        return [*super().command(), "-c", "hot_standby=on", "-c", lag]

    def started(self) -> None:
        """It has the primary's roles."""

    def pause_replay(self) -> None:
        """Show what there is now, and nothing newer, until `resume_replay`."""
        self._do("SELECT pg_wal_replay_pause()")
        eventually(lambda: self._tell("SELECT pg_get_wal_replay_pause_state()") == "paused")

    def resume_replay(self) -> None:
        """Follow again."""
        self._do("SELECT pg_wal_replay_resume()")

    def wait_caught_up(self, timeout: float = 30) -> None:
        """Return when it shows all that the primary had when this was called."""
        with self._primary.connect() as connection:
            (written,) = connection.execute("SELECT pg_current_wal_lsn()").fetchone() or ("",)
        replayed = f"SELECT pg_last_wal_replay_lsn() >= '{written}'"
        eventually(lambda: self._tell(replayed), timeout, "the replica has caught up")

    def _do(self, statement: str) -> None:
        with self.connect() as connection:
            connection.execute(statement.encode())

    def _tell(self, question: str) -> object:
        with self.connect() as connection:
            (told,) = connection.execute(question.encode()).fetchone() or (None,)
            return told
