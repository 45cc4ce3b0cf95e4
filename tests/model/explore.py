"""Explores the small model to the end: every order of everything, within bounds that have names.

    python -m tests.model.explore               everything that is not in the record yet
    python -m tests.model.explore jobs --size rows

Each run that ended is one line in the record: how many states there are, how many transitions
between them, and the most steps that lead to one. What a person should know of the bounds:

- two operators, always; rows, slots (cap), attempts, how often something goes wrong (faults) and
  how often time passes (waits) are those of the size;
- what goes wrong: an operator is killed between any two steps, a write or a send has no answer
  though it came, or did not, or comes late, or is refused, or a row leaves by itself; of three
  rows that share two slots only the first, since there would be no end within days;
- time passes by spells of one to three lengths (spells): beyond an orphan's 5 s, a send's 30 s, and
  a launch's life or, where that is not limited, a late send's 15 minutes; never by 23 hours, for
  which a broker that drops second sends remembers the first;
- a row has no cooldown, and never returns once it has left; the spec does not change, no ledger is
  lost, every look sees every row, and there is no guard, which has a model of its own;
- states are told apart by 64 bits of a hash: of ten million, two collide once in 400,000 runs.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scannerjob.model.decide import decide
from tests.harness.record import REPOSITORY, Record, tree
from tests.model.small import Broken, Model
from tests.model.small_search import Explored, explore

RECORD = REPOSITORY / "docs/proof/explored.jsonl"
KIND = "exhaustive"


@dataclass(frozen=True)
class Size:
    """The bounds: so much there is, goes wrong, and so often time passes, by so many spells."""

    rows: int
    cap: int
    attempts: int
    faults: int
    waits: int
    spells: int = 3
    only_crashes: bool = False

    def __str__(self) -> str:
        each = (f"{name} {value}" for name, value in asdict(self).items())
        return ", ".join(["operators 2", *each])


SIZES = {
    "faults": Size(rows=1, cap=1, attempts=2, faults=2, waits=1),
    "time": Size(rows=1, cap=1, attempts=2, faults=1, waits=2),
    "retries": Size(rows=2, cap=1, attempts=2, faults=1, waits=1, spells=1),
    "crashes": Size(rows=3, cap=2, attempts=1, faults=1, waits=1, spells=1, only_crashes=True),
}
# Seconds, each beyond a bound: an orphan's, a send's, and a launch's life or a late send's.
LIMITED, UNLIMITED = (6, 40, 140), (6, 40, 960)


def _celery(idempotent: bool, outcomes: bool, lifetime: bool) -> Model:
    spells = LIMITED if lifetime else UNLIMITED
    return Model(decide, idempotent, outcomes, lifetime, spells=spells)


def _name(*has: bool) -> str:
    """By what there is: a broker that drops what it had, a result backend, an end to each life."""
    parts = ("drops", "told", "limited")
    return "celery" + "".join(f"-{part}" for part, there in zip(parts, has, strict=True) if there)


# Rows become tasks, where each of three things is there or not, or Jobs.
TARGETS: Mapping[str, Model] = {
    **{_name(*has): _celery(*has) for has in itertools.product([True, False], repeat=3)},
    "jobs": Model(decide, True, True, False, spells=UNLIMITED, jobs=True),
}


def model(target: str, size: Size) -> Model:
    """What is explored for this kind of target, in this size."""
    described = TARGETS[target]
    return replace(described, **{**asdict(size), "spells": described.spells[-size.spells :]})


def main() -> None:
    """Explore; end with an error if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model.explore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", choices=[[], *TARGETS], metavar="TARGET")
    parser.add_argument("--size", choices=SIZES, action="append", help="default: all")
    parser.add_argument("--record", type=Path, default=RECORD, help="default: %(default)s")
    arguments = parser.parse_args()
    record = Record(arguments.record)
    done = {line["seed"]: line for line in record.lines(KIND) if _counts(line)}
    for size, target in itertools.product(arguments.size or SIZES, arguments.targets or TARGETS):
        seed = f"{target} {size}"
        if seed in done:
            print(f"{seed}: {done[seed]['states']:,} states, as the record has it")
        else:
            _explore(record, target, size)


def _counts(line: Mapping[str, Any]) -> bool:
    return line["tree"] == tree() and line["verdict"] == "kept" and "dirty" not in line["tree"]


def _explore(record: Record, target: str, size: str) -> None:
    seed, bounds, begun = f"{target} {size}", SIZES[size], time.monotonic()
    show = _shown if sys.stderr.isatty() else None
    try:
        found = explore(model(target, bounds), tell=lambda so_far: show and show(seed, so_far))
    except Broken as broken:
        record.append(KIND, seed, kept=False, bounds=str(bounds), broken=str(broken).splitlines())
        raise SystemExit(f"{seed}: {bounds}\n{broken}") from None
    seconds = round(time.monotonic() - begun)
    record.append(
        KIND,
        seed,
        kept=True,
        bounds=str(bounds),
        states=found.states,
        transitions=found.transitions,
        depth=found.depth,
        seconds=seconds,
    )
    print(f"{seed}: {bounds}: {found}, in {seconds} s", flush=True)


def _shown(seed: str, so_far: Explored) -> None:
    print(
        f"\r{seed}: {so_far.states:,} states, {so_far.waiting:,} to visit  ",
        end="",
        file=sys.stderr,
    )


if __name__ == "__main__":
    main()
