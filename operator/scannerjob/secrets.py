"""Secrets: what the operator asks of them, and those of a directory."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from scannerjob.ports import ConfigurationError


class Secrets(Protocol):
    """Secrets by name."""

    async def get(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """The contents of a Secret, by key.

        Raises ConfigurationError, reason SecretNotFound or SecretUnreadable, and PortError where it
        cannot be asked for.
        """
        ...

    def forget(self, namespace: str, name: str) -> None:
        """Read it anew the next time: what it held was refused."""
        ...


class DirectorySecrets:
    """Secrets as they are mounted: each a directory NAME below `path`, with a file for each KEY.

    Namespaces play no part here.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """See Secrets."""
        return await asyncio.to_thread(self._read, name)

    def forget(self, namespace: str, name: str) -> None:
        """See Secrets. Nothing is kept here."""

    def _read(self, name: str) -> Mapping[str, bytes]:
        folder = self._path / name
        try:
            # A mounted Secret has hidden entries beside its keys: the directory they link to.
            files = [file for file in folder.iterdir() if not file.name.startswith("..")]
            return {file.name: file.read_bytes() for file in files if file.is_file()}
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigurationError(
                "SecretNotFound",
                f"Secret {name} is not there: expected the directory {folder}, a file for each key",
            ) from None
        except OSError as error:
            raise ConfigurationError(
                "SecretUnreadable", f"Secret {name} cannot be read: {error.strerror} ({folder})"
            ) from None
