"""What the operator is made of: a client, a store, a connector and the engine."""

from __future__ import annotations

from dataclasses import dataclass

from kubernetes.aio.client import ApiClient, CustomObjectsApi

from scannerjob import apiserver
from scannerjob.apiserver import TIMEOUT, RefusedError, asking
from scannerjob.connect import SecretConnector
from scannerjob.controller.secrets import KubernetesSecrets
from scannerjob.engine import Engine
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import ConfigurationError
from scannerjob.stores.kubernetes import KubernetesStore
from scannerjob.targets.job import JobTargets


@dataclass(frozen=True)
class Operator:
    """One operator process; engine and jobs are told what the watches see by kopf's handlers."""

    engine: Engine
    jobs: JobTargets
    _api: ApiClient
    _connector: SecretConnector

    @classmethod
    async def open(cls) -> Operator:
        """Connect to the API server. Raises ConfigurationError if it knows no ScannerJobs."""
        api = await apiserver.connect()
        try:
            await _require_crd(api)
        except BaseException:
            await _close(api)
            raise
        jobs = JobTargets(api)
        connector = SecretConnector(KubernetesSecrets(api), in_cluster=True, jobs=jobs)
        return cls(Engine(KubernetesStore(api), connector), jobs, api, connector)

    async def close(self) -> None:
        """Stop launching, write down what is known of what was launched, and close everything."""
        await self.engine.close()
        await self._connector.close()
        await _close(self._api)


async def _require_crd(api: ApiClient) -> None:
    """Raises ConfigurationError without the CRD, where kopf would only warn and wait for ever."""
    version = API_VERSION.removeprefix(f"{API_GROUP}/")
    try:
        with asking(f"find {API_VERSION} on the API server"):
            await CustomObjectsApi(api).get_api_resources(
                API_GROUP, version, _request_timeout=TIMEOUT
            )
    except RefusedError as error:
        if error.status != 404:
            raise
        message = f"{error}: install the CRD first (kubectl apply -f crds/)"
        raise ConfigurationError("NoCRD", message) from None


async def _close(api: ApiClient) -> None:
    await api.close()  # type: ignore[no-untyped-call]
