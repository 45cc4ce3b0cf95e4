"""The commands about ScannerJobs that run, in a cluster or beside `scannerjob run`."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scannerjob.cli.completion import keys, names
from scannerjob.cli.exits import Exit, leave, reaching, refuse
from scannerjob.cli.printing import Output, emit, for_terminal

if TYPE_CHECKING:
    from scannerjob.cli.places import Place, Where
    from scannerjob.ports import Snapshot

_SHORT_WAIT = 30.0
_NAMED = "The ScannerJob, or NAMESPACE/NAME."

Name = Annotated[str, typer.Argument(metavar="NAME", help=_NAMED, autocompletion=names)]
Key = Annotated[
    str,
    typer.Argument(
        metavar="KEY",
        help="The row: the value of its key column, as 17 or invoice-4, or all of several as a "
        "JSON array.",
        autocompletion=keys,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        help="By default, that of the kubeconfig's context; of --state, all that there are.",
    ),
]
State = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        envvar="SCANNERJOB_STATE",
        help="Ask the ledger of `scannerjob run` at this URL, and no cluster.",
    ),
]
Context = Annotated[str | None, typer.Option(help="The kubeconfig's context.")]
Kubeconfig = Annotated[Path | None, typer.Option(help="The kubeconfig file.")]
DatabaseUrlFile = Annotated[
    Path | None,
    typer.Option(
        exists=True,
        dir_okay=False,
        help="A file with the database's URL, in place of the Secret's: as it is reached from "
        "here.",
    ),
]
SecretsDirectory = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Secrets as directories: DIR/NAME/KEY."),
]
Format = Annotated[Output, typer.Option("--output", "-o", help="How it is printed.")]


def _seconds(value: float) -> float:
    """Raises BadParameter for what no clock reaches, or is over before anything is done."""
    if not 0 <= value < float("inf"):
        raise typer.BadParameter(f"expected a number of seconds, as 0.5 or 30, not {value:g}")
    return value


Seconds = Annotated[
    float, typer.Option("--timeout", callback=_seconds, help="Seconds to wait for an operator.")
]


def where(
    namespace: str | None, state: str | None, context: str | None, kubeconfig: Path | None
) -> Where:
    """What these options say of the place."""
    from scannerjob.cli.places import Where

    if state and (context or kubeconfig):
        refuse(["--state: not together with --context or --kubeconfig: one place is asked"])
    return Where(namespace, state, context, str(kubeconfig) if kubeconfig else None)


def meant(
    name: str,
    namespace: str | None,
    state: str | None,
    context: str | None,
    kubeconfig: Path | None,
) -> tuple[Where, str]:
    """The place, and the name in it, that NAME or NAMESPACE/NAME and these options stand for."""
    return where(namespace, state, context, kubeconfig).of(name)


def ran(work: Coroutine[Any, Any, None]) -> None:
    """Do this; what cannot be reached, or is refused, ends the command with a line."""
    import asyncio

    with reaching():
        asyncio.run(work)


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help=_NAMED, autocompletion=names)
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, until Ctrl-C.")] = False,
    everywhere: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="Those of all namespaces.")
    ] = False,
    output: Format = Output.TABLE,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show ScannerJobs and how they are.

    With NAME, the conditions and the remembered rows of one.
    """
    if watch and output is not Output.TABLE:
        refuse(["--watch: shows a table only; for programs: kubectl get scannerjobs --watch"])
    place = where(namespace, state, context, kubeconfig)
    if name is not None:
        place, name = place.of(name)
    from scannerjob.cli.watching import show

    ran(show(place, name, everywhere=everywhere, watch=watch, output=output))


