"""From a spec's references to what they stand for: Secrets become URLs, URLs become connections."""

from __future__ import annotations

from dataclasses import dataclass

from scannerjob.logs import hide
from scannerjob.model.spec import Connection, ScannerJobSpec
from scannerjob.ports import ConfigurationError, Connections, Ref, RowSource, Snapshot
from scannerjob.secrets import Secrets
from scannerjob.sources import Databases
from scannerjob.targets.celery import Brokers
from scannerjob.targets.job import JobTargets


@dataclass(frozen=True)
class _Urls:
    """What the Secrets of a spec hold; no broker for Jobs."""

    database: str
    broker: str
    results: str | None


@dataclass(frozen=True)
class _Opened:
    """What was opened, and for which object, spec and URLs."""

    uid: str
    spec: ScannerJobSpec
    urls: _Urls
    connections: Connections

    @property
    def made_from(self) -> tuple[str, ScannerJobSpec, _Urls]:
        return self.uid, self.spec, self.urls


class SecretConnector:
    """Connects every ScannerJob to what its Secrets name; equal URLs share their pools.

    Secrets are asked for at each `connect`, so that a rotated one is used without a restart; what
    is open stays open as long as spec and URLs are the same. `in_cluster` refuses what belongs to
    one machine (SQLite files) or is too powerful (a superuser's role). Without `jobs` there is no
    cluster to launch Jobs in.
    """

    def __init__(
        self, secrets: Secrets, *, in_cluster: bool, jobs: JobTargets | None = None
    ) -> None:
        self._secrets = secrets
        self._jobs = jobs
        self._databases = Databases(in_cluster=in_cluster)
        self._brokers = Brokers(allow_sqlite=not in_cluster)
        self._opened: dict[Ref, _Opened] = {}

    async def connect(self, snapshot: Snapshot, spec: ScannerJobSpec) -> Connections:
        """The source and target of this spec. Raises ConfigurationError naming field and Secret."""
        ref, celery = snapshot.ref, spec.celery
        urls = _Urls(
            database=await self._url(ref, "spec.database", spec.database),
            broker=await self._url(ref, "spec.celery.broker", celery.broker) if celery else "",
            results=await self._optional_url(
                ref, "spec.celery.resultBackend", celery.result_backend if celery else None
            ),
        )
        hide(ref, urls.database, urls.broker, urls.results or "")
        opened = self._opened.get(ref)
        made_from = (snapshot.uid, spec, urls)
        if opened is None or opened.made_from != made_from:
            opened = _Opened(*made_from, self._open(snapshot, spec, urls))
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

    def _open(self, snapshot: Snapshot, spec: ScannerJobSpec, urls: _Urls) -> Connections:
        source = self._source(urls.database, spec)
        if spec.job is None:
            return Connections(source, self._brokers.open(urls.broker, urls.results, spec))
        if self._jobs is None:
            raise ConfigurationError(
                "NotSupported", "spec.job: Kubernetes Jobs are launched by the operator only"
            )
        return Connections(source, self._jobs.open(snapshot, spec))

    def _source(self, url: str, spec: ScannerJobSpec) -> RowSource:
        try:
            return self._databases.open(url, spec)
        except ConfigurationError as error:
            raise ConfigurationError(error.reason, f"spec.database: {error}") from None

    async def _optional_url(
        self, ref: Ref, field: str, connection: Connection | None
    ) -> str | None:
        return None if connection is None else await self._url(ref, field, connection)

    async def _url(self, ref: Ref, field: str, connection: Connection) -> str:
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
