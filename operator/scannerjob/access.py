"""What the Secrets that a spec refers to hold: URLs, and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from scannerjob.model.spec import Connection, SecretKeyRef
from scannerjob.ports import ConfigurationError, Ref, naming
from scannerjob.secrets import Secrets
from scannerjob.tls import CertificateFiles, Certificates, files_of


@dataclass(frozen=True)
class Access:
    """How one connection is made; equal certificates are the same files."""

    url: str
    files: CertificateFiles | None = None


async def access_to(connection: Connection, field: str, ref: Ref, secrets: Secrets) -> Access:
    """What a ScannerJob's Secrets hold for this connection, which is a field of its spec.

    Raises ConfigurationError naming field and Secret.
    """
    url = await _url(connection.url_secret_ref, f"{field}.urlSecretRef", ref, secrets)
    if connection.tls_secret_ref is None:
        return Access(url)
    name = connection.tls_secret_ref.name
    return Access(url, await _files(name, f"{field}.tlsSecretRef", ref, secrets))


async def _url(wanted: SecretKeyRef, field: str, ref: Ref, secrets: Secrets) -> str:
    secret = await _secret(wanted.name, field, ref, secrets)
    if wanted.key not in secret:
        there = ", ".join(sorted(secret)) or "nothing"
        message = (
            f"{field}: Secret {ref.namespace}/{wanted.name} has no key {wanted.key}; it has {there}"
        )
        raise ConfigurationError("SecretNotFound", message)
    return _text(secret[wanted.key], field)


async def _files(name: str, field: str, ref: Ref, secrets: Secrets) -> CertificateFiles:
    secret = await _secret(name, field, ref, secrets)
    try:
        return files_of(Certificates.from_secret(secret))
    except ConfigurationError as error:
        # It may be half of a rotation: have it read anew the next time.
        secrets.forget(ref.namespace, name)
        message = f"{field}: Secret {ref.namespace}/{name} {error}"
        raise ConfigurationError(error.reason, message) from None


async def _secret(name: str, field: str, ref: Ref, secrets: Secrets) -> Mapping[str, bytes]:
    with naming(field):
        return await secrets.get(ref.namespace, name)


def _text(content: bytes, field: str) -> str:
    # Not the error of the decoder: it quotes what it stumbled over.
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        message = f"{field}: the Secret's value is not UTF-8 text"
        raise ConfigurationError("InvalidURL", message) from None
