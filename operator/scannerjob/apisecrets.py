"""Secrets of an API server."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass

from kubernetes.aio.client import ApiClient

from scannerjob.apiserver import asking, read_core
from scannerjob.ports import ConfigurationError, RefusedError

# How long a Secret is not read again. One that was not there is looked for each time.
_KEEP_SECONDS = 60.0


@dataclass(frozen=True)
class _Kept:
    contents: Mapping[str, bytes]
    until: float


class KubernetesSecrets:
    """Secrets of an API server, got by name alone (never listed or watched), kept for a minute."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._kept: dict[tuple[str, str], _Kept] = {}

    async def get(self, namespace: str, name: str) -> Mapping[str, bytes]:
        """See Secrets."""
        now = time.monotonic()
        kept = self._kept.get((namespace, name))
        if kept is None or kept.until <= now:
            kept = _Kept(await self._read(namespace, name), now + _KEEP_SECONDS)
            self._drop_old(now)
            self._kept[namespace, name] = kept
        return kept.contents

    def forget(self, namespace: str, name: str) -> None:
        """See Secrets."""
        self._kept.pop((namespace, name), None)

    def _drop_old(self, now: float) -> None:
        """No password stays in memory for longer than it is used."""
        self._kept = {secret: kept for secret, kept in self._kept.items() if kept.until > now}

    async def _read(self, namespace: str, name: str) -> Mapping[str, bytes]:
        try:
            with asking(f"read Secret {namespace}/{name}"):
                secret = await read_core(self._api, f"namespaces/{namespace}/secrets/{name}")
        except RefusedError as error:
            raise _unreadable(namespace, name, error) from None
        return {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _unreadable(namespace: str, name: str, error: RefusedError) -> ConfigurationError:
    secret = f"Secret {namespace}/{name}"
    match error.status:
        case 404:
            return ConfigurationError("SecretNotFound", f"{secret} is not there: create it")
        case 403:
            message = f"{secret} must not be read: grant `get` on it ({error})"
            return ConfigurationError("SecretUnreadable", message)
        case _:
            return ConfigurationError("SecretUnreadable", str(error))
