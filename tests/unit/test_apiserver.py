from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from scannerjob import apiserver
from scannerjob.ports import ConfigurationError, Ref, Snapshot, UnknownOutcomeError
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
