"""The operator as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from contextlib import suppress

import kopf

from scannerjob import apiserver
from scannerjob.apiserver import RefusedError
from scannerjob.controller import handlers  # noqa: F401 - kopf calls what it has registered
from scannerjob.controller.health import Health, serving
from scannerjob.controller.operator import close, require_crd
from scannerjob.controller.options import Options
from scannerjob.ports import ConfigurationError, UnknownOutcomeError

log = logging.getLogger(__name__)

_BEGIN_ANEW_AFTER = 2.0


def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Exits with a message where there is no cluster, or none that knows ScannerJobs. kopf ends by
    whatever a watch says that it does not know (an error of the API server amid the events, a line
    that is no JSON): then all begins anew, as in a new process.
    """
    while True:
        try:
            return asyncio.run(_run(options))
        except ConfigurationError as error:
            sys.exit(f"scannerjob: {error}")
        except Exception as error:  # noqa: BLE001 - the next try is no worse than the end
            log.error("the watch has ended: %s; beginning anew", error)
            time.sleep(_BEGIN_ANEW_AFTER)


async def _run(options: Options) -> None:
    health = Health()
    async with serving(health, options.health_port):
        await _check()
        await kopf.operator(
            standalone=True,
            clusterwide=not options.namespaces,
            namespaces=options.namespaces or (),
            memo=kopf.Memo(options=options, health=health),
        )


async def _check() -> None:
    """Find out what would keep it from starting, before kopf would log it with a traceback."""
    # Any other trouble may pass: the start-up handler tries again.
    with suppress(UnknownOutcomeError, RefusedError):
        api = await apiserver.connect()
        try:
            await require_crd(api)
        finally:
            await close(api)
