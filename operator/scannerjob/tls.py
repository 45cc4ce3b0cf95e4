"""TLS: certificates that Secrets hold, in the forms in which clients take them, and its errors."""

from __future__ import annotations

import atexit
import re
import shutil
import ssl
import tempfile
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import URL

from scannerjob.ports import ConfigurationError
from scannerjob.urls import TLS_FILES, error_line

TLS_FAILED = "TLSFailed"
"""The reason of whatever keeps two sides from an encrypted connection that both trust."""

_KEYS = ("ca.crt", "tls.crt", "tls.key")
# With these libpq may go on without encryption.
_MAY_BE_PLAIN = ("disable", "allow", "prefer")
_NO = ("false", "no", "0", "off")


@dataclass(frozen=True)
class Certificates:
    """PEM texts: the authority to check a server with, and what to show it; equal ones are one."""

    authority: bytes = field(default=b"", repr=False)
    certificate: bytes = field(default=b"", repr=False)
    key: bytes = field(default=b"", repr=False)

    @classmethod
    def from_secret(cls, contents: Mapping[str, bytes]) -> Certificates:
        """Those of a Secret laid out as kubernetes.io/tls, where an empty value counts as none.

        Raises ConfigurationError, reason InvalidCertificate, if it holds nothing, or half of a
        client certificate.
        """
        found = cls(*(contents.get(key, b"").strip() for key in _KEYS))
        if found == cls():
            there = ", ".join(sorted(contents)) or "nothing"
            raise _invalid(f"has none of {', '.join(_KEYS)}; it has {there}")
        if bool(found.certificate) != bool(found.key):
            missing = "tls.key" if found.certificate else "tls.crt"
            raise _invalid(f"has no {missing}: tls.crt and tls.key come together")
        return found


_folders: set[Path] = set()


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _folders.discard(folder)


@atexit.register
def _remove_all() -> None:
    # Those too that a daemon thread is about to remove: it is stopped in the midst of that.
    for folder in tuple(_folders):
        _remove(folder)


class CertificateFiles:
    """Certificates as files that only we can read, for clients that take paths; None for no file.

    They are removed with the last reference to this, and when the process ends. One that is killed
    leaves them behind, unless its folder for temporary files is in memory.
    """

    def __init__(self, certificates: Certificates) -> None:
        """Raises ConfigurationError, reason InvalidCertificate, where no client could read them."""
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="scannerjob-"))
            _folders.add(self._folder)
            self._remove = weakref.finalize(self, _remove, self._folder)
            self._remove.atexit = False
            self.authority = self._write("ca.crt", certificates.authority)
            self.certificate = self._write("tls.crt", certificates.certificate)
            self.key = self._write("tls.key", certificates.key)
        except OSError as error:
            advice = "set TMPDIR to a folder that can be written to, best one in memory"
            raise _invalid(f"cannot be written to files ({error.strerror}): {advice}") from None
        if problem := self._problem():
            self._remove()
            raise _invalid(problem)

    @property
    def complete(self) -> bool:
        """Whether they are all there: some machines remove temporary files after some days."""
        paths = (self.authority, self.certificate, self.key)
        return all(Path(path).exists() for path in paths if path)

    def _write(self, name: str, content: bytes) -> str | None:
        if not content:
            return None
        file = self._folder / name
        file.touch(mode=0o600)
        file.write_bytes(content)
        return str(file)

    def _problem(self) -> str | None:
        try:
            client_context(self.authority, None, None)
        except ssl.SSLError:
            return "has a ca.crt that holds no certificate in PEM form"
        try:
            client_context(self.authority, self.certificate, self.key)
        except ssl.SSLError:
            problem = "that are not PEM, are encrypted, or do not belong together"
            return f"has a tls.crt and a tls.key {problem}"
        return None


_files: weakref.WeakValueDictionary[Certificates, CertificateFiles] = weakref.WeakValueDictionary()


def files_of(certificates: Certificates) -> CertificateFiles:
    """The files of these certificates, the same for all who hold them. Raises ConfigurationError.

    They are the same object as long as somebody refers to it and no file is missing.
    """
    files = _files.get(certificates)
    if files is None or not files.complete:
        files = _files[certificates] = CertificateFiles(certificates)
    return files


