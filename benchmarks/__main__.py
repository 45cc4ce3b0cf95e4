"""Runs the benchmarks and prints their tables: all, or those that are named."""

import argparse
import logging
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console

from benchmarks import (
    compare,
    guard,
    hung,
    idle,
    jobs,
    outcomes,
    poll,
    publish,
    scale,
    sizes,
    start,
)
from benchmarks.table import Table

BENCHMARKS: dict[str, Callable[[], Table]] = {
    "poll": poll.run,
    "publish": publish.run,
    "outcomes": outcomes.run,
    "hung": hung.run,
    "idle": idle.run,
    "refill": jobs.refill,
    "burst": jobs.burst,
    "status": jobs.status,
    "scale": scale.run,
    "start": start.run,
    "sizes": sizes.run,
    "guard-cost": guard.cost,
    "guard-refill": guard.refill,
    "guard-recovery": guard.recovery,
}


def main() -> None:
    """Run and print; one table after another, as each is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS, "compare"], metavar="NAME")
    parser.add_argument(
        "--only", nargs="+", choices=compare.SCENARIOS, default=(), help="scenarios of compare"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)  # that a hung broker hangs is no news here
    console = Console(soft_wrap=True)
    failed = False
    for name in arguments.names or [*BENCHMARKS, "compare"]:
        console.print(f"measuring {name} ...", style="dim")
        for table in _tables(name, arguments.only):
            console.print(table.render(), highlight=False, markup=False)
            failed = failed or not table.bars_reached
    raise SystemExit(1 if failed else 0)


def _tables(name: str, only: Sequence[str]) -> Iterable[Table]:
    return compare.run(only) if name == "compare" else [BENCHMARKS[name]()]


if __name__ == "__main__":
    main()
