"""URLs of Redis: which are accepted, and what they say of TLS, in redis-py's words."""

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

_FILES = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
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


def tls_options(text: str, files: CertificateFiles | None, *, allow_files: bool) -> dict[str, Any]:
    """What to tell redis-py of TLS; nothing where the connection is to be plain.

    Without `allow_files` the URL must name none: they would be the operator's own. Raises
    ConfigurationError if the URL cannot be used, or not with these certificates.
    """
    url = _parse(text)
    if url.drivername == "redis":
        return _plain(url, files)
    _check_options(url, allow_files=allow_files)
    if files:
        no_second_certificates(url, _FILES)
        paths = files.authority, files.certificate, files.key
    else:
        paths = _named_by(url)
    authority, certificate, key = paths
    return {
        "ssl_cert_reqs": _check(url),
        "ssl_check_hostname": is_yes(option(url, "ssl_check_hostname")),
        "ssl_ca_certs": authority,
        "ssl_certfile": certificate,
        "ssl_keyfile": key,
    }


def _parse(text: str) -> URL:
    try:
        host_of(text)
    except ConfigurationError:
        raise _invalid("cannot be read") from None
    url = make_url(text)
    if ";" in text:
        raise _invalid("has alternatives, which are not accepted")
    if not (url.database or "0").isdecimal():
        raise _invalid("must end with the number of a database")
    return url


def _plain(url: URL, files: CertificateFiles | None) -> dict[str, Any]:
    if files:
        raise contradiction("begins with redis://, which is not encrypted (rediss:// is)")
    if url.query:
        raise _invalid("has options, of which none are accepted with redis:// (write rediss://?)")
    return {}


def _check_options(url: URL, *, allow_files: bool) -> None:
    known = _OPTIONS | (_FILES if allow_files else frozenset())
    if known.issuperset(url.query):
        return
    if _FILES & url.query.keys():
        raise _invalid("names files of the operator's machine: use tlsSecretRef")
    raise _invalid(f"has options of which these are accepted: {', '.join(sorted(known))}")


def _check(url: URL) -> ssl.VerifyMode:
    asked = (option(url, "ssl_cert_reqs") or "required").lower()
    if asked not in _CHECKS:
        raise _invalid("has an ssl_cert_reqs that is none of required, optional, none")
    return _CHECKS[asked]


def _named_by(url: URL) -> tuple[str | None, str | None, str | None]:
    authority, certificate, key = (
        option(url, name) for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
    )
    context_of_url(authority, certificate, key)
    return authority, certificate, key


def _invalid(what: str) -> ConfigurationError:
    expected = "redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER], special characters percent-encoded"
    return ConfigurationError("InvalidURL", f"the URL {what}; expected {expected}")
