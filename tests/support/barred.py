"""Users whom real servers know, and let in nowhere or to nothing; their passwords are canaries."""

from collections.abc import Iterator

from tests.support.bad_urls import SecretUrl
from tests.support.canary import MARK, ODD, encoded, userinfo
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import MariaDBServer, PostgresServer, RedisServer, Server


def barred_from_postgres(server: PostgresServer) -> Iterator[SecretUrl]:
    """Roles that PostgreSQL refuses for other reasons than a wrong password."""
    with server.connect() as admin:
        database = server.create_database().rpartition("/")[2]
        admin.execute(f'REVOKE CONNECT ON DATABASE "{database}" FROM PUBLIC'.encode())
        for what, options in {
            "no-login": "NOLOGIN",
            "expired": "LOGIN VALID UNTIL '2020-01-01'",
            "no-connections-left": "LOGIN CONNECTION LIMIT 0",
            "no-right-to-connect": "LOGIN",
        }.items():
            admin.execute(f'DROP ROLE IF EXISTS "{_user(what)}"'.encode())
            admin.execute(f"CREATE ROLE \"{_user(what)}\" {options} PASSWORD '{ODD}'".encode())
            yield _url("database", "postgresql", what, server, database)


def barred_from_mariadb(server: MariaDBServer) -> Iterator[SecretUrl]:
    """Users whom MariaDB refuses for other reasons than a wrong password."""
    database = server.create_database().rpartition("/")[2]
    with server.connect() as admin, admin.cursor() as cursor:
        for what, options in {
            "account-locked": "ACCOUNT LOCK",
            "encryption-required": "REQUIRE SSL",
            "password-expired": "PASSWORD EXPIRE",
            "no-right-to-the-database": "",
        }.items():
            cursor.execute(f"DROP USER IF EXISTS '{_user(what)}'@'%'")
            tls, account = (options, "") if "SSL" in options else ("", options)
            cursor.execute(
                f"CREATE USER '{_user(what)}'@'%%' IDENTIFIED BY %s {tls} {account}", (ODD,)
            )
            yield _url("database", "mysql", what, server, database)


def barred_from_redis(server: RedisServer) -> Iterator[SecretUrl]:
    """Users whom Redis lets do nothing."""
    with server.client() as admin:
        for what, (enabled, keys, commands, database) in {
            "switched-off": (False, ["*"], ["+@all"], "0"),
            "no-commands": (True, ["*"], ["-@all"], "0"),
            "no-keys": (True, [], ["+@all"], "0"),
            "no-such-database": (True, ["*"], ["+@all"], "99"),
        }.items():
            admin.acl_setuser(
                *(_user(what), enabled),
                passwords=[f"+{ODD}"],
                keys=keys,
                commands=commands,
                reset=True,
            )
            yield _url("broker", "redis", what, server, database)


def barred_from_rabbit(server: RabbitServer) -> Iterator[SecretUrl]:
    """A user of RabbitMQ who may enter no virtual host."""
    what = "no-right-to-the-vhost"
    server.ask("PUT", f"users/{encoded(_user(what))}", {"password": ODD, "tags": ""})
    yield _url("broker", "amqp", what, server, "app")


def _user(what: str) -> str:
    return f"{MARK}-{what}"


def _url(part: str, scheme: str, what: str, server: Server, end: str) -> SecretUrl:
    place = f"127.0.0.1:{server.port}"
    url = f"{scheme}://{userinfo(_user(what), ODD)}@{place}/{end}"
    return SecretUrl(f"{scheme}-{what}", part, url, place, what)
