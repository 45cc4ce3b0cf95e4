"""One Lease of an API server, with compare-and-swap."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from kubernetes.aio.client import ApiClient, CoordinationV1Api, V1Lease, V1LeaseSpec, V1ObjectMeta

from scannerjob.apiserver import Kubeconfig, asking
from scannerjob.ports import ConfigurationError, ConflictError, Ref, RefusedError

_FORBIDDEN = "grant get, create and update on leases there, or use --no-leader-election"


@dataclass(frozen=True)
class Lease:
    """Who holds it, "" for nobody, and its version, which each renewal changes.

    The rest is kept for the next write: for people to read, or somebody else's.
    """

    holder: str
    version: str
    acquired: datetime | None = None
    transitions: int = 0
    metadata: V1ObjectMeta | None = field(default=None, compare=False, repr=False)


class LeaseStore:
    """The Lease of this name. Every call takes at most `timeout` seconds.

    All methods raise RefusedError, UnknownOutcomeError and, where they write, ConflictError. The
    times in a Lease are for people to read; `seconds` is what they are told of its duration.
    """

    def __init__(self, api: ApiClient, name: Ref, timeout: float, seconds: int) -> None:
        self.name = name
        self._api = CoordinationV1Api(api)
        self._timeout = timeout
        self._seconds = seconds

    async def read(self) -> Lease | None:
        """The Lease as it is now, or None if there is none."""
        try:
            with asking(f"read Lease {self.name}"):
                found = await self._api.read_namespaced_lease(
                    self.name.name, self.name.namespace, _request_timeout=self._timeout
                )
        except RefusedError as error:
            if error.status == 404:
                return None
            raise _hinted(error) from None
        return _lease(found)

    async def write(self, lease: Lease | None, holder: str) -> Lease:
        """Give it to this holder, if it is still as it was read; None if there was none."""
        body = self._body(lease, holder)
        try:
            with asking(f"write Lease {self.name}"):
                return _lease(await self._put(body, new=lease is None))
        except RefusedError as error:
            if error.status == 409 or (error.status == 404 and lease):
                raise ConflictError(str(error)) from None
            raise _hinted(error) from None

    async def _put(self, body: V1Lease, *, new: bool) -> V1Lease:
        namespace = self.name.namespace
        if new:
            return await self._api.create_namespaced_lease(
                namespace, body, _request_timeout=self._timeout
            )
        return await self._api.replace_namespaced_lease(
            self.name.name, namespace, body, _request_timeout=self._timeout
        )

    def _body(self, lease: Lease | None, holder: str) -> V1Lease:
        now = datetime.now(UTC)
        # The API server wants microseconds, and the client leaves them out where they are 0.
        now = now.replace(microsecond=now.microsecond or 1)
        changed = lease is None or lease.holder != holder
        metadata = V1ObjectMeta(name=self.name.name, namespace=self.name.namespace)
        return V1Lease(
            metadata=(lease and lease.metadata) or metadata,
            spec=V1LeaseSpec(
                holder_identity=holder or None,
                lease_duration_seconds=self._seconds,
                acquire_time=now if changed or lease is None else lease.acquired,
                renew_time=now,
                lease_transitions=(lease.transitions if lease else 0) + (changed and bool(holder)),
            ),
        )


def _lease(found: V1Lease) -> Lease:
    spec, metadata = found.spec or V1LeaseSpec(), found.metadata or V1ObjectMeta()
    metadata.managed_fields = None  # the API server keeps them itself
    return Lease(
        holder=spec.holder_identity or "",
        version=metadata.resource_version or "",
        acquired=spec.acquire_time,
        transitions=spec.lease_transitions or 0,
        metadata=metadata,
    )


def _hinted(error: RefusedError) -> RefusedError:
    if error.status != 403:
        return error
    return RefusedError(error.status, error.reason, f"{error}; {_FORBIDDEN}")


def own_namespace() -> str:
    """The namespace this pod runs in or, outside of one, that of the kubeconfig's context."""
    try:
        return Kubeconfig().namespace()
    except ConfigurationError:
        return "default"
