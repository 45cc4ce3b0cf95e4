"""URLs of databases and brokers: which are accepted, what identifies them, and how to show them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, unquote_plus, urlsplit

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from scannerjob.ports import ConfigurationError

_DRIVERS = {
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mysql+pymysql": "mysql+pymysql",
    # SQLAlchemy's mariadb dialect refuses a MySQL server, its mysql dialect speaks to both.
    "mariadb": "mysql+pymysql",
    "mariadb+pymysql": "mysql+pymysql",
    "sqlite": "sqlite",
}
TLS_FILES = {
    "postgresql": frozenset({"sslrootcert", "sslcert", "sslkey"}),
    "mysql": frozenset({"ssl_ca", "ssl_cert", "ssl_key"}),
    "sqlite": frozenset[str](),
}
"""The options by which each names certificates: files of the machine that we run on."""
# Other options can have a driver read files and programs of this machine, or change how we read.
_OPTIONS = {
    "postgresql": frozenset({"sslmode", "application_name", "target_session_attrs"}),
    "mysql": frozenset({"charset", "ssl_check_hostname"}),
    "sqlite": frozenset[str](),
}
_FAMILIES = {
    "postgres": "postgresql",
    "mariadb": "mysql",
    "rediss": "redis",
    "amqps": "amqp",
    "pyamqp": "amqp",
}
_PORTS = {"postgresql": 5432, "mysql": 3306, "redis": 6379, "amqp": 5672}
_AMQPS_PORT = 5671
_EXAMPLE = "DIALECT://USER:PASSWORD@HOST:PORT/DATABASE"
_MASK = "***"
# Shorter parts of a password tell little, and stand in many a harmless word.
_TELLING = 4
# As much of a password is not told by chance: what begins like it is a part of it.
_BEGINNING = 12
_MAX_LINE = 500


def parse_database_url(text: str, *, local_files: bool = True) -> URL:
    """The URL of a database, with the driver that is installed for it.

    `local_files` is for a process that works with files of its own machine: without it neither a
    SQLite database nor a certificate's file can be named. Raises ConfigurationError, reason
    InvalidURL, with no part of the text in its message.
    """
    url = _parse(text)
    driver = _DRIVERS.get(url.drivername)
    if driver is None or (driver == "sqlite" and not local_files):
        raise _invalid(f"must begin with {_accepted(local_files)}")
    url = url.set(drivername=driver)
    # The host in the URL of a file is a part of its path, or another database was meant.
    misread = driver == "sqlite" and (url.host or url.username)
    if misread or not url.database or url.database == ":memory:":
        raise _invalid(f"names no database: expected {_expected(url)}")
    _check_options(url, allow_files=local_files)
    return url


def endpoint_identity(url: str) -> str:
    """Twelve hexadecimal digits that stand for where a database or broker URL leads.

    Credentials, driver, and options such as TLS do not change it; host, port, and database (or
    virtual host, or a SQLite file's absolute path) do. Raises ConfigurationError.
    """
    parsed = _parse(_without_wrapper(url))
    identity = f"{_family(parsed)}://{_place(parsed)}"
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def host_of(url: str) -> str:
    """Where a URL leads, for messages: `db.example:5432/app`, or a SQLite file's absolute path.

    Raises ConfigurationError.
    """
    return _place(_parse(_without_wrapper(url)))


def scrub(text: str, *urls: str) -> str:
    """The text without the passwords of these URLs, however they are encoded in it."""
    forms = {form for url in urls for secret in _secrets(url) for form in _forms(secret)}
    secrets = sorted(filter(None, forms), key=len, reverse=True)
    for secret in secrets:
        text = text.replace(secret, _MASK)
    for secret in secrets:
        text = _without_beginnings(text, secret)
    return text


def _without_beginnings(text: str, secret: str) -> str:
    """Not even a part of a secret that was too long to be quoted whole."""
    done, head = "", secret[:_BEGINNING]
    while len(head) == _BEGINNING and head in text:
        before, _, _ = text.partition(head)
        done, text = done + before + _MASK, text[len(before) :]
        told = next(n for n in range(len(secret), 0, -1) if text.startswith(secret[:n]))
        text = text[told:]
    return done + text


def error_line(said: str, url: str) -> str:
    """What a client said of an error at this URL: one line of at most 500 characters.

    Neither the password nor the user is shown. Raises ConfigurationError where the URL is not one.
    """
    said = scrub(said.strip(), url)
    user = _parse(_without_wrapper(url)).username
    for form in sorted(set(_forms(user or "")) - {""}, key=len, reverse=True):
        said = re.sub(rf"(?<!\w){re.escape(form)}(?!\w)", _MASK, said)
    # Cut last: of a password at the end, the part that is left would not be found.
    return (said.splitlines() or ["no reason was given"])[0][:_MAX_LINE]


def _parse(text: str) -> URL:
    text = text.strip()
    try:
        url = make_url(text)
        alike = _family(url) in _OPTIONS or _is_read_alike(text, url)
    except (ArgumentError, ValueError):
        # What the parser says quotes what it stumbled over.
        raise _unreadable() from None
    # An @ that does not end the userinfo belongs to a password which was not encoded: the parser
    # has taken the rest of it for the host, or for the database.
    stray = text.count("@") != (url.username is not None)
    # Clients written in C take a %00 for the end, and the default host for what it keeps from them.
    whole = text.isprintable() and "%00" not in text
    if not alike or not whole or (stray and _family(url) != "sqlite"):
        raise _unreadable()
    return url


def _is_read_alike(text: str, url: URL) -> bool:
    """Whether urllib, by which kombu and redis-py read, finds the same in it as SQLAlchemy did.

    It does not where a / ? or # stands unencoded in a password: a part of it would be the host's
    port, be shown in errors, and lead elsewhere than we say. Raises ValueError.
    """
    other = urlsplit(text)
    theirs = (other.username, other.password, other.hostname, other.port, other.path[1:])
    host = (url.host or "").lower()
    ours = (url.username, url.password, host, url.port, url.database)
    return [unquote(str(part or "")) for part in theirs] == [str(part or "") for part in ours]


def _unreadable() -> ConfigurationError:
    encode = "with special characters in USER and PASSWORD percent-encoded (@ is %40, / is %2F)"
    return _invalid(f"cannot be read: expected {_EXAMPLE}, {encode}")


def _without_wrapper(text: str) -> str:
    """Celery writes `sqla+` or `db+` before the URL of a database."""
    return re.sub(r"^\s*(sqla|sqlalchemy|db)\+", "", text)


def _invalid(what: str) -> ConfigurationError:
    return ConfigurationError("InvalidURL", f"the URL {what}")


def _accepted(local_files: bool) -> str:
    accepted = "postgresql://, mysql:// or mariadb:// (drivers: psycopg, PyMySQL)"
    return f"{accepted}, or sqlite:///PATH" if local_files else accepted


def _expected(url: URL) -> str:
    return "sqlite:///PATH" if _family(url) == "sqlite" else _EXAMPLE


def _check_options(url: URL, *, allow_files: bool) -> None:
    family = _family(url)
    known = _OPTIONS[family] | (TLS_FILES[family] if allow_files else frozenset())
    if not known.issuperset(url.query):
        if TLS_FILES[family] & url.query.keys():
            raise _invalid("names files of the operator's machine: use tlsSecretRef")
        accepted = ", ".join(sorted(known)) or "none"
        raise _invalid(f"has an option that is not accepted here; accepted: {accepted}")


def _family(url: URL) -> str:
    name = url.get_backend_name()
    return _FAMILIES.get(name, name)


def _place(url: URL) -> str:
    family = _family(url)
    if family == "sqlite":
        return str(Path(url.database or ":memory:").absolute())
    default = _AMQPS_PORT if url.drivername == "amqps" else _PORTS.get(family)
    return f"{(url.host or 'localhost').lower()}:{url.port or default}/{_database(url)}"


def _database(url: URL) -> str:
    """The database or virtual host; the one a client takes where the URL names none."""
    match _family(url):
        case "redis":
            return (url.database or "").strip("/") or "0"
        case "amqp":
            return url.database or "/"
        case _:
            return url.database or ""


def _secrets(url: str) -> Iterator[str]:
    """What may be the password, or a part of it, where parsers break it in two."""
    _, _, after_user = url.partition("://")[2].partition(":")
    password, _, _ = after_user.rpartition("@")
    yield password
    for whole in (password, unquote(password)):
        yield from (part for part in re.split("[@:/?#]", whole) if len(part) >= _TELLING)
    for option in re.finditer(r"[?&][^=&]*password=([^&]*)", url):
        yield option[1]


def _forms(secret: str) -> Iterator[str]:
    decoded = unquote(secret)
    yield from (secret, decoded, unquote_plus(secret))
    yield from (quote(decoded), quote(decoded, safe=""), quote_plus(decoded))
    yield from (repr(decoded)[1:-1], repr(decoded.encode())[2:-1])
