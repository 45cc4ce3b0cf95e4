"""What needs the rows themselves: `preview`, and `explain` of a row that is not remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import typer

from scannerjob.cli import preview as previews
from scannerjob.cli import story as stories
from scannerjob.cli.documents import DEFAULT_NAMESPACE, Document
from scannerjob.cli.exits import Exit, reaching
from scannerjob.cli.keys import find_item, keys_meant
from scannerjob.cli.places import Place, Where, opened
from scannerjob.cli.printing import Output, emit, utc_now
from scannerjob.logs import hide
from scannerjob.model.ledger import Item, Ledger, Phase, ledger_from_status
from scannerjob.model.row import Presence
from scannerjob.model.spec import ScannerJobSpec, parse_spec
from scannerjob.ports import ConfigurationError, PortError, Snapshot, naming
from scannerjob.secrets import DirectorySecrets, Secrets

if TYPE_CHECKING:
    from scannerjob.access import Access
    from scannerjob.sources import SqlSource


@dataclass(frozen=True)
class DatabaseAccess:
    """How the database is reached from here: the URL in a file, or Secrets in directories.

    Where neither is given, by the Secret in the cluster, which takes the right to read it.
    """

    url_file: Path | None = None
    secrets: Path | None = None


async def preview_running(
    where: Where, name: str, access: DatabaseAccess, limit: int, output: Output
) -> None:
    """Preview a ScannerJob with the ledger that it has."""
    async with opened(where) as place:
        _emit(output, [await _preview(await place.find(name), access, place, limit)], several=False)


async def preview_documents(
    where: Where,
    documents: Sequence[Document],
    access: DatabaseAccess,
    limit: int,
    output: Output,
) -> None:
    """Preview what a file would do, as if nothing had ever been launched.

    What is wrong with one of several documents keeps nobody from seeing the others.
    """
    told, codes = [], [Exit.DONE.value]
    async with _place_of_secrets(where, access) as place:
        for document in documents:
            each = document.within(place.namespace or DEFAULT_NAMESPACE) if place else document
            try:
                with reaching(str(each.ref) if len(documents) > 1 else ""):
                    told.append(await _preview(_new(each), access, place, limit))
            except typer.Exit as left:
                codes.append(left.exit_code)
    if told:
        _emit(output, told, several=len(documents) > 1)
    raise typer.Exit(max(codes))


@asynccontextmanager
async def _place_of_secrets(where: Where, access: DatabaseAccess) -> AsyncIterator[Place | None]:
    """The cluster, unless the options say that it has no Secret that is needed."""
    if access.url_file or access.secrets or where.state:
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            place = await stack.enter_async_context(opened(where))
        except ConfigurationError as error:
            told = f"{error}; or give --secrets DIR or --database-url-file FILE"
            raise ConfigurationError(error.reason, told) from None
        yield place


def _new(document: Document) -> Snapshot:
    return Snapshot(document.ref, str(uuid4()), 1, document.body["spec"], {}, "1")


async def _preview(
    snapshot: Snapshot, access: DatabaseAccess, place: Place | None, limit: int
) -> previews.Preview:
    spec = parse_spec(snapshot.spec)
    async with _source(snapshot, spec, access, place) as source:
        return await previews.preview(source, spec, snapshot, limit, utc_now())


def _emit(output: Output, told: Sequence[previews.Preview], *, several: bool) -> None:
    """For programs one object; a list of them where a file holds several documents."""
    data = [previews.as_data(each) for each in told]
    if several:
        emit(output, data, lambda: previews.as_tables(told))
    else:
        emit(output, data[0], lambda: previews.as_table(told[0]))


async def tell(where: Where, name: str, key: str, access: DatabaseAccess, output: Output) -> None:
    """Explain one row."""
    async with opened(where) as place:
        snapshot = await place.find(name)
        spec = parse_spec(snapshot.spec)
        ledger = ledger_from_status(snapshot.status) or Ledger()
        options = replace(where, namespace=snapshot.ref.namespace).options
        story = await _story(snapshot, spec, ledger, key, access, place, options)
    emit(output, stories.as_data(story), lambda: stories.as_table(story, utc_now()))


async def _story(
    snapshot: Snapshot,
    spec: ScannerJobSpec,
    ledger: Ledger,
    key: str,
    access: DatabaseAccess,
    place: Place,
    options: str,
) -> stories.Story:
    item = find_item(key, ledger)
    words = await _last_words(snapshot, spec, key, item, access, place)
    if item is not None:
        following = stories.next_of(item, snapshot, options, utc_now())
        return stories.Story(snapshot, spec, item.key, item, following, words)
    keys = keys_meant(key)
    found, problem = await _looked_up(snapshot, spec, keys, access, place)
    presence = found[1] if found else None
    following = stories.next_of_unknown(presence, snapshot, spec, ledger)
    following += f" ({problem})" if problem else ""
    return stories.Story(snapshot, spec, found[0] if found else keys[0], None, following, words)


async def _looked_up(
    snapshot: Snapshot,
    spec: ScannerJobSpec,
    keys: Sequence[str],
    access: DatabaseAccess,
    place: Place,
) -> tuple[tuple[str, Presence] | None, str]:
    """Which of these keys matches, or that none does; or why that could not be found out."""
    try:
        async with _source(snapshot, spec, access, place) as source:
            rows = await source.fetch(await source.scan(1), keys)
    except PortError as error:
        return None, str(error)
    told = {key: rows.presence(key) for key in keys}
    for presence in (Presence.PRESENT, Presence.UNKNOWN, Presence.ABSENT):
        for key, each in told.items():
            if each is presence:
                return (key, presence), ""
    return None, ""


async def _last_words(
    snapshot: Snapshot,
    spec: ScannerJobSpec,
    key: str,
    item: Item | None,
    access: DatabaseAccess,
    place: Place,
) -> tuple[str, ...]:
    """Of its pods or its task, or in a line why they cannot be had."""
    try:
        if spec.celery is None:
            return tuple(await _words_of_pods(snapshot, key, place))
        if spec.celery.result_backend is None or item is None or item.phase is Phase.COOLING:
            return ()
        from scannerjob.cli.tasks import last_words

        backend, secrets = spec.celery.result_backend, _secrets(access, place)
        return tuple(await last_words(item.id, backend, snapshot.ref, secrets))
    except PortError as error:
        return (str(error),)


async def _words_of_pods(snapshot: Snapshot, key: str, place: Place) -> list[str]:
    if place.api is None:
        return []
    from scannerjob.cli.pods import last_words, pods_of_row

    pods = await pods_of_row(place.api, snapshot.ref, keys_meant(key))
    return await last_words(place.api, pods)


@asynccontextmanager
async def _source(
    snapshot: Snapshot, spec: ScannerJobSpec, access: DatabaseAccess, place: Place | None
) -> AsyncIterator[SqlSource]:
    """The rows; what is open is closed afterwards. Raises ConfigurationError."""
    from scannerjob.sources import Databases

    found = await _database(snapshot, spec, access, place)
    databases = Databases(in_cluster=False)
    try:
        with naming("--database-url-file" if access.url_file else "spec.database"):
            source = databases.open(found.url, spec, found.files)
        yield source
    finally:
        databases.close()


async def _database(
    snapshot: Snapshot, spec: ScannerJobSpec, access: DatabaseAccess, place: Place | None
) -> Access:
    from scannerjob.access import Access, access_to

    if access.url_file is not None:
        url = await asyncio.to_thread(access.url_file.read_text)
        return Access(url.strip())
    secrets = _secrets(access, place)
    found = await access_to(spec.database, "spec.database", snapshot.ref, secrets)
    hide(snapshot.ref, found.url)
    return found


def _secrets(access: DatabaseAccess, place: Place | None) -> Secrets:
    if access.secrets is not None:
        return DirectorySecrets(access.secrets)
    if place is not None and place.api is not None:
        from scannerjob.apisecrets import KubernetesSecrets

        return KubernetesSecrets(place.api)
    raise ConfigurationError(
        "SecretNotFound",
        "URLs are in Secrets: give --secrets DIR, laid out as mounted Secrets; that of the "
        "database may be in a file as well: --database-url-file FILE",
    )
