"""kopf's part: which objects there are, when to start and stop, and whether this process is well.

kopf's own way of writing to objects is never used: it has no precondition, so nothing can be
claimed with it. Handlers return nothing, patch nothing and leave no finalizer behind.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import kopf

from scannerjob import apiserver
from scannerjob.apiserver import RefusedError
from scannerjob.controller.operator import Operator, close, require_crd
from scannerjob.model.spec import API_GROUP, API_VERSION
from scannerjob.ports import ConfigurationError, PortError, Ref, UnknownOutcomeError
from scannerjob.targets.job import JOB_LABEL

log = logging.getLogger(__name__)

_SCANNERJOBS = (API_GROUP, API_VERSION.removeprefix(f"{API_GROUP}/"), "scannerjobs")
_JOBS = ("batch", "v1", "jobs")
_RETRY_START = 5.0


def run(namespaces: Collection[str] = (), liveness_port: int | None = None) -> None:
    """Run the operator until SIGTERM or SIGINT.

    It serves the ScannerJobs in these namespaces, or in all of the cluster. With `liveness_port`,
    GET /healthz there answers while the event loop lives. Exits with a message where there is no
    cluster, or none that knows ScannerJobs.
    """
    try:
        asyncio.run(_check())
    except ConfigurationError as error:
        sys.exit(f"scannerjob: {error}")
    health = f"http://0.0.0.0:{liveness_port}/healthz" if liveness_port else None
    kopf.run(
        standalone=True,
        clusterwide=not namespaces,
        namespaces=namespaces,
        liveness_endpoint=health,
        memo=kopf.Memo(namespaces=namespaces),
    )


async def _check() -> None:
    """Find out what would keep it from starting, before kopf would log it with a traceback."""
    # Any other trouble may pass: `start` tries again.
    with suppress(UnknownOutcomeError, RefusedError):
        api = await apiserver.connect()
        try:
            await require_crd(api)
        finally:
            await close(api)


@kopf.on.startup()
async def start(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    """Configure kopf, and begin."""
    configure(settings)
    try:
        memo.operator = await Operator.open(_namespaces(settings, memo))
    except ConfigurationError as error:
        raise kopf.PermanentError(str(error)) from None
    except PortError as error:
        raise kopf.TemporaryError(str(error), delay=_RETRY_START) from None
    log.info("ready for ScannerJobs")


def _namespaces(settings: kopf.OperatorSettings, memo: kopf.Memo) -> Collection[str] | None:
    """Which ones are watched: kopf does not tell a handler more than whether it is all of them."""
    everywhere: Collection[str] | None = () if settings.peering.clusterwide else None
    return memo.get("namespaces", everywhere)


def configure(settings: kopf.OperatorSettings) -> None:
    """Let no watch hang for long, and write nothing."""
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 10
    # The server ends a watch before the client gives it up for dead.
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    # An API server sends a bookmark about once a minute, if there is nothing else to send.
    settings.watching.inactivity_timeout = 90
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


@kopf.on.probe(id="loop")
async def probe(**_: Any) -> float:
    """The event loop answers, at this time of its own clock."""
    return asyncio.get_running_loop().time()


@kopf.on.cleanup()
async def stop(memo: kopf.Memo, **_: Any) -> None:
    """Called after the watches have ended."""
    if operator := memo.get("operator"):
        await operator.close()
