"""How kopf is set up, and where the Lease is."""

from __future__ import annotations

import asyncio
import gc
import signal
from itertools import islice
from json import JSONDecodeError
from pathlib import Path
from typing import Any, cast

import aiohttp
import kopf
import pytest
import yaml
from kopf._cogs.clients.errors import APIServerError
from kopf._cogs.clients.watching import WatchingError

from scannerjob import apiserver
from scannerjob.controller import process
from scannerjob.controller.handlers import configure, session_with
from scannerjob.controller.lease import own_namespace
from scannerjob.controller.options import Options
from scannerjob.ports import ConfigurationError


def configured() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    configure(settings)
    return settings


def test_kopf_never_gives_up_on_the_api_server() -> None:
    delays = list(islice(cast(Any, configured().networking.error_backoffs), 1000))
    assert len(delays) == 1000
    assert all(1 <= delay <= 10 for delay in delays)
    # kopf counts its tries where it can, and begins anew with each request.
    assert not hasattr(configured().networking.error_backoffs, "__len__")
    backoffs = configured().networking.error_backoffs
    assert list(islice(cast(Any, backoffs), 3)) == list(islice(cast(Any, backoffs), 3))


def test_kopf_writes_nothing_and_notices_a_silent_watch() -> None:
    settings = configured()
    assert settings.peering.standalone
    assert not settings.posting.enabled
    assert 60 < settings.watching.inactivity_timeout <= 90


def kubeconfig(folder: Path, **context: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", **context}}],
                "current-context": "x",
            }
        )
    )
    return path


@pytest.mark.parametrize(
    ("context", "expected"), [({"namespace": "docs"}, "docs"), ({}, "default")]
)
def test_the_namespace_is_that_of_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, context: dict[str, str], expected: str
) -> None:
    monkeypatch.setattr(apiserver, "_OWN_NAMESPACE", tmp_path / "none")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, **context)))
    assert own_namespace() == expected


def test_in_a_pod_it_is_the_pods_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "namespace").write_text("scanners\n")
    monkeypatch.setattr(apiserver, "_OWN_NAMESPACE", tmp_path / "namespace")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, namespace="docs")))
    assert own_namespace() == "scanners"


def test_without_any_it_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apiserver, "_OWN_NAMESPACE", tmp_path / "none")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert own_namespace() == "default"


@pytest.mark.parametrize(
    ("error", "is_bug"),
    [
        (WatchingError("Error in the watch-stream"), False),
        (APIServerError(None, status=500, headers={}), False),
        (aiohttp.ClientPayloadError("broken"), False),
        (JSONDecodeError("no JSON", "<html>", 0), False),
        (TimeoutError(), False),
        (KeyError("name"), True),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_bug_alone_is_told_with_its_traceback(
    error: Exception,
    is_bug: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ends = iter([error, ConfigurationError("NoCluster", "enough")])

    async def run_and_fail(*_: object) -> None:
        raise next(ends)

    monkeypatch.setattr(process, "_run", run_and_fail)
    monkeypatch.setattr(process, "_BEGIN_ANEW_AFTER", 0.0)

    with pytest.raises(SystemExit, match="enough"):
        process.run(Options())

    (record,) = caplog.records
    assert "beginning anew" in record.message
    assert bool(record.exc_text or record.exc_info) is is_bug


class _SlowConnector(aiohttp.TCPConnector):
    """Its connections are there once it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()

    async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
        self.asked.set()
        await self.go_on.wait()
        return await super().connect(*args, **options)


async def _got(session: aiohttp.ClientSession, url: str) -> None:
    await session.get(url)


def test_kopf_is_told_of_a_session_that_was_closed_while_a_request_connected() -> None:
    async def close_it_meanwhile() -> None:
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        connector = _SlowConnector()
        async with server, connector:
            session = session_with(connector)
            request = asyncio.ensure_future(_got(session, f"http://127.0.0.1:{port}"))
            await connector.asked.wait()
            await session.close()
            connector.go_on.set()
            await request

    with pytest.raises(RuntimeError, match="Session is closed"):
        asyncio.run(close_it_meanwhile())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_while_a_broken_watch_ends_it_is_heeded(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs = 0

    async def nothing(**_: object) -> list[object]:
        return []

    async def break_off(*_: object, **__: object) -> None:
        nonlocal runs
        runs += 1
        signal.raise_signal(number)
        await asyncio.sleep(0.01)
        raise WatchingError("broken")

    monkeypatch.setattr(process, "_check", nothing)
    monkeypatch.setattr(kopf, "spawn_tasks", nothing)
    monkeypatch.setattr(kopf, "run_tasks", break_off)

    process.run(Options())

    assert runs == 1
    assert "the watch has ended: broken; stopping" in caplog.text


@pytest.mark.parametrize(
    ("task", "error", "told"),
    [
        ("watcher for jobs.v1.batch", WatchingError("broken"), False),
        ("watcher for jobs.v1.batch", KeyError(), True),
        ("engine", OSError(), True),
    ],
)
def test_of_what_nobody_looked_at_a_watch_that_was_ended_is_not_told(
    task: str, error: Exception, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise error

    async def leave_it() -> None:
        asyncio.get_running_loop().set_exception_handler(process._tell)
        await asyncio.wait([asyncio.create_task(fail(), name=task)])

    asyncio.run(leave_it())
    gc.collect()

    assert bool(caplog.records) is told
