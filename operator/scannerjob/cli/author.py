"""The commands for who writes a ScannerJob: `init`, `validate` and `preview`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scannerjob.cli.completion import names
from scannerjob.cli.exits import Exit, refuse
from scannerjob.cli.manage import (
    Context,
    DatabaseUrlFile,
    Format,
    Kubeconfig,
    Namespace,
    SecretsDirectory,
    State,
    ran,
    where,
)
from scannerjob.cli.printing import Output, emit
from scannerjob.model.printable import without_userinfo

if TYPE_CHECKING:
    from scannerjob.cli.documents import Document


def load(files: list[Path], namespace: str, *, in_cluster: bool = True) -> list[Document]:
    """The documents in these files; ends with a line for each problem in them."""
    from scannerjob.cli.documents import DocumentError, is_namespace, load_documents

    if not is_namespace(namespace):
        refuse([f"--namespace: expected lower case letters, digits and -, not {namespace!r}"])
    try:
        return load_documents(files, namespace, in_cluster=in_cluster)
    except DocumentError as error:
        refuse(error.problems)


def validate(
    files: Annotated[list[Path], typer.Argument(help="ScannerJob documents in YAML; - for stdin.")],
    output: Format = Output.TABLE,
) -> None:
    """Check ScannerJob documents, offline.

    Exits 2 naming file, line and field of each problem.
    """
    from scannerjob.cli.documents import DocumentError, load_documents

    try:
        documents = load_documents(files)
    except DocumentError as error:
        if output is Output.TABLE:
            refuse(error.problems)
        problems = [without_userinfo(each) for each in error.problems]
        emit(output, {"documents": [], "problems": problems}, list)
        raise typer.Exit(Exit.MISTAKE) from None
    valid = [{"namespace": each.ref.namespace, "name": each.ref.name} for each in documents]
    lines = [f"{each.place}: {each.ref} is valid" for each in documents]
    emit(output, {"documents": valid, "problems": []}, lambda: lines)


def preview(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The ScannerJob, or NAMESPACE/NAME; or give --file.",
            autocompletion=names,
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A document that was not applied yet.")
    ] = None,
    database_url_file: DatabaseUrlFile = None,
    secrets: SecretsDirectory = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many rows are shown.")] = 20,
    output: Format = Output.TABLE,
    namespace: Namespace = None,
    state: State = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Show what would be launched now, and why or why not.

    Launches nothing. The query runs once, read-only, from this machine: its database must be within
    reach.
    """
    if (name is None) == (file is None):
        refuse(["expected either NAME or --file"])
    place = where(namespace, state, context, kubeconfig)
    # What can be told without a cluster comes first.
    documents = load([file], namespace or "default") if file else []
    from scannerjob.cli.looking import DatabaseAccess, preview_documents, preview_running

    access = DatabaseAccess(database_url_file, secrets)
    if name is not None:
        place, name = place.of(name)
        ran(preview_running(place, name, access, limit, output))
        return
    ran(preview_documents(place, documents, access, limit, output))


def init(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Its name.")] = None,
    query: Annotated[str | None, typer.Option(help="The SELECT of the rows to work on.")] = None,
    database: Annotated[
        str | None, typer.Option(metavar="SECRET/KEY", help="Where the database's URL is.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="Launch this Celery task for each row.")] = None,
    broker: Annotated[
        str | None, typer.Option(metavar="SECRET/KEY", help="Where the broker's URL is.")
    ] = None,
    guard: Annotated[
        str | None,
        typer.Option(metavar="SECRET/KEY", help="Where the URL of the worker guard's store is."),
    ] = None,
    queue: Annotated[str, typer.Option(help="The queue that workers take tasks from.")] = "celery",
    image: Annotated[
        str | None, typer.Option(help="Launch a Kubernetes Job with this image for each row.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="What it runs, as a YAML list: '[python, -m, app]'.")
    ] = None,
    interval: Annotated[str, typer.Option(help="How long to wait between looks.")] = "30s",
    concurrency: Annotated[int, typer.Option(help="The most launches out at any time.")] = 10,
    namespace: Annotated[str, typer.Option("--namespace", "-n")] = "default",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A new file; without it, stdout.")
    ] = None,
) -> None:
    """Write a first ScannerJob document.

    It has a comment on each field that is worth a thought. Asks for what no option gives, if
    somebody is at the terminal.
    """
    if task and image:
        refuse(["--task: not together with --image: rows become Celery tasks or Jobs"])
    if image and (broker or guard):
        refuse([f"{'--broker' if broker else '--guard'}: not together with --image: of Celery"])
    if task and command:
        refuse(["--command: not together with --task: what a Job runs"])
    if output and output.exists():
        refuse([f"--output: {output} exists; expected a new file"])
    missing = _Missing()
    if name:
        _as_name(name)
    name = name or missing.ask("NAME", "Name of the ScannerJob", "pdf-pages", _as_name)
    database = database or missing.ask("--database", "Secret of the database's URL", "app-db/url")
    query = query or missing.ask("--query", "SELECT of the rows to work on", None)
    if not task and not image:
        task = missing.ask("--task or --image", "Celery task (empty: Kubernetes Jobs)", "")
        if not task and missing.asks:
            image = missing.ask("--image", "Image of the Jobs", None)
    if task:
        broker = broker or missing.ask("--broker", "Secret of the broker's URL", "app-redis/url")
    missing.refuse()
    from scannerjob.cli.documents import DocumentError
    from scannerjob.cli.init import Answers, document

    answers = Answers(
        name=name,
        namespace=namespace,
        query=query,
        database=database,
        interval=interval,
        concurrency=concurrency,
        task=task or None,
        queue=queue,
        broker=broker or "",
        guard=guard,
        image=image,
        command=command,
    )
    try:
        text = document(answers)
    except DocumentError as error:
        refuse(error.problems)
    if output is None:
        typer.echo(text, nl=False)
        return
    output.write_text(text)
    typer.echo(f"{output} is written; next: scannerjob preview --file {output}")


def _as_name(text: str) -> str:
    """Raises BadParameter, after which a person is asked again."""
    from scannerjob.cli.documents import NAME, is_name

    if not is_name(text):
        raise typer.BadParameter(f"NAME: expected {NAME}, not {text!r}")
    return text


def _asks() -> bool:
    """Whether somebody is there to give an answer."""
    return sys.stdin.isatty()


class _Missing:
    """Asks a person at a terminal; elsewhere notes which options are missing."""

    def __init__(self) -> None:
        self.asks = _asks()
        self._options: list[str] = []

    def ask(
        self,
        option: str,
        question: str,
        default: str | None,
        read: Callable[[str], str] = str,
    ) -> str:
        """The answer; empty where nobody is there to give one."""
        if not self.asks:
            self._options.append(option)
            return default or ""
        try:
            return str(typer.prompt(question, default=default, err=True, value_proc=read))
        except typer.Abort:
            typer.echo(err=True)
            raise typer.Exit(Exit.INTERRUPTED) from None

    def refuse(self) -> None:
        """End if anything was missing."""
        if self._options:
            refuse([f"{', '.join(self._options)}: required where nobody is asked"])


COMMANDS = (init, validate, preview)
