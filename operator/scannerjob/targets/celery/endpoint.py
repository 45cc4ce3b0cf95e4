"""A server as messages may name it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy.exc import DBAPIError

from scannerjob.urls import endpoint_identity, error_line, host_of


@dataclass(frozen=True)
class Endpoint:
    """A broker or a result backend: `kind` says which."""

    kind: str
    url: str = field(repr=False)

    def __str__(self) -> str:
        return f"{self.kind} {host_of(self.url)}"

    @property
    def identity(self) -> str:
        """A hash of where the URL leads, credentials left out."""
        return endpoint_identity(self.url)

    def describe(self, error: Exception) -> str:
        """What went wrong there, in one line without secrets."""
        if isinstance(error, TimeoutError):
            return f"{self} did not answer in time"
        cause = error.orig if isinstance(error, DBAPIError) else error
        return f"{self}: {error_line(str(cause) or type(cause).__name__, self.url)}"
