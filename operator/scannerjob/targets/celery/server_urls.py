"""URLs of Redis and RabbitMQ: which are accepted, and what their clients are told of TLS."""

from __future__ import annotations

import ssl
from typing import Any

from sqlalchemy import URL, make_url

from scannerjob.ports import ConfigurationError
from scannerjob.tls import (
    CertificateFiles,
    context_of_url,
    contradiction,
    is_yes,
    no_second_certificates,
    option,
)
from scannerjob.urls import host_of

_REDIS = "redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER] (rediss:// with TLS)"
_AMQP = "amqp://[USER:PASSWORD@]HOST[:PORT][/VIRTUALHOST] (amqps:// with TLS)"
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS = frozenset({"ssl_cert_reqs", "ssl_check_hostname"})
# redis-py's words, and Celery's.
_CHECKS = {
    "required": ssl.CERT_REQUIRED,
    "optional": ssl.CERT_OPTIONAL,
    "none": ssl.CERT_NONE,
    "cert_required": ssl.CERT_REQUIRED,
    "cert_optional": ssl.CERT_OPTIONAL,
    "cert_none": ssl.CERT_NONE,
}


def redis_tls(text: str, files: CertificateFiles | None, *, allow_files: bool) -> dict[str, Any]:
    """What redis-py is told of TLS; nothing where the connection is to be plain.

    Without `allow_files` the URL must name none: they would be the operator's own. Raises
    ConfigurationError if the URL cannot be used, or not with these certificates.
    """
    url = _parse(text, _REDIS)
    if not (url.database or "0").isdecimal():
        raise _invalid("must end with the number of a database", _REDIS)
    if url.drivername == "redis":
        return _plain(url, files, _REDIS, "rediss://")
    _check_options(url, allow_files=allow_files)
    authority, certificate, key = _paths(url, files)
    return {
        "ssl_cert_reqs": _check(url),
        "ssl_check_hostname": is_yes(option(url, "ssl_check_hostname")),
        "ssl_ca_certs": authority,
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
    }


def amqp_tls(text: str, files: CertificateFiles | None) -> dict[str, Any]:
    """What py-amqp is told of TLS; otherwise as for Redis. It knows no options in URLs."""
    url = _parse(text, _AMQP)
    if url.drivername != "amqps":
        return _plain(url, files, _AMQP, "amqps://")
    _no_options(url, _AMQP)
    return {
        "cert_reqs": ssl.CERT_REQUIRED,
        # Without it the host's name is not checked.
        "server_hostname": url.host or "localhost",
        "ca_certs": files and files.authority,
        "certfile": files and files.certificate,
        "keyfile": files and files.key,
    }


def _parse(text: str, expected: str) -> URL:
    try:
        host_of(text)
    except ConfigurationError:
        raise _invalid("cannot be read", expected) from None
    if "+" in text.partition("://")[0]:
        raise _invalid("has a driver, of which none is accepted", expected)
    if ";" in text:
        raise _invalid("has alternatives, of which none are accepted", expected)
    return make_url(text)


def _plain(
    url: URL, files: CertificateFiles | None, expected: str, encrypted: str
) -> dict[str, Any]:
    if files:
        what = f"begins with {url.drivername}://, which is not encrypted"
        raise contradiction(what, f"write {encrypted}")
    _no_options(url, expected)
    return {}


def _no_options(url: URL, expected: str) -> None:
    if url.query:
        raise _invalid("has options, of which none are accepted", expected)


def _check_options(url: URL, *, allow_files: bool) -> None:
    known = _OPTIONS | (set(_FILES) if allow_files else set())
    if known.issuperset(url.query):
        return
    if not url.query.keys().isdisjoint(_FILES):
        raise _invalid("names files of the operator's machine: use tlsSecretRef", _REDIS)
    raise _invalid(f"has options beside {', '.join(sorted(known))}", _REDIS)


def _check(url: URL) -> ssl.VerifyMode:
    asked = (option(url, "ssl_cert_reqs") or "required").lower()
    if asked not in _CHECKS:
        raise _invalid("has an ssl_cert_reqs that is not required, optional or none", _REDIS)
    return _CHECKS[asked]


def _paths(url: URL, files: CertificateFiles | None) -> tuple[str | None, str | None, str | None]:
    if files:
        no_second_certificates(url, frozenset(_FILES))
        return files.authority, files.certificate, files.key
    authority, certificate, key = (option(url, name) for name in _FILES)
    context_of_url(authority, certificate, key)
    return authority, certificate, key


def _invalid(what: str, expected: str) -> ConfigurationError:
    message = f"the URL {what}; expected {expected}, special characters percent-encoded"
    return ConfigurationError("InvalidURL", message)
