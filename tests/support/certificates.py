"""Certificates for servers of the tests and for their clients, of authorities of their own."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, as PEM."""

    pem: bytes
    key: bytes


class Authority:
    """Issues certificates that are good for a day; `pem` is its own.

    authority = Authority()
    server, client = authority.issue(), authority.issue("scanner")
    """

    def __init__(self, name: str = "authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = _sign(self._name, self._key.public_key(), self, is_authority=True)
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, host: str = HOST, *, expired: bool = False) -> Certificate:
        """A certificate for this host; or, of a client, for whoever has this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _sign(_name(host), key.public_key(), self, host=host, expired=expired)
        return Certificate(certificate.public_bytes(serialization.Encoding.PEM), _pem(key))

    def secret(self, certificate: Certificate | None = None) -> dict[str, bytes]:
        """A Secret laid out as kubernetes.io/tls: this authority, and what its owner shows."""
        shown = {"tls.crt": certificate.pem, "tls.key": certificate.key} if certificate else {}
        return {"ca.crt": self.pem, **shown}


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A new certificate for 127.0.0.1, which is its own authority, and its key: two PEM files."""
    authority = Authority(HOST)
    files = folder / "proxy.crt", folder / "proxy.key"
    files[0].write_bytes(authority.pem)
    files[1].write_bytes(_pem(authority._key))
    return files


def _sign(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: Authority,
    *,
    host: str = HOST,
    is_authority: bool = False,
    expired: bool = False,
) -> x509.Certificate:
    now = datetime.now(UTC)
    identifier = x509.SubjectKeyIdentifier.from_public_key(key)
    issuers = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer._key.public_key())
    until = now - timedelta(minutes=1) if expired else now + timedelta(days=1)
    return (
        x509.CertificateBuilder(issuer._name, subject, key, x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(until)
        .add_extension(x509.SubjectAlternativeName([_host(host)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(_usage(is_authority), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(issuers, critical=False)
        .sign(issuer._key, hashes.SHA256())
    )


def _usage(is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
