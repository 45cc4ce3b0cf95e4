"""Walks the real cycle at random through worlds in which everything fails, for many steps.

    python -m tests.model.prove --steps 1000000         go on until so many steps are in the record
    python -m tests.model.prove --replay celery 17      walk once more as with this seed

Every batch is one line in the record, so that a run which was stopped goes on where it was: only
what was walked with the code as it is counts. A step is one thing that happens: an operator goes on
by up to twelve calls, a call fails, a worker does its work, time passes, somebody edits the spec.
After each walk of up to 60 steps all get well, and then every row has to be done.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from hypothesis import seed as seeded
from hypothesis.stateful import invariant

from tests.harness.record import REPOSITORY, Record, tree
from tests.model.basics import Violation
from tests.model.job_machine import JobCycle
from tests.model.machine import STEPS_PER_WALK, Cycle, run

RECORD = REPOSITORY / "docs/proof/model.jsonl"
KIND = "walks"
BATCH = 20_000
MACHINES: Mapping[str, type[Cycle]] = {"celery": Cycle, "jobs": JobCycle}


def main() -> None:
    """Walk; end with an error if a promise was broken."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.model.prove",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=1_000_000, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=BATCH, help="default: %(default)s")
    parser.add_argument("--record", type=Path, default=RECORD, help="default: %(default)s")
    parser.add_argument("--replay", nargs=2, metavar=("MACHINE", "SEED"))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # what fails here, fails by intention
    if arguments.replay:
        machine, seed = arguments.replay
        print(f"{walk(machine, int(seed), arguments.batch):,} steps, and no promise was broken")
        return
    prove(Record(arguments.record), arguments.steps, arguments.batch)


def prove(record: Record, steps: int, batch: int) -> None:
    """Walk until the record has `steps` steps, as many with each machine.

    Raises SystemExit, with what happened and how to see it again, if a promise is broken.
    """
    begun, before = time.monotonic(), sum(_walked(record).values())
    while sum((walked := _walked(record)).values()) < steps:
        _show(walked, steps, before, begun)
        machine = min(MACHINES, key=lambda name: walked[name])
        _walk_one_batch(record, machine, _next_seed(record, machine), batch)
    print(", ".join(f"{walked[name]:,} steps with {name}" for name in MACHINES), "and none broke")


def walk(machine: str, seed: int, steps: int) -> int:
    """Walk about so many steps by this seed; gives how many it were. Raises Violation."""
    counted = type("Counted", (_Counting, MACHINES[machine]), {"steps": 0})
    run(
        seeded(seed)(counted),
        max_examples=max(1, steps // STEPS_PER_WALK),
        database=None,
        report_multiple_bugs=False,
        print_blob=False,
    )
    return int(counted.steps)  # type: ignore[attr-defined]


class _Counting(Cycle):
    """A machine that counts its steps; the making of the world is none."""

    steps = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).steps -= 1

    @invariant()
    def count(self) -> None:
        type(self).steps += 1


def _walk_one_batch(record: Record, machine: str, seed: int, steps: int) -> None:
    begun = time.monotonic()
    try:
        done = walk(machine, seed, steps)
    except Violation as violation:
        record.append(KIND, seed, kept=False, machine=machine, steps=0, batch=steps)
        again = f"python -m tests.model.prove --batch {steps} --replay {machine} {seed}"
        raise SystemExit(f"{violation}\n\nsee it again: {again}") from violation
    seconds = round(time.monotonic() - begun)
    record.append(KIND, seed, kept=True, machine=machine, steps=done, batch=steps, seconds=seconds)


def _walked(record: Record) -> dict[str, int]:
    """How many steps the record has of each machine, with the code as it is now."""
    walked = dict.fromkeys(MACHINES, 0)
    for line in record.lines(KIND):
        if line["tree"] == tree() and line["verdict"] == "kept":
            walked[line["machine"]] += line["steps"]
    return walked


def _next_seed(record: Record, machine: str) -> int:
    """A new one; but one that broke a promise comes again until it keeps them all."""
    lines = [line for line in record.lines(KIND) if line["machine"] == machine]
    verdicts = {line["seed"]: line["verdict"] for line in lines}
    broken = [seed for seed, verdict in verdicts.items() if verdict == "broken"]
    return min(broken) if broken else len(verdicts)


def _show(walked: Mapping[str, int], steps: int, before: int, begun: float) -> None:
    done, seconds = sum(walked.values()), time.monotonic() - begun
    if sys.stderr.isatty():
        left = (steps - done) * seconds / max(done - before, 1)
        line = f"\r{done:,} of {steps:,} steps"
        print(line, f", {left / 60:.0f} min left" * (done > before), end="  ", file=sys.stderr)


if __name__ == "__main__":
    main()
