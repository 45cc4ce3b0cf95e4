"""`python -m tests.misoperations`: specs that people get wrong, and whether all recovers."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated

import typer

from tests.harness.campaign import (
    Minutes,
    Part,
    RecordFile,
    Stages,
    note,
    side_by_side,
    stage,
)
from tests.harness.record import REPOSITORY, Record
from tests.harness.setting import Target
from tests.harness.trial import Verdict
from tests.misoperations.fields import steps
from tests.misoperations.plan import HANDS, Plan, plan
from tests.misoperations.run import run

RECORD = REPOSITORY / "docs" / "proof" / "misoperations.jsonl"
KIND = "misoperations"

app = typer.Typer(no_args_is_help=True, add_completion=False)
_TARGETS: tuple[Target, ...] = ("celery", "job")


@app.command()
def prove(
    rounds: Annotated[int, typer.Option(help="How often each change is made.")] = 1,
    minutes: Minutes = 240,
    stages: Stages = 2,
    part: Part = "",
    record: RecordFile = RECORD,
) -> None:
    """Make each change; goes on where the record ends; exits 1 if anything was not as it should."""
    if not part:
        options = ["--rounds", str(rounds), "--minutes", str(minutes), "--record", str(record)]
        code = side_by_side("tests.misoperations", ["prove", *options], stages)
        summary(record)
        raise typer.Exit(code)
    mine, parts = map(int, part.split("/"))
    deadline = time.monotonic() + 60 * minutes
    wrong = 0
    with stage() as opened:
        for target, one in itertools.islice(_plans(rounds, Record(record)), mine, None, parts):
            if time.monotonic() > deadline:
                break
            wrong += not _try(target, one, run(one, opened), Record(record))
    raise typer.Exit(bool(wrong))


@app.command()
def replay(target: Target, seed: int) -> None:
    """Carry out one plan again; prints what was wrong, and keeps the logs."""
    with stage() as opened:
        verdict = run(plan(seed, target), opened, keep=True)
    print(verdict, verdict.notes["folder"], sep="\n")
    raise typer.Exit(not verdict.kept)


@app.command()
def summary(record: RecordFile = RECORD) -> None:
    """Print what the record has: by field, how often it was changed well and badly."""
    lines = list(Record(record).lines(KIND))
    wrong = sum(line["verdict"] != "kept" for line in lines)
    rows = sum(line["rows"] for line in lines)
    print(f"{len(lines)} trials with {rows} rows, {wrong} of them not as they should be")
    valid = {each.name: each.valid for target in _TARGETS for each in steps(target)}
    tried: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for name in (name for line in lines for name in line["steps"] if name in valid):
        tried[name.partition(": ")[0]][valid[name]] += 1
    for field, (bad, good) in sorted(tried.items()):
        print(f"{good:5} valid {bad:5} bad  {field}")


def _plans(rounds: int, record: Record) -> Iterator[tuple[Target, Plan]]:
    """Those that were not tried yet."""
    tried = {(line["target"], line["seed"]) for line in record.of_this_code(KIND)}
    for target in _TARGETS:
        for seed in range(1, rounds * HANDS[target] + 1):
            if (target, seed) not in tried:
                yield target, plan(seed, target)


def _try(target: Target, one: Plan, verdict: Verdict, record: Record) -> bool:
    name = f"{target} {one.seed}, {len(verdict.notes['steps'])} changes"
    told = {each: verdict.notes[each] for each in ("steps", "neighbour")}
    told |= {"target": target, "complaints": verdict.complaints}
    note(record, KIND, one.seed, one.setting, verdict, name, **told)
    return verdict.kept


if __name__ == "__main__":
    app()
