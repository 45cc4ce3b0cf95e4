"""The operator as a process of its own."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from contextlib import suppress
from json import JSONDecodeError
from typing import Any

import aiohttp
import kopf

from scannerjob import apiserver
from scannerjob.controller import handlers
from scannerjob.controller.health import Health, serving
from scannerjob.controller.operator import close, require_crd
from scannerjob.controller.options import Options
from scannerjob.ports import ConfigurationError, RefusedError, UnknownOutcomeError

log = logging.getLogger(__name__)

_BEGIN_ANEW_AFTER = 2.0


def run(options: Options) -> None:
    """Run the operator until SIGTERM or SIGINT.

    Exits with a message where there is no cluster, or none that knows ScannerJobs. kopf ends by
    whatever a watch says that it does not know (an error of the API server amid the events, a line
    that is no JSON): then all begins anew, as in a new process.
    """
    ending = threading.Event()
    while not ending.is_set():
        try:
            asyncio.run(_run(options, ending))
        except ConfigurationError as error:
            sys.exit(f"scannerjob: {error}")
        except Exception as error:
            what = "stopping" if ending.is_set() else "beginning anew"
            is_bug = not _came_from_outside(error)
            log.error("the watch has ended: %s; %s", error, what, exc_info=is_bug)
            ending.wait(_BEGIN_ANEW_AFTER)
        else:
            break


def _came_from_outside(error: Exception) -> bool:
    """Whether the API server, or what is before it, said or did this."""
    by_kopf = type(error).__module__.startswith("kopf._cogs.clients")
    return by_kopf or isinstance(error, aiohttp.ClientError | OSError | JSONDecodeError)


def _tell(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of what nobody looked at; not of a watch that the API server ended beside another.

    Of two that fail at once kopf looks at the first, and `run` tells of that.
    """
    task, error = context.get("future"), context.get("exception")
    watched = isinstance(task, asyncio.Task) and task.get_name().startswith(handlers.WATCHER)
    if not (watched and isinstance(error, Exception) and _came_from_outside(error)):
        loop.default_exception_handler(context)


async def _run(options: Options, ending: threading.Event) -> None:
    asyncio.get_running_loop().set_exception_handler(_tell)
    health, stop = Health(), asyncio.Event()
    async with serving(health, options.health_port):
        await _check()
        ours = asyncio.all_tasks()
        tasks = await kopf.spawn_tasks(
            standalone=True,
            clusterwide=not options.namespaces,
            namespaces=options.namespaces or (),
            memo=kopf.Memo(options=options, health=health),
            stop_flag=stop,
        )
        _heed_signals(ending, stop)
        await kopf.run_tasks(tasks, ignored=ours)


def _heed_signals(ending: threading.Event, stop: asyncio.Event) -> None:
    """Let SIGTERM and SIGINT end it; `ending` remembers that one came.

    In place of kopf's own handlers: it forgets a signal that comes while it ends by an error.
    """

    def end() -> None:
        ending.set()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, end)


async def _check() -> None:
    """Find out what would keep it from starting, before kopf would log it with a traceback."""
    # Any other trouble may pass: the start-up handler tries again.
    with suppress(UnknownOutcomeError, RefusedError):
        api = await apiserver.connect()
        try:
            await require_crd(api)
        finally:
            await close(api)
