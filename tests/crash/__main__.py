"""`python -m tests.crash`: operators killed by the thousand, and whether a promise was broken."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any

import typer

from tests.crash.plan import Plan, plan
from tests.crash.run import run
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

RECORD = REPOSITORY / "docs" / "proof" / "crash.jsonl"
KIND = "crash"

app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.command()
def prove(
    kills: Annotated[
        int, typer.Option(help="How many are to be in the record for this code, per target.")
    ] = 1000,
    minutes: Minutes = 240,
    target: Annotated[
        list[str] | None, typer.Option(help="celery, job; both if not given.")
    ] = None,
    stages: Stages = 2,
    part: Part = "",
    record: RecordFile = RECORD,
) -> None:
    """Kill so often for each target; goes on where the record ends; exits 1 if a promise broke."""
    targets: list[Target] = [each for each in ("celery", "job") if each in (target or [each])]
    if not part:
        options = [*("--kills", str(kills)), *("--minutes", str(minutes))]
        options += [word for each in targets for word in ("--target", each)]
        code = side_by_side("tests.crash", ["prove", *options, "--record", str(record)], stages)
        summary(record)
        raise typer.Exit(code)
    mine, parts = map(int, part.split("/"))
    deadline = time.monotonic() + 60 * minutes
    broken = 0
    with stage() as opened:
        for each in targets:
            for one in _plans(each, mine, parts, Record(record)):
                done = _killed(Record(record).of_this_code(KIND))[each]
                if time.monotonic() > deadline or done >= kills:
                    break
                broken += not _try(one, run(one, opened), each, Record(record))
    raise typer.Exit(bool(broken))


@app.command()
def replay(target: Target, seed: int) -> None:
    """Carry out one plan again; prints what the judge says, and keeps the logs."""
    with stage() as opened:
        verdict = run(plan(seed, target), opened, keep=True)
    print(verdict, verdict.notes, sep="\n")
    raise typer.Exit(not verdict.kept)


@app.command()
def summary(record: RecordFile = RECORD) -> None:
    """Print what the record has: kills by target and by point, and what was broken."""
    lines = list(Record(record).lines(KIND))
    killed, here = _killed(lines), _killed(Record(record).of_this_code(KIND))
    for target, count in sorted(killed.items()):
        of_target = [line for line in lines if line["target"] == target]
        broken = sum(line["verdict"] != "kept" for line in of_target)
        print(
            f"{target}: {count} kills in {len(of_target)} trials, {broken} with a broken promise; "
            f"{here[target]} of them on this code"
        )
    points: Counter[str] = Counter()
    for line in lines:
        points.update(line["points"])
    for name, count in points.most_common():
        print(f"{count:7}  {name}")


def _plans(target: Target, part: int, parts: int, record: Record) -> Iterator[Plan]:
    """Those of this part that were not tried yet."""
    here = record.of_this_code(KIND)
    tried = {line["seed"] for line in here if line["target"] == target}
    for seed in itertools.count(1 + part, parts):
        if seed not in tried:
            yield plan(seed, target)


def _killed(lines: Iterable[Mapping[str, Any]]) -> Counter[str]:
    killed: Counter[str] = Counter()
    for line in lines:
        killed[line["target"]] += line["kills"]
    return killed


def _try(one: Plan, verdict: Verdict, target: str, record: Record) -> bool:
    kills, points = verdict.notes["kills"], verdict.notes["points"]
    name = f"{target} {one.seed} ({one.setting}), {kills} killed"
    more = {"target": target, "kills": kills, "points": points}
    note(record, KIND, one.seed, one.setting, verdict, name, **more)
    return verdict.kept


if __name__ == "__main__":
    app()
