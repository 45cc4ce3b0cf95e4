from __future__ import annotations

from pathlib import Path

import pytest

from scannerjob.model.printable import without_userinfo
from scannerjob.ports import ConfigurationError
from scannerjob.urls import (
    endpoint_identity,
    error_line,
    host_of,
    parse_database_url,
    scrub,
)

CANARY = "s3cr3t"


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("postgresql://u:p@db/app", "postgresql+psycopg"),
        ("postgres://u:p@db/app", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@db/app", "postgresql+psycopg"),
        ("mysql://u:p@db/app", "mysql+pymysql"),
        ("mysql+pymysql://u:p@db/app", "mysql+pymysql"),
        ("mariadb://u:p@db/app", "mysql+pymysql"),
        ("mariadb+pymysql://u:p@db/app", "mysql+pymysql"),
        ("sqlite:///app.db", "sqlite"),
    ],
)
def test_each_database_has_one_driver(text: str, driver: str) -> None:
    assert parse_database_url(text).drivername == driver


def test_a_secrets_trailing_newline_does_not_matter() -> None:
    assert parse_database_url("postgresql://u:p@db/app\n").database == "app"


def test_userinfo_is_decoded() -> None:
    url = parse_database_url("postgresql://us%40er:p%3A%2F%25w@db:5433/app")
    assert (url.username, url.password, url.host, url.port) == ("us@er", "p:/%w", "db", 5433)


@pytest.mark.parametrize("option", ["sslmode=verify-full", "application_name=scanner"])
def test_harmless_options_are_kept(option: str) -> None:
    name, value = option.split("=")
    assert parse_database_url(f"postgresql://db/app?{option}").query[name] == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        CANARY,
        f"u:{CANARY}@db/app",
        f"postgresql://u:p@{CANARY}:word@host/db",
        f"postgresql://u:p@{CANARY}@host/db",
        f"postgresql://u:p@{CANARY}/x@host/db",
        f"postgresql://u/x:{CANARY}@host/db",
        f"postgresql://u@domain:{CANARY}@host/db",
        f"postgresql://u:{CANARY}@host:port/db",
        f"postgresql://u:{CANARY}",
        f"postgresql://u:{CANARY}@host",
        f"postgresql://u:{CANARY}@host/",
        f"postgresql://u:{CANARY}@host/db\nx",
        f"postgresql+psycopg2://u:{CANARY}@host/db",
        f"postgresql+asyncpg://u:{CANARY}@host/db",
        f"mysql+mysqldb://u:{CANARY}@host/db",
        f"oracle://u:{CANARY}@host/db",
        f"sqla+postgresql://u:{CANARY}@host/db",
        f"postgresql://u:{CANARY}@host/db?passfile=/etc/passwd",
        f"postgresql://host/db?password={CANARY}",
        f"mysql://u:{CANARY}@host/db?read_default_file=/etc/passwd",
        f"mysql://u:{CANARY}@host/db?local_infile=1",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=rwc&uri=true",
        f"sqlite://u:{CANARY}@host/db",
        f"sqlite://host/{CANARY}",
        f"postgresql://u:a%00{CANARY}@host/db",
    ],
)
def test_what_is_refused_is_not_shown(text: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_database_url(text)
    assert refused.value.reason == "InvalidURL"
    assert CANARY not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    "text",
    ["sqlite:////tmp/app.db", "postgresql://db/app?sslkey=/etc/key", "mysql://db/a?ssl_ca=x"],
)
def test_files_are_accepted_outside_a_cluster_only(text: str) -> None:
    parse_database_url(text)
    with pytest.raises(ConfigurationError):
        parse_database_url(text, local_files=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("postgresql://a:b@db/app", "postgres://c:d@DB:5432/app?sslmode=require"),
        ("mysql://a@db/app", "mariadb+pymysql://b:c@db:3306/app"),
        ("redis://db", "rediss://:pw@db:6379/0?ssl_cert_reqs=required"),
        ("amqp://a:b@db", "pyamqp://c:d@db:5672//"),
        ("amqps://a:b@db/v", "amqp://db:5671/v"),
        ("sqla+postgresql://a:b@db/app", "db+postgresql+psycopg://c@db/app"),
        ("sqlite:///app.db", f"sqlite:///{Path('app.db').absolute()}"),
    ],
)
def test_the_same_endpoint_has_one_identity(one: str, other: str) -> None:
    assert endpoint_identity(one) == endpoint_identity(other)
    assert len(endpoint_identity(one)) == 12


def test_different_endpoints_differ() -> None:
    urls = [
        "postgresql://db/app",
        "postgresql://db/app2",
        "postgresql://db:5433/app",
        "postgresql://db2/app",
        "mysql://db/app",
        "redis://db/0",
        "redis://db/1",
        "amqp://db/a",
        "amqp://db",
        "sqlite:////a",
        "sqlite:////b",
    ]
    assert len({endpoint_identity(url) for url in urls}) == len(urls)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:p@db.example/app?sslmode=require", "db.example:5432/app"),
        ("mysql://u:p@db:3307/app", "db:3307/app"),
        ("redis://:p@cache", "cache:6379/0"),
        ("amqp://u:p@mq//", "mq:5672//"),
        ("sqla+sqlite:////tmp/x.db", "/tmp/x.db"),
    ],
)
def test_a_place_is_shown_without_credentials(url: str, shown: str) -> None:
    assert host_of(url) == shown


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:s%3Ac%40r@db/app", "raw s%3Ac%40r, decoded s:c@r"),
        ("postgresql://u:a+b%20c@db/app", "a+b%20c a+b c a%2Bb%20c a%2Bb+c"),
        ("postgresql://u:p@ss:word@db/app", "p@ss:word and ss:word@db"),
        ("redis://:hunter2@db", "AUTH hunter2"),
        ("redis://db?password=hunter2", "AUTH hunter2"),
        ("postgresql://u:it's@db/app", "it's"),
    ],
)
def test_scrub_leaves_nothing_of_a_password(url: str, said: str) -> None:
    scrubbed = scrub(f"login of u failed: {said}", url)
    assert "login of u failed" in scrubbed
    for part in ("s:c@r", "s%3A", "b c", "b%20c", "ss:word", "hunter2", "it's"):
        assert part not in scrubbed


