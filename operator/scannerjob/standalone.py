"""ScannerJobs as one process, without a cluster: documents, a ledger in a table, the engine."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from scannerjob.connect import SecretConnector
from scannerjob.engine import Engine
from scannerjob.logs import hide
from scannerjob.model.requests import MAX_NONCE, NAMES
from scannerjob.peers import Backoff
from scannerjob.ports import ConfigurationError, Ref, UnknownOutcomeError
from scannerjob.secrets import DirectorySecrets
from scannerjob.stores import reference
from scannerjob.stores.sql import SqlStore

log = logging.getLogger(__name__)

_REQUEST = "scannerjob.dev/requested-"
# How long, in seconds, a request waits at most until it is seen.
_HEED_EVERY = 1.0


async def run(documents: Iterable[Mapping[str, Any]], secrets: Path, state: str) -> None:
    """Run these ScannerJobs until SIGTERM or SIGINT; a second one ends the process at once.

    `secrets` is a directory laid out as mounted Secrets, `state` the URL of the ledger's database,
    which other processes may share. Raises ConfigurationError where `state` cannot be used. While
    its database does not answer nothing is launched, and it is tried again.
    """
    stop = _stop_signals()
    hide("--state", state)
    store = SqlStore(state)
    connector = SecretConnector(DirectorySecrets(secrets), in_cluster=False)
    engine = Engine(store, connector)
    connector.wake = engine.wake_from_thread
    begin = asyncio.create_task(_begin(documents, store, engine))
    heed = asyncio.create_task(_heed_requests(store, engine))
    try:
        await _first(begin, asyncio.create_task(stop.wait()))
        await stop.wait()
        log.info("stopping; launches that are out go on")
    finally:
        begin.cancel()
        heed.cancel()
        await engine.close()
        await connector.close()
        await store.close()
    log.info("stopped")


async def _heed_requests(store: SqlStore, engine: Engine) -> None:
    """Wake what a person asked something of: no watch tells of it here."""
    known: Mapping[tuple[Ref, str], str] = {}
    while True:
        # What is not told now is told the next time; the cycle says what is wrong.
        with suppress(UnknownOutcomeError, ConfigurationError):
            asked = await store.requests()
            for ref in {ref for (ref, _), __ in asked.items() - known.items()}:
                engine.wake(ref)
            known = asked
        await asyncio.sleep(_HEED_EVERY)


def _stop_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; the next one does what the system does by default."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def obey() -> None:
        stop.set()
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in numbers:
        loop.add_signal_handler(number, obey)
    return stop


async def _first(*tasks: asyncio.Task[Any]) -> None:
    """Wait for one of these to end; what it raised is raised here."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _begin(documents: Iterable[Mapping[str, Any]], store: SqlStore, engine: Engine) -> None:
    for document in documents:
        ref = reference(document)
        await _apply(ref, document, store)
        engine.wake(ref)


async def _apply(ref: Ref, document: Mapping[str, Any], store: SqlStore) -> None:
    """Put a document beside its ledger, as soon as the ledger's database answers."""
    rest = Backoff()
    while True:
        try:
            return await _try_to_apply(ref, document, store)
        except UnknownOutcomeError as error:
            delay = rest.failed(0)
            log.warning("%s: %s: %s; next try in %.0f s", ref, error.reason, error, delay)
            await asyncio.sleep(delay)


async def _try_to_apply(ref: Ref, document: Mapping[str, Any], store: SqlStore) -> None:
    known = await store.read(ref)
    await store.apply(document)
    if known is None:
        log.warning(
            "%s: new ledger in %s; if this is not the first run, launches of which nothing is "
            "known may be outstanding",
            ref,
            store,
        )
    await _ask_as_written(ref, document, known.requests if known else {}, store)
    log.info("%s: scanning", ref)


async def _ask_as_written(
    ref: Ref, document: Mapping[str, Any], known: Mapping[str, str], store: SqlStore
) -> None:
    """Ask for what a document asks for; not again at each start, whatever came in between.

    `known` is what was asked for before, by its name.
    """
    annotations = document["metadata"].get("annotations") or {}
    for name in NAMES:
        nonce = str(annotations.get(_REQUEST + name, ""))[:MAX_NONCE]
        remembered = f"{name} of the document"
        if nonce and known.get(remembered) != nonce:
            # Should this process end between the two: the same nonce again is heeded no more.
            await store.request(ref, name, nonce)
            await store.request(ref, remembered, nonce)
