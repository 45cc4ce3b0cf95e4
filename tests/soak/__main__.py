"""`python -m tests.soak`: both ways to run ScannerJobs, for hours, and whether anything grows."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from tests.harness.campaign import progress
from tests.harness.stage import Stage
from tests.soak.report import render
from tests.soak.run import Options, soak


def main(
    minutes: Annotated[float, typer.Option(help="How long it lasts.")] = 240,
    every: Annotated[float, typer.Option(help="Seconds between two samples.")] = 15,
    pace: Annotated[
        float, typer.Option(help="By what the times between faults and changes are multiplied.")
    ] = 1,
    samples: Annotated[
        Path | None, typer.Option(help="The file that samples are appended to, as JSON lines.")
    ] = None,
) -> None:
    """Run an operator and `scannerjob run` under load, faults and changes.

    Prints what became of their memory, threads, files and connections; exits 1 if any of them
    grows, or anything else was wrong. Logs are kept.
    """
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    options = Options(minutes, samples or folder / "samples.jsonl", every, pace)
    progress(f"logs are in {folder}, samples in {options.samples}")
    with Stage(folder) as stage:
        report = soak(stage, folder, options)
    print(render(report))
    raise typer.Exit(not report.sound)


if __name__ == "__main__":
    typer.run(main)
