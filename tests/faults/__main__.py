"""`python -m tests.faults`: planned faults by the hundred, and whether a promise was broken."""

from __future__ import annotations

import time
import traceback
from collections import Counter, deque
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from tests.faults.plans import plans
from tests.faults.run import run
from tests.harness.campaign import (
    Minutes,
    Part,
    RecordFile,
    Stages,
    note,
    progress,
    side_by_side,
    stage,
)
from tests.harness.record import REPOSITORY, Record
from tests.harness.stage import Stage

KIND = "fault"
# Of trials that could not be carried out: where it is for the machine, no more are begun.
_MOST_FAILURES = 5
RECORD = REPOSITORY / "docs" / "proof" / "faults.jsonl"

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command("list")
def show() -> None:
    """Print the names of all plans, and how many there are of each family."""
    for name in sorted(plans()):
        typer.echo(name)
    counts = Counter(plan.family for plan in plans().values())
    for family, count in counts.most_common():
        typer.echo(f"{count:5}  {family}")
    typer.echo(f"{counts.total():5}  in all")


@app.command("run")
def run_all(
    count: Annotated[
        int, typer.Option("--plans", help="How many are to be in the record, for this code.")
    ] = 600,
    only: Annotated[str, typer.Option(help="Plans whose names begin so.")] = "",
    minutes: Minutes = 240,
    stages: Stages = 2,
    part: Part = "",
    record: RecordFile = RECORD,
) -> None:
    """Run the plans that the record lacks for this code; exits 1 if a promise was broken."""
    if not part:
        options = ["--plans", str(count), "--only", only, "--minutes", str(minutes)]
        code = side_by_side("tests.faults", ["run", *options, "--record", str(record)], stages)
        summary(record)
        raise typer.Exit(code)
    mine, parts = map(int, part.split("/"))
    wanted = islice((name for name in plans() if name.startswith(only)), count)
    tried = _tried(record)
    names = deque(name for name in islice(wanted, mine, None, parts) if name not in tried)
    deadline = time.monotonic() + 60 * minutes
    failures = 0
    while names and time.monotonic() < deadline and failures < _MOST_FAILURES:
        failures += not _try_all(names, Record(record), deadline)
    raise typer.Exit(bool(failures))


def _try_all(names: deque[str], record: Record, deadline: float) -> bool:
    """Run these plans on one stage; whether nothing was wrong.

    A trial that could not be carried out tells nothing, and is left to the next campaign.
    """
    kept = True
    try:
        with stage() as opened:
            while names and time.monotonic() < deadline:
                kept &= _try(opened, names.popleft(), record)
    except Exception:  # noqa: BLE001 - whatever has failed, the others get a stage of their own
        progress(traceback.format_exc())
        return False
    return kept


@app.command()
def replay(plan: str) -> None:
    """Carry out one plan again; prints what the judge says, and keeps the logs."""
    with stage() as opened:
        verdict = run(plans()[plan], opened, keep=True)
    typer.echo(f"{verdict}\n{verdict.notes}")
    raise typer.Exit(not verdict.kept)


@app.command()
def summary(record: RecordFile = RECORD) -> None:
    """Print what the record has for this code, by family, and which plans broke a promise."""
    every = list(Record(record).lines(KIND))
    lines = list(Record(record).of_this_code(KIND))
    counts = Counter(plans()[line["seed"]].family for line in lines)
    broken = sorted(line["seed"] for line in lines if line["verdict"] != "kept")
    for family, count in counts.most_common():
        typer.echo(f"{count:5}  {family}")
    typer.echo(f"{counts.total():5}  in all, {len(broken)} with a broken promise")
    vain = sum(line.get("hits") == 0 for line in lines)
    typer.echo(f"{vain:5}  of them in which nothing came that was to go wrong")
    of_any = len({line["seed"] for line in every})
    typer.echo(f"{of_any:5}  plans that were tried on this code or an earlier one")
    for name in broken:
        typer.echo(name)


def _tried(record: Path) -> set[str]:
    return {line["seed"] for line in Record(record).of_this_code(KIND)}


def _try(opened: Stage, name: str, record: Record) -> bool:
    plan = plans()[name]
    verdict = run(plan, opened)
    note(record, KIND, name, plan.setting, verdict, name, hits=verdict.notes["hits"])
    return verdict.kept


if __name__ == "__main__":
    app()
