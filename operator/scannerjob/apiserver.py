"""The Kubernetes API server: how it is reached, and what its answers mean."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, cast

import aiohttp
import yaml
from kubernetes.aio.client import ApiClient, ApiException, Configuration
from kubernetes.aio.client.api_client import RequestSerialized
from kubernetes.aio.client.rest import RESTClientObject, RESTResponse
from kubernetes.aio.config import (
    ConfigException,
    list_kube_config_contexts,
    load_incluster_config,
    load_kube_config,
)

from scannerjob.ports import (
    ConfigurationError,
    PortError,
    RefusedError,
    UnknownOutcomeError,
    UnreachedError,
)

_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
# How long one call may take. The API server ends its own at 60 s; a cycle should not wait for that.
TIMEOUT = 10.0
_AS_LONG_AS_IT_GOES = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT)

# Answers that prove nothing was done. All others of 429 and above leave it open.
_REFUSALS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    413: "TooLarge",
    422: "Invalid",
}


@dataclass(frozen=True, slots=True)
class Kubeconfig:
    """Which cluster is meant: that of this file, or of KUBECONFIG; its `context`, or the current.

    Where neither is said, and in a cluster, it is that one.
    """

    file: str | None = None
    context: str | None = None

    def namespace(self) -> str:
        """The namespace that the context names, or that of the pod this runs in."""
        if self._is_ours and _OWN_NAMESPACE.exists():
            return _OWN_NAMESPACE.read_text().strip()
        with self._usable():
            contexts, current = list_kube_config_contexts(self._found())  # type: ignore[no-untyped-call]
            named = [each for each in contexts if each["name"] == self.context] or [current]
            return str(named[0]["context"].get("namespace") or "default")

    async def load(self, configuration: Configuration) -> None:
        """Put it into this configuration. Raises ConfigurationError where it cannot be used."""
        if self._is_ours:
            try:
                load_incluster_config(configuration)  # type: ignore[no-untyped-call]
                return
            except ConfigException:
                pass
        with self._usable():
            await load_kube_config(  # type: ignore[no-untyped-call]
                self._found(), context=self.context, client_configuration=configuration
            )

    @property
    def _is_ours(self) -> bool:
        return self.file is None and self.context is None

    def _found(self) -> str:
        """The path, or several: where none of them is there, the library logs that too."""
        path = self.file or os.environ.get("KUBECONFIG") or "~/.kube/config"
        if not any(Path(each).expanduser().exists() for each in path.split(os.pathsep) if each):
            raise ConfigException(f"{path} does not exist")
        return path

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (ConfigException, OSError) as error:
            raise _no_cluster(str(error)) from None
        except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RuntimeError):
            # The library takes for granted that it reads what kubectl wrote.
            raise _no_cluster("its content is not that of a kubeconfig") from None


def _no_cluster(why: str) -> ConfigurationError:
    return ConfigurationError(
        "NoCluster", f"not in a cluster, and no usable kubeconfig: {why}; set KUBECONFIG"
    )


async def connect(kubeconfig: Kubeconfig = Kubeconfig()) -> ApiClient:
    """A client for the cluster this runs in or, outside of one, for the kubeconfig's context.

    Must be called in the event loop, and closed. Raises ConfigurationError if there is neither.
    """
    configuration = await access(kubeconfig)
    api = ApiClient(configuration)
    api.rest_client = _Sender(configuration, kubeconfig)
    api.user_agent = "scannerjob"
    return api


async def access(kubeconfig: Kubeconfig = Kubeconfig()) -> Configuration:
    """Where the API server is and what it is told of who asks, read anew each time.

    A service account's token is replaced every hour or so, and that of a kubeconfig may be given by
    a program. Raises ConfigurationError as `connect` does.
    """
    configuration = Configuration()
    await kubeconfig.load(configuration)
    return configuration


async def read_core(api: ApiClient, path: str, **query: str) -> dict[str, Any]:
    """The document at this path of the core API: `namespaces/docs/secrets/app-db`.

    The client's own class for that API would bring models of all that there is: a second of
    processor time at each start, and 24 MiB. Raises ApiException, as that class does.
    """
    request = await _get_core(api, path, query, accept="application/json")
    response = await api.call_api(*request, _request_timeout=TIMEOUT)
    await response.read()  # type: ignore[no-untyped-call]
    answer = api.response_deserialize(response, {"200": "object"})
    return cast(dict[str, Any], answer.data)


@asynccontextmanager
async def open_core(api: ApiClient, path: str, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
    """What is at this path, as it comes: the log of a pod that goes on, for as long as it does.

    Raises ApiException, as `read_core` does.
    """
    request = await _get_core(api, path, query, accept="*/*")
    answer = (await api.call_api(*request, _request_timeout=_AS_LONG_AS_IT_GOES)).response
    try:
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise ApiException(status=answer.status, reason=answer.reason, body=await answer.text())
        yield answer.content
    finally:
        answer.close()


async def _get_core(
    api: ApiClient, path: str, query: Mapping[str, str], accept: str
) -> RequestSerialized:
    """What `call_api` takes, for this path of the core API."""
    return await api.param_serialize(
        method="GET",
        resource_path=f"/api/v1/{path}",
        query_params=list(query.items()),
        header_params={"Accept": accept},
        auth_settings=["BearerToken"],
    )


class _Sender(RESTClientObject):
    """Sends every request once, and looks for a newer token when one is not known any more.

    aiohttp repeats a PUT by itself where a connection that it used before breaks. If the first had
    arrived, the second gets 409, and a write that was won would look like one that was lost.
    """

    def __init__(self, configuration: Configuration, kubeconfig: Kubeconfig) -> None:
        super().__init__(configuration)
        self._kubeconfig = kubeconfig

    def _create_pool_manager(self) -> aiohttp.ClientSession:
        session = super()._create_pool_manager()
        session._retry_connection = False
        return session

    async def request(self, *args: Any, **options: Any) -> RESTResponse:
        """One request. One that is refused fails, but the next is sent with what is valid then."""
        response: RESTResponse = await super().request(*args, **options)  # type: ignore[no-untyped-call]
        if response.status == HTTPStatus.UNAUTHORIZED:
            # What cannot be read now is read after the next refusal.
            with suppress(ConfigurationError):
                await self._kubeconfig.load(self.configuration)
        return response


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Around one call; `what` is what it does, for messages: "read Secret docs/app-db".

    Raises RefusedError where the API server proved that nothing was done, UnreachedError where no
    connection to it could be made, and UnknownOutcomeError where it failed or did not answer in
    time.
    """
    try:
        yield
    except ApiException as error:
        raise _meaning(what, error) from None
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        told = str(error) or type(error).__name__
        connected = not isinstance(error, aiohttp.ClientConnectorError)
        raise (UnknownOutcomeError if connected else UnreachedError)(
            "APIServerUnreachable", f"cannot {what}: no answer from the API server: {told}"
        ) from None
    except ValueError as error:
        # Something in between has answered, with what no API server says.
        raise UnknownOutcomeError(
            "APIServerFailed", f"cannot {what}: the answer cannot be read: {error}"
        ) from None


def _meaning(what: str, error: ApiException) -> PortError:
    answer = _answer(error)
    told = str(answer.get("message") or f"{error.status} {error.reason}")
    message = f"cannot {what}: {told}"
    status = int(error.status or 0)
    if status in _REFUSALS:
        return RefusedError(status, _REFUSALS[status], message, told, _causes(answer))
    return UnknownOutcomeError("APIServerFailed", message)


def _answer(error: ApiException) -> Mapping[str, Any]:
    """The Status object that the API server answers with, if it is one."""
    try:
        answer = json.loads(error.body or "")
    except (ValueError, TypeError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _causes(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = (answer.get("details") or {}).get("causes") or ()
    return [(str(each["field"]), str(each.get("message"))) for each in found if each.get("field")]


def is_older(version: str, other: str) -> bool:
    """Whether this resourceVersion is proven to be older than the other (KEP-5504)."""
    return version.isdecimal() and other.isdecimal() and int(version) < int(other)
