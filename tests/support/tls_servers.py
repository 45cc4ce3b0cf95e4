"""The real servers, with TLS: each shows a certificate, and demands one of its clients.

    with TlsRedis(authority) as server:
        url = server.tls_url
        server.show(authority.issue(expired=True))

Administrators come in without a certificate, so that the tests can look after their servers.
"""

import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.certificates import Authority, Certificate
from tests.support.ports import free_port
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer, Server


class TlsServer(Server):
    """What servers with TLS have in common; `authority` is the one of its clients, too."""

    authority: Authority
    _certificate: Certificate

    @property
    def tls_url(self) -> str:
        """The URL that an application would use, by which it must come with TLS."""
        return self.url

    def show(self, certificate: Certificate, authority: Authority | None = None) -> None:
        """Show another certificate to whoever connects, and let in clients of this authority.

        Those who are connected have to connect again.
        """
        self._certificate, self.authority = certificate, authority or self.authority
        self._write_certificates()
        self.read_certificates()

    def read_certificates(self) -> None:
        """Have it read them anew, which may take it a moment, and leave all its clients."""
        self.restart()

    def prepare(self) -> None:
        self._write_certificates()
        super().prepare()

    def _trust(self, authority: Authority) -> None:
        self.authority, self._certificate = authority, authority.issue()

    def _write_certificates(self) -> None:
        contents = {
            self._server_certificate: self._certificate.pem,
            self._server_key: self._certificate.key,
            self._client_authority: self.authority.pem,
        }
        for file, content in contents.items():
            file.touch(mode=0o600)
            file.write_bytes(content)
            if self._run_as:
                shutil.chown(file, self._run_as, self._run_as)

    @property
    def _server_certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def _server_key(self) -> Path:
        return self.folder / "server.key"

    @property
    def _client_authority(self) -> Path:
        return self.folder / "clients.crt"


class TlsRedis(TlsServer, RedisServer):
    """Redis with a second port, for TLS."""

    def __init__(self, authority: Authority, *, requirepass: bool = False) -> None:
        super().__init__(requirepass=requirepass)
        self._trust(authority)
        self.tls_port = free_port()
        self._options |= {
            "tls-port": str(self.tls_port),
            "tls-auth-clients": "yes",
            "tls-cert-file": str(self._server_certificate),
            "tls-key-file": str(self._server_key),
            "tls-ca-cert-file": str(self._client_authority),
        }

    @property
    def tls_url(self) -> str:
        return _at(self.url.replace("redis:", "rediss:"), self.tls_port)

    def read_certificates(self) -> None:
        certificates = [
            *("tls-cert-file", self._server_certificate),
            *("tls-key-file", self._server_key),
            *("tls-ca-cert-file", self._client_authority),
        ]
        with self.client() as client:
            client.execute_command("CONFIG SET", *map(str, certificates))
            client.client_kill_filter(_type="normal", skipme=True)


class TlsPostgres(TlsServer, PostgresServer):
    """PostgreSQL that lets `app` in with TLS and a certificate only."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._trust(authority)

    def prepare(self) -> None:
        super().prepare()
        (self.folder / "data" / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 scram-sha-256\n"
            "hostssl all app 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
        )

    def command(self) -> list[str | Path]:
        settings = {
            "ssl": "on",
            "ssl_cert_file": self._server_certificate,
            "ssl_key_file": self._server_key,
            "ssl_ca_file": self._client_authority,
        }
        options = (part for k, v in settings.items() for part in ("-c", f"{k}={v}"))
        return [*super().command(), *options]

    def read_certificates(self) -> None:
        self.process.send(signal.SIGHUP)
        with self.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'"
            )

    def change_password(self, password: str) -> None:
        """Give `app` another one, which its URL has from now on."""
        with self.connect() as connection:
            connection.execute(f"ALTER ROLE app PASSWORD '{password}'")
        self.password = password


class TlsMariaDB(TlsServer, MariaDBServer):
    """MariaDB that lets nobody in without TLS, and `app` only with a certificate."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._trust(authority)

    def prepare(self) -> None:
        super().prepare()
        with (self.folder / "setup.sql").open("a") as setup:
            setup.write("ALTER USER 'app'@'%' REQUIRE X509;\n")

    def command(self) -> list[str | Path]:
        return [
            *super().command(),
            *(f"--ssl-cert={self._server_certificate}", f"--ssl-key={self._server_key}"),
            *(f"--ssl-ca={self._client_authority}", "--require-secure-transport=ON"),
        ]

    def read_certificates(self) -> None:
        with self.connect() as connection, connection.cursor() as cursor:
            cursor.execute("FLUSH SSL")
            cursor.execute("KILL USER app")


class TlsRabbit(TlsServer, RabbitServer):
    """RabbitMQ with a second port, for TLS."""

    def __init__(self, authority: Authority) -> None:
        super().__init__()
        self._trust(authority)
        self.tls_port = free_port()
        self._settings |= {
            "listeners.ssl.default": f"127.0.0.1:{self.tls_port}",
            "ssl_options.certfile": str(self._server_certificate),
            "ssl_options.keyfile": str(self._server_key),
            "ssl_options.cacertfile": str(self._client_authority),
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
        }

    def ping(self) -> None:
        super().ping()
        # It listens here later than at the port of its management API.
        socket.create_connection(("127.0.0.1", self.tls_port), timeout=5).close()

    @property
    def tls_url(self) -> str:
        return _at(self.url.replace("amqp:", "amqps:"), self.tls_port)


def _at(url: str, port: int) -> str:
    parts = urlsplit(url)
    userinfo, _, _ = parts.netloc.rpartition(":")
    return parts._replace(netloc=f"{userinfo}:{port}").geturl()
