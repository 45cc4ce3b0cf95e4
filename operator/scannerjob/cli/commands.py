"""The commands. What they need is imported inside them, so that `--help` answers at once."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from scannerjob.cli.documents import Document


class _Commands(TyperGroup):
    """Quotes what was typed in a wrong place, but for the passwords of URLs."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Some versions of Typer bring classes of their own for what a person typed.
            if isinstance(said := getattr(error, "message", None), str):
                from scannerjob.urls import without_userinfo

                vars(error)["message"] = without_userinfo(said)
            raise


app = typer.Typer(
    name="scannerjob",
    cls=_Commands,
    help="Looks in a database for work and launches each row once, never more than N at a time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_STATE_FILE = "scannerjob-state.db"


class Output(StrEnum):
    """How a summary is printed."""

    TABLE = "table"
    JSON = "json"


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
    from scannerjob.logs import set_up_logging
    from scannerjob.ports import ConfigurationError

    documents = _load(file, namespace, in_cluster=False)
    set_up_logging()
    from scannerjob import standalone

    try:
        asyncio.run(standalone.run([each.body for each in documents], secrets, state))
    except ConfigurationError as error:
        _refuse([f"--state: {error}"])


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
    """Run as a Kubernetes operator, with the rights of the current context or service account."""
    from scannerjob import controller
    from scannerjob.logs import set_up_logging

    set_up_logging()
    controller.run(
        controller.Options(
            namespaces=namespace or (),
            health_port=health_port,
            leader_election=leader_election,
            lease_name=lease_name,
            lease_namespace=lease_namespace,
        )
    )


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="ScannerJob documents in YAML.")],
) -> None:
    """Check ScannerJob documents, offline: exits 2 naming file, line and field of each problem."""
    for document in _load(files, "default"):
        typer.echo(f"{document.place}: {document.ref} is valid")


@app.command()
def demo(
    output: Annotated[
        Output, typer.Option(help="How the summary is printed; with json, alone on stdout.")
    ] = Output.TABLE,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Work in this new directory and leave it, with all logs."),
    ] = None,
) -> None:
    """See it work, in about a minute: two real Celery workers, one of them killed.

    Everything runs on this machine, in a temporary directory. Exits 1 if a promise was broken.
    """
    if keep and keep.exists():
        _refuse([f"--keep: {keep} exists; expected a new directory"])
    from scannerjob.demo import run_demo

    raise typer.Exit(run_demo(as_json=output is Output.JSON, keep=keep))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("scannerjob"))


def _load(files: list[Path], namespace: str, *, in_cluster: bool = True) -> list[Document]:
    from scannerjob.cli.documents import DocumentError, is_namespace, load_documents

    if not is_namespace(namespace):
        _refuse([f"--namespace: expected lower case letters, digits and -, not {namespace!r}"])
    try:
        return load_documents(files, namespace, in_cluster=in_cluster)
    except DocumentError as error:
        _refuse(error.problems)


def _refuse(problems: list[str] | tuple[str, ...]) -> NoReturn:
    """What was given cannot be used: one line for each problem, and exit code 2."""
    from scannerjob.model.printable import printable
    from scannerjob.urls import without_userinfo

    for problem in problems:
        print(printable(without_userinfo(problem)), file=sys.stderr)
    raise typer.Exit(2)
