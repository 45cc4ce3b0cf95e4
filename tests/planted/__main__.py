"""`python -m tests.planted [NAME...]`: plants bugs, and prints by which tests they are caught.

Without NAMEs all are planted, one at a time. First the tiers run without any, and must pass: else
the table would prove nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.planted.bug import Bug
from tests.planted.bugs import BUGS
from tests.planted.tiers import TIERS, Tier
from tests.planted.trial import REPOSITORY, Catch, Outcome, TrialError, try_out

# So many of a hundred must be caught.
_WANTED = 95
RECORD = REPOSITORY / "docs/proof/planted.jsonl"
_CODE = "operator/scannerjob"


def main() -> int:
    """Plant, print, and say by the exit code whether enough were caught."""
    options = _options()
    bugs = [bug for bug in BUGS if not options.names or bug.name in options.names]
    tiers = [tier for tier in TIERS if not options.tier or tier.name in options.tier]
    if options.list:
        print("\n".join(f"{bug.name}\n    {bug.why} ({bug.file})" for bug in bugs))
        return 0
    if options.summary:
        return _told([_remembered(line) for line in _latest(options.record)])
    if not options.only_bugs and not _passes(tiers, options.seed):
        return 2
    outcomes = []
    for number, bug in enumerate(bugs, start=1):
        print(f"{number:3}/{len(bugs)} {bug.name}", end="", flush=True)
        outcomes.append(_tried(bug, tiers, options))
        print(f"  {_by(outcomes[-1])}", flush=True)
    return _told(outcomes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.planted", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="bugs to plant; all if none")
    parser.add_argument("--tier", action="append", help="run this tier alone; may be repeated")
    parser.add_argument("--seed", type=int, default=1, help="for the walks of the models")
    parser.add_argument("--record", type=Path, default=RECORD, help="gets a line for each bug")
    parser.add_argument("--summary", action="store_true", help="print what the record has")
    parser.add_argument("--only-bugs", action="store_true", help="leave out the run without a bug")
    parser.add_argument("--list", action="store_true", help="list the bugs, and plant none")
    options = parser.parse_args()
    _check(parser, options.names, [bug.name for bug in BUGS])
    _check(parser, options.tier or [], [tier.name for tier in TIERS])
    return options


def _check(parser: argparse.ArgumentParser, named: Sequence[str], known: Sequence[str]) -> None:
    for name in named:
        if name not in known:
            parser.error(f"there is no {name!r}: choose from {', '.join(map(repr, known))}")


def _passes(tiers: Sequence[Tier], seed: int) -> bool:
    """Whether the code as it is passes."""
    for tier in tiers:
        outcome = try_out(None, [tier], seed)
        told = f"fails: {outcome.catch.test}: {outcome.catch.said}" if outcome.catch else "passes"
        print(f"without a bug: {tier.name} {told}, in {outcome.seconds:.0f} s", flush=True)
        if outcome.catch:
            return False
    return True


def _tried(bug: Bug, tiers: Sequence[Tier], options: argparse.Namespace) -> Outcome:
    try:
        outcome = try_out(bug, tiers, options.seed)
    except TrialError as error:
        # That one counts for missed keeps nothing from the others.
        outcome = Outcome(bug, None, 0.0)
        print(f"  {error}", end="")
    with options.record.open("a") as record:
        record.write(json.dumps(_line(outcome, options.seed)) + "\n")
    return outcome


def _line(outcome: Outcome, seed: int) -> dict[str, object]:
    catch = outcome.catch
    return {
        "kind": "planted",
        "seed": seed,
        "bug": outcome.bug.name if outcome.bug else None,
        "verdict": "caught" if catch else "missed",
        "tier": catch.tier if catch else None,
        "test": catch.test if catch else None,
        "said": catch.said if catch else None,
        "seconds": round(outcome.seconds),
        "tree": _tree(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _latest(record: Path) -> Iterable[Mapping[str, Any]]:
    """The last line of each bug that is planted still."""
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    last = {line["bug"]: line for line in lines}
    return [last[bug.name] for bug in BUGS if bug.name in last]


def _remembered(line: Mapping[str, Any]) -> Outcome:
    (bug,) = (bug for bug in BUGS if bug.name == line["bug"])
    caught = line["verdict"] == "caught"
    catch = Catch(line["tier"], line["test"], line["said"]) if caught else None
    return Outcome(bug, catch, line["seconds"])


def _tree() -> str:
    """What the code is, as git knows it."""
    tree = _git("rev-parse", f"HEAD:{_CODE}")
    return f"{tree}-dirty" if _git("status", "--porcelain", "--", _CODE) else tree


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _told(outcomes: Sequence[Outcome]) -> int:
    print("\n| bug | caught by | after |\n|---|---|---|")
    for outcome in outcomes:
        name = outcome.bug.name if outcome.bug else ""
        print(f"| {name} | {_by(outcome)} | {outcome.seconds:.0f} s |")
    caught = sum(outcome.catch is not None for outcome in outcomes)
    print(f"\n{caught} of {len(outcomes)} are caught; at least {_WANTED} % must be.")
    return 0 if 100 * caught >= _WANTED * len(outcomes) else 1


def _by(outcome: Outcome) -> str:
    catch = outcome.catch
    return f"{catch.tier}: {catch.test.split('::', 1)[-1]}: {catch.said}" if catch else "NOBODY"


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TrialError as error:
        sys.exit(str(error))
