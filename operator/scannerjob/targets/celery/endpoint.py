"""A server as messages may name it, and as clients are to speak to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import DBAPIError

from scannerjob.ports import TargetError
from scannerjob.tls import TLS_FAILED, CertificateFiles, explain
from scannerjob.urls import endpoint_identity, error_line, host_of


@dataclass(frozen=True)
class Endpoint:
    """A broker or a result backend: `kind` says which.

    `tls` is what its client is told of TLS, in the client's own words; nothing for a plain
    connection. `files` are what it may refer to: they stay as long as this does.
    """

    kind: str
    url: str = field(repr=False)
    tls: Mapping[str, Any] = field(default_factory=dict, repr=False)
    files: CertificateFiles | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{self.kind} {host_of(self.url)}"

    @property
    def identity(self) -> str:
        """A hash of where the URL leads, credentials left out."""
        return endpoint_identity(self.url)

    @property
    def bare_url(self) -> str:
        """The URL without its options, which are said in `tls`."""
        return self.url.partition("?")[0]

    def describe(self, error: Exception) -> str:
        """What went wrong there, in one line without secrets."""
        if isinstance(error, TimeoutError):
            return f"{self} did not answer in time"
        said = _said(error)
        return f"{self}: {explain(said, self.url) or error_line(said, self.url)}"

    def failure(self, reason: str, error: Exception) -> TargetError:
        """What is to be raised for an error of its client: TLSFailed if it is that, or `reason`."""
        failed = explain(_said(error), self.url) is not None
        return TargetError(TLS_FAILED if failed else reason, self.describe(error))


def _said(error: Exception) -> str:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return str(cause) or type(cause).__name__
