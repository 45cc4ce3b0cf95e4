from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp.client_reqrep import ConnectionKey
from kubernetes.aio.client import ApiException

from scannerjob import apiserver
from scannerjob.apiserver import Kubeconfig, asking
from scannerjob.ports import (
    ConfigurationError,
    PortError,
    Ref,
    RefusedError,
    Snapshot,
    UnknownOutcomeError,
    UnreachedError,
)
from scannerjob.stores.kubernetes import KubernetesStore

FOUND = json.dumps(
    {
        "metadata": {
            "namespace": "default",
            "name": "pdf-pages",
            "uid": "u",
            "generation": 1,
            "resourceVersion": "7",
        }
    }
)
ANSWER = f"HTTP/1.1 200 OK\r\nContent-Length: {len(FOUND)}\r\n\r\n{FOUND}"


class ForgetfulServer:
    """Answers GET, and closes the connection in place of an answer to PUT."""

    def __init__(self) -> None:
        self.methods: list[str] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := (await reader.readuntil(b"\r\n\r\n")).decode():
            self.methods.append(head.split()[0])
            if self.methods[-1] == "PUT":
                break
            writer.write(ANSWER.encode())
        writer.close()


def kubeconfig(folder: Path, server: str) -> str:
    path = folder / "config"
    context = {"cluster": "test", "user": "test"}
    document = {
        "current-context": "test",
        "contexts": [{"name": "test", "context": context}],
        "clusters": [{"name": "test", "cluster": {"server": server}}],
        "users": [{"name": "test", "user": {"token": "secret"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return str(path)


async def lose_a_reply(port: int) -> None:
    api = await apiserver.connect()
    try:
        store = KubernetesStore(api)
        snapshot = await store.read(Ref("default", "pdf-pages"))
        assert isinstance(snapshot, Snapshot)
        with pytest.raises(UnknownOutcomeError):
            await store.write(snapshot, {"launched": 1})
    finally:
        await api.close()  # type: ignore[no-untyped-call]


def test_a_write_whose_reply_was_lost_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgetful = ForgetfulServer()

    async def scenario() -> None:
        server = await asyncio.start_server(forgetful, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("KUBECONFIG", kubeconfig(tmp_path, f"http://127.0.0.1:{port}"))
        async with server:
            await lose_a_reply(port)

    asyncio.run(scenario())
    assert forgetful.methods == ["GET", "PUT"]


def test_without_cluster_and_kubeconfig_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="KUBECONFIG"):
        asyncio.run(apiserver.connect())


def test_a_kubeconfig_that_is_not_there_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ConfigurationError, match="none does not exist; set KUBECONFIG"):
        Kubeconfig(str(tmp_path / "none")).namespace()

    assert caplog.messages == []


@pytest.mark.parametrize(
    "content",
    [b"\x80\xff", b"\x00", b"", b"text", b"- a", b"{}", b"clusters: 3", b"a: [", b"[" * 2000],
)
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "config"
    file.write_bytes(content)

    with pytest.raises(ConfigurationError, match="no usable kubeconfig"):
        Kubeconfig(str(file)).namespace()
    with pytest.raises(ConfigurationError, match="no usable kubeconfig"):
        asyncio.run(apiserver.connect(Kubeconfig(str(file))))


KEY = ConnectionKey("db", 443, True, True, None, None, None)


def meaning(error: Exception) -> PortError:
    with pytest.raises(PortError) as told, asking("create Job docs/pages-1"):
        raise error
    return told.value


def answered(status: int, body: object = None, reason: str = "Why") -> ApiException:
    error = ApiException(status=status, reason=reason)
    error.body = body if isinstance(body, str) or body is None else json.dumps(body)
    return error


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
def test_a_refusal_proves_that_nothing_was_done(status: int) -> None:
    error = meaning(answered(status, {"message": "no"}))

    assert isinstance(error, RefusedError)
    assert (error.status, error.told, error.causes) == (status, "no", ())
    assert str(error) == "cannot create Job docs/pages-1: no"


@pytest.mark.parametrize("status", [0, 408, 410, 429, 500, 503, 504])
def test_any_other_answer_leaves_it_open(status: int) -> None:
    error = meaning(answered(status))

    assert type(error) is UnknownOutcomeError
    assert error.reason == "APIServerFailed"


def test_a_refusal_names_the_fields_that_are_wrong() -> None:
    named = {"reason": "FieldValueRequired", "message": "Required value", "field": "spec.a"}
    causes: list[Mapping[str, str]] = [named, {"message": "of no field"}, {"field": "spec.b"}]

    error = meaning(answered(422, {"message": "no", "details": {"causes": causes}}))

    assert isinstance(error, RefusedError)
    assert error.causes == (("spec.a", "Required value"), ("spec.b", "None"))


@pytest.mark.parametrize("body", [None, "", "<html>", "[]", '"a"', "{}", '{"details": null}'])
def test_an_answer_that_is_no_status_is_told_by_its_code(body: str | None) -> None:
    error = meaning(answered(403, body, "Forbidden"))

    assert str(error) == "cannot create Job docs/pages-1: 403 Forbidden"


@pytest.mark.parametrize(
    "error",
    [
        aiohttp.ClientConnectorError(KEY, OSError("refused")),
        aiohttp.ClientConnectorDNSError(KEY, OSError("unknown host")),
        aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("expired")),
    ],
)
def test_without_a_connection_nothing_was_done(error: Exception) -> None:
    assert type(meaning(error)) is UnreachedError


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        aiohttp.ServerDisconnectedError(),
        aiohttp.ClientOSError("reset"),
        ConnectionResetError("reset"),
    ],
)
def test_an_answer_that_was_lost_leaves_it_open(error: Exception) -> None:
    lost = meaning(error)

    assert type(lost) is UnknownOutcomeError
    assert lost.reason == "APIServerUnreachable"
    assert str(lost).startswith("cannot create Job docs/pages-1: no answer from the API server: ")
    assert not str(lost).endswith(": ")
