"""Real servers for tests, each with a data folder of its own, on a free port of the loopback.

    with PostgresServer() as server:
        url = server.create_database()

Nothing is flushed to disk, which makes them fast. What was committed survives `kill()` and
`start()` all the same, since it was written to the kernel, which is not killed.
"""

import abc
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psycopg
import pymysql
import redis
from sqlalchemy import URL, make_url

from tests.support.binaries import need
from tests.support.ports import free_port
from tests.support.processes import Process, tied_to_parent
from tests.support.waiting import eventually


class Server(abc.ABC):
    """A server process that can be stopped, killed, frozen and started again at the same URL."""

    user: str | None = None
    """Who runs it when the tests run as root."""
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.folder = Path(tempfile.mkdtemp(prefix=f"{type(self).__name__.lower()}-"))
        self.log_file = self.folder / "server.log"
        self._prepared = False
        self._process: Process | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """The URL that an application would use: not an administrator's."""

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError(f"{type(self).__name__} was not started: call start() first")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def start(self) -> Self:
        """Start it, and return when it answers."""
        if self.running:
            return self
        if not self._prepared:
            if self._run_as:
                shutil.chown(self.folder, self._run_as, self._run_as)
            self.prepare()
            self._prepared = True
        self._process = Process(
            self.command(), log=self.log_file, user=self._run_as, cwd=self.folder
        ).start()
        eventually(self._answers, timeout=60, message=f"{type(self).__name__} answers")
        self.started()
        return self

    def stop(self) -> None:
        """Stop it in an orderly way; its data stays for the next start()."""
        if self._process is not None:
            self._process.stop(self.stop_signal)

    def kill(self) -> None:
        """SIGKILL, with all its children; its data stays for the next start()."""
        if self._process is not None:
            self._process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it: connections stay open, and nothing is answered, until resume()."""
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def ensure_answering(self) -> Self:
        """Undo what a test did to it: start it if it is down, resume it if it is frozen."""
        if self.running:
            self.resume()
        return self.start()

    def close(self) -> None:
        """End it and remove its data."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def log(self) -> str:
        return self.process.log()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def prepare(self) -> None:  # noqa: B027 - not every server needs it
        """Make its data folder, once, before the first start."""

    @abc.abstractmethod
    def command(self) -> list[str | Path]:
        """The command line that runs it in the foreground."""

    @abc.abstractmethod
    def ping(self) -> None:
        """Ask it something; raises while it does not answer."""

    def started(self) -> None:  # noqa: B027 - not every server needs it
        """Called after each start."""

    @property
    def _run_as(self) -> str | None:
        """PostgreSQL and MariaDB refuse to run as root."""
        if os.geteuid() != 0 or self.user is None:
            return None
        try:
            return pwd.getpwnam(self.user).pw_name
        except KeyError:
            return "nobody"

    def _answers(self) -> bool:
        if not self.running:
            raise RuntimeError(f"{type(self).__name__} ended while starting:\n{self.log()[-4000:]}")
        try:
            self.ping()
        except (OSError, psycopg.Error, pymysql.Error, redis.RedisError):
            return False
        return True

    def _run(self, command: list[str | Path]) -> None:
        """Run a command to its end, as the user who runs the server."""
        done = subprocess.run(
            [*tied_to_parent(self._run_as), *map(str, command)],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.folder,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{command[0]} failed ({done.returncode}):\n{done.stdout[-4000:]}")


class RedisServer(Server):
    """Redis; by default without persistence, without a password, and never evicting a key."""

    def __init__(
        self,
        *,
        appendonly: bool = False,
        maxmemory: str = "0",
        maxmemory_policy: str = "noeviction",
        requirepass: bool = False,
    ) -> None:
        super().__init__()
        self._options = {
            "appendonly": "yes" if appendonly else "no",
            "appendfsync": "no",
            "maxmemory": maxmemory,
            "maxmemory-policy": maxmemory_policy,
            "save": "",
        }
        self._credentials = f":{self.password}@" if requirepass else ""
        if requirepass:
            self._options["requirepass"] = self.password

    @property
    def url(self) -> str:
        return self.database_url(0)

    def database_url(self, number: int) -> str:
        """The URL of one of its 16 numbered databases."""
        return f"redis://{self._credentials}127.0.0.1:{self.port}/{number}"

    def client(self) -> redis.Redis:
        """A connected client; close it, or use it as a context manager."""
        return redis.Redis.from_url(self.url, socket_timeout=10, decode_responses=True)

    def flush(self) -> None:
        """Remove everything from all its databases."""
        with self.client() as client:
            client.flushall()

    def command(self) -> list[str | Path]:
        options = itertools.chain.from_iterable(
            (f"--{name}", value) for name, value in self._options.items()
        )
        return [
            *(need("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", self.folder, "--daemonize", "no"),
            *options,
        ]

    def ping(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=2, retry=None) as client:
            client.ping()


class DatabaseServer(Server):
    """A database server with an administrator and the unprivileged role `app`."""

    drivername: str
    admin_name: str
    admin_database: str
    query: Mapping[str, str] = MappingProxyType({})

    def __init__(self) -> None:
        super().__init__()
        self.admin_password = secrets.token_hex(8)
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """The role `app` in the database `app`."""
        return self._url("app", self.password, "app")

    @property
    def admin_url(self) -> str:
        return self._url(self.admin_name, self.admin_password, self.admin_database)

    def as_admin(self, url: str) -> str:
        """The same database, seen by the administrator."""
        return self._url(self.admin_name, self.admin_password, make_url(url).database or "")

    def create_database(self) -> str:
        """The URL, for `app`, of a new and empty database."""
        name = f"test_{next(self._numbers)}"
        self.create(name)
        return self._url("app", self.password, name)

    @abc.abstractmethod
    def create(self, name: str) -> None:
        """Create a database in which `app` may do everything."""

    def _url(self, user: str, password: str, database: str) -> str:
        url = URL.create(
            self.drivername, user, password, "127.0.0.1", self.port, database, self.query
        )
        return url.render_as_string(hide_password=False)


class PostgresServer(DatabaseServer):
    """PostgreSQL; `app` owns its databases and is no superuser."""

    user = "postgres"
    stop_signal = signal.SIGINT
    """PostgreSQL's fast shutdown: it does not wait for its clients to leave."""
    drivername = "postgresql+psycopg"
    admin_name = "postgres"
    admin_database = "postgres"

    def prepare(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(self.admin_password)
        self._run(
            [
                *(need("initdb"), "--pgdata", self.folder / "data", "--username", self.admin_name),
                *("--pwfile", password_file, "--auth", "scram-sha-256", "--no-sync"),
                *("--encoding", "UTF8", "--locale", "C"),
            ]
        )

    def command(self) -> list[str | Path]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "timezone": "UTC",
        }
        options = itertools.chain.from_iterable(("-c", f"{k}={v}") for k, v in settings.items())
        return [need("postgres"), "-D", self.folder / "data", *options]

    def ping(self) -> None:
        with self.connect() as connection:
            connection.execute("SELECT 1")

    def started(self) -> None:
        with self.connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'app'").fetchone()
            if not known:
                connection.execute(f"CREATE ROLE app LOGIN PASSWORD '{self.password}'")
                connection.execute("CREATE DATABASE app OWNER app")

    def create(self, name: str) -> None:
        with self.connect() as connection:
            connection.execute(f'CREATE DATABASE "{name}" OWNER app')

    def connect(self) -> psycopg.Connection[tuple[object, ...]]:
        """An administrator's connection, in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.admin_name,
            password=self.admin_password,
            dbname=self.admin_database,
            connect_timeout=10,
            autocommit=True,
        )


class MariaDBServer(DatabaseServer):
    """MariaDB; `app` may do everything in its databases and nothing elsewhere."""

    user = "mysql"
    drivername = "mysql+pymysql"
    admin_name = "root"
    admin_database = "mysql"
    query = MappingProxyType({"charset": "utf8mb4"})

    def prepare(self) -> None:
        self._run(
            [
                *(need("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder / 'data'}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
                "--skip-name-resolve",
            ]
        )
        # Statements that the server itself runs at every start: no moment without a password.
        setup = self.folder / "setup.sql"
        setup.write_text(
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self.admin_password}';\n"
            "DELETE FROM mysql.global_priv WHERE User = '' OR (User = 'root' AND Host <> '%'"
            " AND Host <> 'localhost');\n"
            "FLUSH PRIVILEGES;\n"
            f"CREATE USER IF NOT EXISTS 'root'@'%' IDENTIFIED BY '{self.admin_password}';\n"
            "GRANT ALL ON *.* TO 'root'@'%' WITH GRANT OPTION;\n"
            f"CREATE USER IF NOT EXISTS 'app'@'%' IDENTIFIED BY '{self.password}';\n"
            "CREATE DATABASE IF NOT EXISTS app CHARACTER SET utf8mb4;\n"
            "GRANT ALL ON app.* TO 'app'@'%';\n"
        )

    def command(self) -> list[str | Path]:
        return [
            *(need("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}"),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", "--skip-name-resolve"),
            *(f"--socket={self.folder / 's'}", f"--pid-file={self.folder / 'pid'}"),
            # A server that starts removes all temporary tables there, another one's included.
            f"--tmpdir={self.folder}",
            *(f"--init-file={self.folder / 'setup.sql'}", "--character-set-server=utf8mb4"),
            *("--innodb-flush-log-at-trx-commit=2", "--innodb-flush-method=nosync"),
            *("--default-time-zone=+00:00", "--max-connections=200"),
        ]

    def ping(self) -> None:
        self.connect().close()

    def create(self, name: str) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET utf8mb4")
            cursor.execute(f"GRANT ALL ON `{name}`.* TO 'app'@'%'")

    def connect(self) -> "pymysql.Connection[pymysql.cursors.Cursor]":
        """An administrator's connection, in autocommit mode."""
        return pymysql.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.admin_name,
            password=self.admin_password,
            database=self.admin_database,
            connect_timeout=10,
            read_timeout=10,
            autocommit=True,
        )
