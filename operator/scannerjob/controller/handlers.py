"""kopf's part: which objects there are, and when to start and stop.

kopf's own way of writing to objects is never used: it has no precondition, so nothing can be
claimed with it. Handlers return nothing, patch nothing and leave no finalizer behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import Any, cast

import aiohttp
import kopf

from scannerjob import apiserver
from scannerjob.controller.operator import Operator
from scannerjob.controller.options import Options
from scannerjob.logs import scrub_tracebacks
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import ConfigurationError, PortError, Ref
from scannerjob.targets.job import JOB_LABEL

log = logging.getLogger(__name__)

_SCANNERJOBS = (API_GROUP, API_VERSION.removeprefix(f"{API_GROUP}/"), "scannerjobs")
_JOBS = ("batch", "v1", "jobs")
_RETRY_START = 5.0
_LOGIN_EVERY = 2.0
# What kopf's tasks are called that watch.
WATCHER = "watcher for "
_END_WITHIN = 5.0
# An API server sends a bookmark about once a minute, if there is nothing else to send.
_MAX_SILENCE = 90.0


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Configure kopf, and begin."""
    scrub_tracebacks()
    configure(settings)
    try:
        memo.operator = await Operator.open(_options(settings, memo))
    except ConfigurationError as error:
        raise kopf.PermanentError(str(error)) from None
    except PortError as error:
        raise kopf.TemporaryError(str(error), delay=_RETRY_START) from None
    if health := memo.get("health"):
        health.operator = memo.operator
    log.info("ready for ScannerJobs")


@kopf.on.login(backoff=_LOGIN_EVERY)
async def log_in(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> kopf.AiohttpSession:
    """Give kopf what our own client uses, as often as the API server knows it no more.

    By itself kopf would not use again what was refused once, and end: but an API server that cannot
    look into a token now may be able to in a moment. A session is never one that was refused.
    """
    if refused := memo.get("connector"):
        await asyncio.sleep(_LOGIN_EVERY)
        await refused.close()
    access = await apiserver.access()
    scheme, __, token = access.api_key.get("BearerToken", "").partition(" ")
    info = kopf.ConnectionInfo(
        server=access.host,
        ca_path=access.ssl_ca_cert,
        insecure=not access.verify_ssl,
        scheme=scheme or None,
        token=token or None,
        certificate_path=access.cert_file,
        private_key_path=access.key_file,
    )
    # Two watches are often refused together, and the first lets kopf close the session. Were its
    # connections closed with it, the second would wait for the rest of its refusal: for ever, if it
    # were not for the limit on a watch that is silent.
    memo.connector = aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context())
    session = session_with(
        memo.connector,
        headers=info.as_http_headers(),
        proxy=access.proxy,
        trust_env=settings.networking.trust_env,
    )
    return kopf.AiohttpSession(server=info.server, aiohttp_session=session)


def session_with(connector: aiohttp.BaseConnector, **options: Any) -> aiohttp.ClientSession:
    """A session that leaves its connector open, and lets kopf know where it was closed.

    Where that happens while a request connects, aiohttp runs into an AttributeError, and kopf would
    end by it. By a RuntimeError it knows that it has to log in and try again.
    """

    async def tell(
        request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        try:
            return await send(request)
        except (AssertionError, AttributeError):
            if session.closed:
                raise RuntimeError("Session is closed") from None
            raise

    session = aiohttp.ClientSession(
        connector=connector, connector_owner=False, middlewares=[tell], **options
    )
    return session


def _options(settings: kopf.OperatorSettings, memo: kopf.Memo) -> Options:
    """Those of `run` or, under `kopf run`, the defaults.

    kopf does not tell a handler which namespaces are watched, only whether it is all of them.
    """
    everywhere = settings.peering.clusterwide
    return memo.get("options") or Options(namespaces=() if everywhere else None)


class _ForEver:
    """The seconds between tries. kopf ends, and all with it, when it has no more tries."""

    def __iter__(self) -> Iterator[float]:
        return chain((1, 1, 2, 3, 5, 8), repeat(10))


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps kopf from copying each object it is shown to find out what changed: nobody asks."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return cast(kopf.BodyEssence, {})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        pass


def configure(settings: kopf.OperatorSettings) -> None:
    """Let no watch hang for long, try for ever, and write nothing."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.persistence.diffbase_storage = _NoDiffs()
    settings.scanning.disabled = True
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 10
    settings.networking.error_backoffs = _ForEver()
    # The server ends a watch before the client gives it up for dead.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.inactivity_timeout = _MAX_SILENCE
    settings.watching.chunk_size = 500
    # Only what carries our label: a cluster may have many Jobs.
    settings.watching.label_selectors[_JOBS] = JOB_LABEL
    settings.background.cancellation_polling = 2


@kopf.on.event(*_SCANNERJOBS)
async def seen(
    event: kopf.RawEvent,
    meta: kopf.Meta,
    memo: kopf.Memo,
    namespace: str | None,
    name: str | None,
    **_: Any,
) -> None:
    """Wake the engine for what a person did; `memo` lasts as long as the object.

    Every write of a status comes back as an event. To look again for each would double the cycles,
    and an endless exchange between two operators would begin.
    """
    if event["type"] == "DELETED":
        memo.operator.gone(event["object"])
        return
    memo.operator.seen(event["object"])
    # A hash: kubectl keeps the whole document in an annotation.
    annotations = hash(frozenset(meta.annotations.items()))
    asked = (meta.get("generation"), annotations, meta.deletion_timestamp)
    if memo.get("asked") != asked:
        memo.asked = asked
        memo.operator.engine.wake(Ref(str(namespace), str(name)))


@kopf.on.event(*_JOBS)
async def seen_job(event: kopf.RawEvent, memo: kopf.Memo, **_: Any) -> None:
    """Note how a Job is; one that has ended wakes its ScannerJob."""
    ref = memo.operator.jobs.seen(event["type"], event["object"])
    if ref is not None:
        memo.operator.engine.forget(ref)


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Called after the watches have ended, or after one of them has failed."""
    if operator := memo.get("operator"):
        await operator.close()
    await _end_watches()
    if connector := memo.get("connector"):
        await connector.close()


async def _end_watches() -> None:
    """After one watch has failed, kopf leaves the others open.

    Later it cancels them together with what may pause them. A watch that is being opened takes that
    for a pause, begins anew, and keeps the process from its end for ever.
    """
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith(WATCHER)]
    for task in left:
        task.cancel()
    with suppress(TimeoutError):
        async with asyncio.timeout(_END_WITHIN):
            await asyncio.gather(*left, return_exceptions=True)