def test_scrub_of_a_url_without_password_changes_nothing() -> None:
    assert scrub("an error", "sqlite:///x.db", "postgresql://db/app", "postgresql://u:@db/a") == (
        "an error"
    )


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{CANARY}/part2@h/0",
        f"redis://:6379/{CANARY}@h/0",
        f"redis://:63#79{CANARY}@redis.example",
        f"redis://:63?79{CANARY}@redis.example/0",
        f"redis://app:[{CANARY}@redis.example/0",
        f"redis://app:x@redis.example:99999/{CANARY}",
        f"redis://app:x@redis.example/0#{CANARY}",
        f"amqp://app:5672/{CANARY}@mq/v",
    ],
)
def test_a_url_that_clients_read_otherwise_is_refused(url: str) -> None:
    for read in (host_of, endpoint_identity):
        with pytest.raises(ConfigurationError, match="percent-encoded") as refused:
            read(url)
        assert CANARY not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://:s3%2Fcr%3Fe%23t%40@h/0", "h:6379/0"),
        ("redis://us%3Aer:p+%25w@Cache:6380/3", "cache:6380/3"),
        ("redis://app@[::1]:6380", "::1:6380/0"),
        ("amqp://a:b%2F@mq:5673/%2Fv", "mq:5673//v"),
    ],
)
def test_an_encoded_password_leads_where_clients_go(url: str, place: str) -> None:
    assert host_of(url) == place


def test_a_part_of_a_password_that_a_parser_quotes_is_not_shown() -> None:
    for url in ("redis://:s3cret/part2@h/0", "postgresql://u:s3cret%2Fpart2@h/db"):
        said = scrub("port 's3cret' is no number, part2@h has none", url)
        assert said == "port '***' is no number, ***@h has none"


def test_what_is_said_of_an_error_is_one_line_without_user_and_password() -> None:
    url = "sqla+postgresql://secret%40user:hunter2@db/app"
    said = '\nlogin of "secret@user" (secret%40user) with hunter2 failed for secret@users\nHINT'
    assert error_line(said, url) == 'login of "***" (***) with *** failed for secret@users'
    assert error_line(" \n", url) == "no reason was given"


def test_a_long_password_that_is_not_quoted_whole_is_not_shown_in_part() -> None:
    url = "redis://:a%2Ftoken+as-of-cloud-providers@h/0"
    assert scrub("args: 'a/token+as-of-cl' 'a%2Ftoken+as' a/token", url) == (
        "args: '***' '***' a/token"
    )


def test_a_password_in_the_text_of_bytes_is_not_shown() -> None:
    password = "pass wörd/of €"
    said = f"Protocol Error: {password.encode()!r}, {password!r}"
    assert scrub(said, "redis://:pass%20w%C3%B6rd%2Fof%20%E2%82%AC@h/0") == (
        "Protocol Error: b'***', '***'"
    )


def test_a_password_where_a_long_message_is_cut_is_not_shown_in_part() -> None:
    for length in range(485, 501):
        line = error_line("x" * length + " hunter2hunter2", "postgresql://u:hunter2hunter2@db/app")
        assert "hun" not in line
        assert len(line) <= 500


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("no postgresql://u:s3@cr/t@db/app here", "no postgresql://***@db/app here"),
        ("postgresql:/u:s3cr3t@db/app: cannot be read", "postgresql:/***@db/app: cannot be read"),
        ("at 'postgresql://u:s3 cr 3t@db/app'", "at 'postgresql://***@db/app'"),
        ("redis://:s3 cr3t@h/0, not redis://:b@h", "redis://***@h/0, not redis://***@h"),
        ("http://h:s see amqp://u:s3cr3t@h", "http://h:s see amqp://***@h"),
    ],
)
def test_urls_in_what_others_wrote_show_no_userinfo(said: str, shown: str) -> None:
    assert without_userinfo(said) == shown


@pytest.mark.parametrize(
    "said",
    [
        "mail a:b@c, see https://db.example/x",
        "https://db.example:5432 timed out: ask ops@db.example",
        "https://db.example:5432/x timed out: ask ops@db.example",
        "https://db.example: timed out: ask ops@db.example",
        "https://[::1]:5432/ timed out: ask ops@db.example",
        "C:/app/tasks.py:12: ask ops@db.example",
        "https://a:b\nops@db.example",
    ],
)
def test_what_others_wrote_is_shown_where_it_is_no_userinfo(said: str) -> None:
    assert without_userinfo(said) == said


def test_a_url_without_a_user_masks_nothing() -> None:
    assert error_line("no such table: pdf", "sqlite:////tmp/a@b.db") == "no such table: pdf"
