"""Users of the servers whose passwords are renewed, as those in Secrets are."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.harness.stage import Stage


class Credentials:
    """Gives a user, one of some, a new password everywhere; what is connected stays so."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._roles: set[str] = set()

    def renew(self, user: str) -> Mapping[str, str]:
        """The user's URLs, by server; those of before let nobody in."""
        password = secrets.token_hex(8)
        self._in_database(user, password)
        self._in_redis(user, password)
        self._in_rabbitmq(user, password)
        servers = {
            "database": self._stage.database_url,
            "redis": self._stage.redis.url,
            "rabbitmq": self._stage.rabbitmq.url,
        }
        return {name: _with_user(url, user, password) for name, url in servers.items()}

    def _in_database(self, user: str, password: str) -> None:
        what = "ALTER" if user in self._roles else "CREATE"
        with self._stage.postgres.connect() as connection:
            connection.execute(f"{what} ROLE {user} LOGIN PASSWORD '{password}'".encode())
            connection.execute(f"GRANT app TO {user}".encode())
        self._roles.add(user)

    def _in_redis(self, user: str, password: str) -> None:
        with self._stage.redis.client() as client:
            rights = ("on", "resetpass", f">{password}", "~*", "&*", "+@all")
            client.execute_command("ACL", "SETUSER", user, *rights)

    def _in_rabbitmq(self, user: str, password: str) -> None:
        rabbitmq = self._stage.rabbitmq
        rabbitmq.ask("PUT", f"users/{user}", {"password": password, "tags": ""})
        rights = {"configure": ".*", "write": ".*", "read": ".*"}
        rabbitmq.ask("PUT", f"permissions/app/{user}", rights)


def _with_user(url: str, user: str, password: str) -> str:
    parts = urlsplit(url)
    place = f"{user}:{password}@{parts.hostname}:{parts.port}"
    return parts._replace(netloc=place).geturl()
