"""The commands. What they need is imported inside them, so that `--help` answers at once."""

from __future__ import annotations

import re
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from scannerjob.cli import author, manage
from scannerjob.cli.alive import alive
from scannerjob.cli.exits import refuse
from scannerjob.cli.printing import Output, emit
from scannerjob.model.printable import without_userinfo


class _Commands(TyperGroup):
    """Quotes what was typed in a wrong place, but for the passwords of URLs.

    A word that is none of those which may stand there gets a suggestion.
    """

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Some versions of Typer bring classes of their own for what a person typed.
            if isinstance(said := getattr(error, "message", None), str):
                vars(error)["message"] = without_userinfo(_with_suggestion(said))
            raise


def _with_suggestion(said: str) -> str:
    said = said.removeprefix("Value error, ")
    typed, _, words = said.partition(" is not one of ")
    close = get_close_matches(typed.strip("'"), re.findall(r"'(\w+)'", words), n=1)
    return f"{said} Did you mean {close[0]}?" if close else said


def _version() -> str:
    from importlib.metadata import version as installed_version

    return installed_version("scannerjob")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(_version())
        raise typer.Exit


app = typer.Typer(
    name="scannerjob",
    cls=_Commands,
    help="Looks in a database for work and launches each row once, never more than N at a time.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="As `version`."),
    ] = False,
) -> None:
    """Take what stands before a command."""


class Summary(StrEnum):
    """How the demo's summary is printed."""

    TABLE = "table"
    JSON = "json"


_STATE_FILE = "scannerjob-state.db"


@app.command()
def run(
    file: Annotated[
        list[Path], typer.Option("--file", "-f", help="ScannerJob documents in YAML; repeatable.")
    ],
    secrets: Annotated[
        Path,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A directory laid out as mounted Secrets: DIR/NAME/KEY.",
        ),
    ],
    state: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The database of the ledger, which processes may share. It must outlive the "
            "process: in a container, a file on a volume or the URL of a database server. A URL "
            "with a password is better kept in the environment, where other users do not see it.",
            envvar="SCANNERJOB_STATE",
        ),
    ] = f"sqlite:///{_STATE_FILE}",
    namespace: Annotated[
        str, typer.Option(help="The namespace of documents that name none.")
    ] = "default",
) -> None:
    """Run ScannerJobs as this one process, without a cluster.

    The ledger is kept in a table of --state: by default in a SQLite file in the working directory,
    which the first run creates. Processes that share it, and restarts, break no promise. Files are
    read once, at the start: restart after a change. Secrets are read again when they change.
    SIGTERM or SIGINT stops it; what was launched goes on.
    """
    import asyncio

    from scannerjob.cli.places import refuse_path
    from scannerjob.logs import set_up_logging
    from scannerjob.ports import ConfigurationError

    documents = author.load(file, namespace, in_cluster=False)
    refuse_path(state)
    set_up_logging()
    from scannerjob import standalone

    try:
        asyncio.run(standalone.run([each.body for each in documents], secrets, state))
    except ConfigurationError as error:
        refuse([f"--state: {error}"])


@app.command()
def operator(
    namespace: Annotated[
        list[str] | None,
        typer.Option(help="A namespace to watch; repeatable. Without it: all namespaces."),
    ] = None,
    health_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Serve GET /healthz and /readyz there, for probes."),
    ] = None,
    leader_election: Annotated[
        bool, typer.Option(help="Let one of several replicas work, the one that holds the Lease.")
    ] = True,
    lease_name: Annotated[
        str, typer.Option(help="The Lease; replicas with the same one are one operator.")
    ] = "scannerjob-operator",
    lease_namespace: Annotated[
        str | None,
        typer.Option(help="Where the Lease is; by default, the namespace this runs in."),
    ] = None,
) -> None:
    """Run as a Kubernetes operator.

    It has the rights of the current context, or of its service account.
    """
    from scannerjob import controller
    from scannerjob.logs import set_up_logging

    set_up_logging()
    manage.ran(_know_the_cluster())
    controller.run(
        controller.Options(
            namespaces=namespace or (),
            health_port=health_port,
            leader_election=leader_election,
            lease_name=lease_name,
            lease_namespace=lease_namespace,
        )
    )


async def _know_the_cluster() -> None:
    """Raises ConfigurationError where nothing says which cluster is meant."""
    from scannerjob.apiserver import access

    await access()


@app.command()
def demo(
    output: Annotated[
        Summary, typer.Option(help="How the summary is printed; with json, alone on stdout.")
    ] = Summary.TABLE,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Work in this new directory and leave it, with all logs."),
    ] = None,
) -> None:
    """See it work, in about a minute.

    Two real Celery workers, one of them killed. Everything runs on this machine, in a temporary
    directory. Exits 1 if a promise was broken.
    """
    if keep and keep.exists():
        refuse([f"--keep: {keep} exists; expected a new directory"])
    from scannerjob.demo import run_demo

    raise typer.Exit(run_demo(as_json=output is Summary.JSON, keep=keep))


@app.command()
def version(output: manage.Format = Output.TABLE) -> None:
    """Print the version."""
    emit(output, {"version": _version()}, lambda: [_version()])


for command in (*author.COMMANDS, *manage.COMMANDS):
    app.command()(command)
app.command(hidden=True)(alive)
