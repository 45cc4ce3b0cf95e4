"""From a spec's references to what they stand for: Secrets become URLs, URLs become connections."""

from __future__ import annotations

from dataclasses import dataclass

from scannerjob.model.spec import Connection, ScannerJobSpec
from scannerjob.ports import ConfigurationError, Connections, Ref
from scannerjob.secrets import Secrets
from scannerjob.sources import Databases
from scannerjob.targets.celery import Brokers


@dataclass(frozen=True)
class _Opened:
    """What was opened, and from which spec and URLs."""

    spec: ScannerJobSpec
    urls: tuple[str | None, ...]
    connections: Connections


class SecretConnector:
    """Connects every ScannerJob to what its Secrets name; equal URLs share their pools.

    Secrets are asked for at each `connect`, so that a rotated one is used without a restart; what
    is open stays open as long as spec and URLs are the same. `in_cluster` refuses what belongs to
    one machine (SQLite files) or is too powerful (a superuser's role).
    """

    def __init__(self, secrets: Secrets, *, in_cluster: bool) -> None:
        self._secrets = secrets
        self._databases = Databases(in_cluster=in_cluster)
        self._brokers = Brokers(allow_sqlite=not in_cluster)
        self._opened: dict[Ref, _Opened] = {}

    async def connect(self, ref: Ref, spec: ScannerJobSpec) -> Connections:
        """The source and target of this spec. Raises ConfigurationError naming field and Secret."""
        if spec.celery is None:
            raise ConfigurationError(
                "NotSupported", "spec.job is not supported yet by this version"
            )
        celery = spec.celery
        urls = (
            await self._url(ref, "spec.database", spec.database),
            await self._url(ref, "spec.celery.broker", celery.broker),
            await self._url(ref, "spec.celery.resultBackend", celery.result_backend),
        )
        opened = self._opened.get(ref)
        if opened is None or (opened.spec, opened.urls) != (spec, urls):
            opened = _Opened(spec, urls, self._open(spec, *urls))
            self._opened[ref] = opened
        return opened.connections

    def forget(self, ref: Ref) -> None:
        """Close what is open for this ScannerJob, and read its Secrets anew."""
        opened = self._opened.pop(ref, None)
        if opened is not None:
            for connection in _connections_of(opened.spec):
                self._secrets.forget(ref.namespace, connection.url_secret_ref.name)

    async def close(self) -> None:
        """Close all pools and threads."""
        self._opened.clear()
        self._brokers.close()
        self._databases.close()

    def _open(
        self, spec: ScannerJobSpec, database: str | None, broker: str | None, results: str | None
    ) -> Connections:
        if database is None or broker is None:
            raise ValueError("a database and a broker are required by the schema")
        return Connections(
            source=self._databases.open(database, spec),
            target=self._brokers.open(broker, results, spec),
        )

    async def _url(self, ref: Ref, field: str, connection: Connection | None) -> str | None:
        if connection is None:
            return None
        if connection.tls_secret_ref is not None:
            message = f"{field}.tlsSecretRef is not supported yet by this version"
            raise ConfigurationError("NotSupported", message)
        wanted = connection.url_secret_ref
        try:
            secret = await self._secrets.get(ref.namespace, wanted.name)
        except ConfigurationError as error:
            raise ConfigurationError(error.reason, f"{field}.urlSecretRef: {error}") from None
        if wanted.key not in secret:
            there = ", ".join(sorted(secret)) or "nothing"
            message = (
                f"{field}.urlSecretRef: Secret {ref.namespace}/{wanted.name} has no key "
                f"{wanted.key}; it has {there}"
            )
            raise ConfigurationError("SecretNotFound", message)
        return _text(secret[wanted.key], field)


def _connections_of(spec: ScannerJobSpec) -> list[Connection]:
    celery = spec.celery
    of_celery = [celery.broker, celery.result_backend] if celery else []
    return [connection for connection in (spec.database, *of_celery) if connection]


def _text(content: bytes, field: str) -> str:
    # Not the error of the decoder: it quotes what it stumbled over.
    try:
        return content.decode().strip()
    except UnicodeDecodeError:
        message = f"{field}.urlSecretRef: the Secret's value is not UTF-8 text"
        raise ConfigurationError("InvalidURL", message) from None