def explain(
    name: Name,
    key: Key,
    database_url_file: DatabaseUrlFile = None,
    secrets: SecretsDirectory = None,
    output: Format = Output.TABLE,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell why a row is not running, and what is next.

    What is remembered of it, and the last words of its pod or task.
    """
    place, name = meant(name, namespace, state, context, kubeconfig)
    from scannerjob.cli.looking import DatabaseAccess, tell

    access = DatabaseAccess(database_url_file, secrets)
    ran(tell(place, name, key, access, output))


def retry(
    name: Name,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The row.", autocompletion=keys)
    ] = None,
    all_parked: Annotated[
        bool, typer.Option("--all-parked", help="All rows that are out of attempts.")
    ] = False,
    timeout: Seconds = _SHORT_WAIT,
    output: Format = Output.TABLE,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Launch a row that waits or is parked anew.

    It begins with its first attempt, as soon as a slot is free.
    """
    if (key is None) != all_parked:
        refuse(["expected either KEY or --all-parked"])
    place, name = meant(name, namespace, state, context, kubeconfig)
    ran(_retry(place, name, key, timeout, output))


async def _retry(place: Where, name: str, key: str | None, seconds: float, output: Output) -> None:
    from scannerjob.cli.keys import find_item
    from scannerjob.cli.places import opened
    from scannerjob.model.ledger import Phase, ledger_from_status
    from scannerjob.model.printable import printable
    from scannerjob.model.requests import ALL_PARKED, RETRY

    async with opened(place) as there:
        snapshot = await there.find(name)
        ledger = ledger_from_status(snapshot.status)
        if key is None:
            items = ledger.items if ledger else ()
            rows = [item.key for item in items if item.phase is Phase.PARKED]
            wanted, told = ALL_PARKED, f"{len(rows)} parked rows"
        else:
            item = find_item(key, ledger) if ledger else None
            if item is None:
                leave(Exit.NO, f"{snapshot.ref}: nothing is remembered of row {key}: see explain")
            if item.phase not in (Phase.WAITING, Phase.PARKED):
                leave(Exit.NO, f"{snapshot.ref}: row {item.key} is {item.phase}: see explain")
            rows, wanted, told = [item.key], item.key, f"row {printable(item.key)}"
        if rows:
            await _asked(there, snapshot, RETRY, seconds, suffix=f" {wanted}")
        soon = "once it is resumed" if snapshot.spec.get("suspend") else "as soon as a slot is free"
        done = f"{told} will be launched {soon}" if rows else "no row is parked"
        emit(output, {**_named(snapshot), "rows": rows}, lambda: [f"{snapshot.ref}: {done}"])


def scan(
    name: Name,
    timeout: Seconds = _SHORT_WAIT,
    output: Format = Output.TABLE,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Look at the rows now, without waiting for the interval."""
    place, name = meant(name, namespace, state, context, kubeconfig)
    ran(_scan(place, name, timeout, output))


async def _scan(place: Where, name: str, seconds: float, output: Output) -> None:
    from scannerjob.cli.places import opened
    from scannerjob.model.conditions import find
    from scannerjob.model.requests import SCAN

    async with opened(place) as there:
        snapshot = await _asked(there, await there.find(name), SCAN, seconds)
        for needed in ("DatabaseReachable", "TargetReachable"):
            if find(snapshot.status, needed).get("status") == "False":
                leave(Exit.UNREACHED, f"{snapshot.ref}: not looked: {_why_not_ready(snapshot)}")
        if not find(snapshot.status, "DatabaseReachable"):
            leave(Exit.NO, f"{snapshot.ref}: not looked: {_why_not_ready(snapshot)}")
        active, cap = snapshot.status.get("active", 0), snapshot.spec.get("concurrency")
        data = {**_named(snapshot), "active": active, "concurrency": cap}
        done = f"looked at its rows; {active} of {cap} slots are taken"
        emit(output, data, lambda: [f"{snapshot.ref}: {done}"])


def _named(snapshot: Snapshot) -> dict[str, Any]:
    """Which one it is, for programs."""
    return {"namespace": snapshot.ref.namespace, "name": snapshot.ref.name}


async def _asked(
    there: Place, snapshot: Snapshot, name: str, seconds: float, suffix: str = ""
) -> Snapshot:
    """Ask for this, and wait until it was heeded."""
    from scannerjob.cli.requests import ask, heeded, wait_until

    nonce = await ask(there, snapshot.ref, name, suffix)
    done = await wait_until(there, snapshot.ref, heeded(name, nonce), seconds)
    if done is None:
        why = _why_not_ready(await there.again(snapshot))
        leave(
            Exit.NO,
            f"{snapshot.ref}: asked for, but no operator has heeded it within {seconds:g} s; one "
            f"that comes later will: {why}",
        )
    return done


def _why_not_ready(snapshot: Snapshot) -> str:
    from scannerjob.model.conditions import find

    ready = find(snapshot.status, "Ready")
    is_told = ready.get("status") == "False"
    return f"{ready['reason']}: {ready['message']}" if is_told else "see status"


def suspend(
    name: Name,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Launch nothing for now; what is out goes on and is watched."""
    place, name = meant(name, namespace, state, context, kubeconfig)
    ran(_suspend(place, name, True))


def resume(
    name: Name,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Launch again."""
    place, name = meant(name, namespace, state, context, kubeconfig)
    ran(_suspend(place, name, False))


async def _suspend(place: Where, name: str, suspended: bool) -> None:
    from scannerjob.cli.places import opened

    async with opened(place) as there:
        snapshot = await there.find(name)
        await there.store.suspend(snapshot.ref, suspended)
        now = await there.again(snapshot)
        if now.spec.get("suspend", False) != suspended:
            leave(Exit.NO, f"{now.ref}: its document says suspend: true; change it there")
        typer.echo(f"{now.ref}: {'suspended' if suspended else 'resumed'}")


def drain(
    name: Name,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Give up what is out: only where you know that nothing of it runs, or ever will.",
        ),
    ] = False,
    timeout: Annotated[
        float, typer.Option(callback=_seconds, help="Seconds to wait at most.")
    ] = 3600.0,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Suspend, and wait until nothing is out.

    Before you delete, replace or restore a ScannerJob.
    """
    place, name = meant(name, namespace, state, context, kubeconfig)
    from scannerjob.cli.draining import drained

    ran(drained(place, name, timeout, force=force))


def logs(
    name: Name,
    key: Key,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it does.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="The last lines only.")] = None,
    container: Annotated[
        str | None, typer.Option("--container", "-c", help="One of several.")
    ] = None,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print what the newest pod of a row's Job has written.

    Of a Celery task, tell by which id its worker's log names it.
    """
    place, name = meant(name, namespace, state, context, kubeconfig)
    ran(_logs(place, name, key, container, follow=follow, tail=tail))


async def _logs(
    place: Where, name: str, key: str, container: str | None, *, follow: bool, tail: int | None
) -> None:
    from scannerjob.cli.keys import find_item, keys_meant
    from scannerjob.cli.places import opened
    from scannerjob.model.ledger import ledger_from_status

    async with opened(place) as there:
        snapshot = await there.find(name)
        if "job" not in snapshot.spec:
            ledger = ledger_from_status(snapshot.status)
            item = find_item(key, ledger) if ledger else None
            task = f": look there for task id {item.id}" if item else ""
            leave(Exit.NO, f"what a Celery task writes is in the log of its worker{task}")
        if there.api is None:
            leave(Exit.NO, f"{snapshot.ref}: no pods are beside `scannerjob run`")
        from scannerjob.cli.pods import containers, log_lines, pods_of_row

        pods = await pods_of_row(there.api, snapshot.ref, keys_meant(key))
        if not pods:
            leave(Exit.NO, f"{snapshot.ref}: no pod of row {key} is there")
        pod = pods[-1]
        names = containers(pod)
        if container is not None and container not in names:
            refuse([f"--container: expected one of {', '.join(names)}, not {container}"])
        async for line in log_lines(
            there.api, pod, container or names[0], follow=follow, tail=tail
        ):
            typer.echo(for_terminal(line))


COMMANDS = (status, explain, retry, scan, suspend, resume, drain, logs)