def client_context(
    authority: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    """A context of these files, which checks a server and its host's name. Raises OSError.

    Without an authority those that this machine trusts are taken.
    """
    context = ssl.create_default_context(cafile=authority)
    # As PyMySQL does by itself: authorities of databases are often older than these rules.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if certificate:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    return context


def context_of_url(
    authority: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    """The same of files that a URL names. Raises ConfigurationError where they cannot be used."""
    if key and not certificate:
        raise ConfigurationError("InvalidURL", "the URL names a key, and no certificate to go with")
    try:
        return client_context(authority, certificate, key)
    except OSError as error:
        # OpenSSL's errors quote nothing of a file.
        what = f"the URL names certificates that cannot be used: {error.strerror or error}"
        raise ConfigurationError("InvalidURL", what) from None


def no_second_certificates(url: URL, names: frozenset[str]) -> None:
    """Raises ConfigurationError if a URL that has a tlsSecretRef names certificates, too."""
    if twice := sorted(names & url.query.keys()):
        raise contradiction(f"names certificates itself ({', '.join(twice)})")


def database_arguments(url: URL, files: CertificateFiles | None) -> dict[str, Any]:
    """What to give the driver of a database beside its URL.

    With certificates the connection is encrypted, and the server and its host's name are checked
    as far as the URL does not ask for less. Raises ConfigurationError where the two contradict.
    """
    family = url.get_backend_name()
    if files:
        _check_database(family, url)
    if family == "postgresql" and files:
        return _libpq_arguments(url, files)
    if family == "mysql" and (files or any(name.startswith("ssl_") for name in url.query)):
        return {"ssl": _mysql_context(url, files)}
    return {}


def _check_database(family: str, url: URL) -> None:
    if family == "sqlite":
        raise contradiction("names a file, to which no connection leads")
    no_second_certificates(url, TLS_FILES[family])
    if (mode := option(url, "sslmode")) in _MAY_BE_PLAIN:
        raise contradiction(f"says sslmode={mode}, which need not encrypt")


def _libpq_arguments(url: URL, files: CertificateFiles) -> dict[str, Any]:
    mode = option(url, "sslmode") or "verify-full"
    if not files.authority and mode != "require":
        what = "has no ca.crt to check PostgreSQL with: add it, or say sslmode=require in the URL"
        raise _invalid(f"the Secret of tlsSecretRef {what}, which checks nothing")
    arguments = {
        "sslmode": mode,
        "sslrootcert": files.authority,
        "sslcert": files.certificate,
        "sslkey": files.key,
    }
    return {name: value for name, value in arguments.items() if value}


def _mysql_context(url: URL, files: CertificateFiles | None) -> ssl.SSLContext:
    """In place of PyMySQL's own, which checks nothing where no authority is named."""
    if files:
        context = client_context(files.authority, files.certificate, files.key)
    else:
        context = context_of_url(*(option(url, name) for name in ("ssl_ca", "ssl_cert", "ssl_key")))
    context.check_hostname = is_yes(option(url, "ssl_check_hostname"))
    return context


def option(url: URL, name: str) -> str | None:
    """An option of a URL, the last where there are several; None for none."""
    value = url.query.get(name)
    return value if value is None or isinstance(value, str) else value[-1]


def is_yes(value: str | None) -> bool:
    """What an option means that is yes unless it says no."""
    return value is None or value.lower() not in _NO


def contradiction(what: str, advice: str = "remove one of the two") -> ConfigurationError:
    """What to raise where a URL and a tlsSecretRef do not go together."""
    message = f"the URL {what}, and there is a tlsSecretRef: {advice}"
    return ConfigurationError("InvalidURL", message)


def _invalid(what: str) -> ConfigurationError:
    return ConfigurationError("InvalidCertificate", what)


# What OpenSSL, libpq, PyMySQL and servers say, and what it means of the server. The first that fits
# holds: the order is from the particular to the general.
_MEANINGS = {
    "certificate has expired|certificate is not yet valid": (
        "its certificate has expired, or is not valid yet: renew it there, or set the clocks"
    ),
    "hostname mismatch|IP address mismatch|does not match host name": (
        "its certificate is for another host: have the URL name the host as the certificate does, "
        "or issue one for this host"
    ),
    "certificate verify failed": (
        "its certificate is not trusted: it must not have expired, and be issued by the authority "
        "in ca.crt of tlsSecretRef"
    ),
    "certificate required|requires a valid client certificate": (
        "it demands a client certificate: put tls.crt and tls.key into the Secret of tlsSecretRef"
    ),
    "alert certificate expired": (
        "it refuses our certificate, which has expired: renew tls.crt of tlsSecretRef"
    ),
    "alert (unknown ca|bad certificate|certificate (unknown|revoked)|decrypt error)": (
        "it refuses our certificate: put one into tls.crt of tlsSecretRef that was issued by an "
        "authority which it knows"
    ),
    "EOF occurred in violation": (
        "it ended the connection in the middle: if it does so each time, it demands a client "
        "certificate, or refuses ours (tls.crt of tlsSecretRef)"
    ),
    "wrong version number|does not support SSL|server doesn't support it": (
        "it does not speak TLS at this port: use one where it does, or set it up there"
    ),
    "(certificate|private key) file": (
        "there is no authority to check it with, or a file that the URL names cannot be read: put "
        "ca.crt into a Secret and name it in tlsSecretRef"
    ),
    r"\A(?!.*SSL encryption).*no encryption": (
        "it lets this user in with TLS only, or not at all: use tlsSecretRef or sslmode=require"
    ),
}
_ANY_OTHER = re.compile(r"\[SSL|SSL error")


def explain(said: str, url: str) -> str | None:
    """What is wrong and what to do, if an error of a client's is one of TLS; None if it is not.

    `url` is where it arose; nothing secret of it is shown.
    """
    for pattern, meaning in _MEANINGS.items():
        if re.search(pattern, said, re.IGNORECASE | re.DOTALL):
            return meaning
    return f"TLS failed: {error_line(said, url)}" if _ANY_OTHER.search(said) else None
