"""Asks whether any pinned package has a known vulnerability, and fails if one has.

    python tests/setup/audit.py [--advisories URL] [CONSTRAINTS]

Where the service cannot be reached nothing was learnt: that is said, and is no failure, so that one
can work without a network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any

# What answers questions in the format of OSV, the database of open source vulnerabilities.
ADVISORIES = "https://api.osv.dev/v1/query"
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
_A_QUESTION = {"package": {"name": "celery", "ecosystem": "PyPI"}, "version": "5.7.0"}
_SECONDS = 15


def main() -> None:
    """Ask, and exit with 1 if there is a known vulnerability, or the question itself fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("constraints", nargs="?", type=Path, default=CONSTRAINTS)
    parser.add_argument("--advisories", default=ADVISORIES, metavar="URL")
    arguments = parser.parse_args()
    raise SystemExit(audit(arguments.constraints, arguments.advisories))


def audit(constraints: Path, advisories: str) -> str | None:
    """Say what is known of these pins; gives what is wrong, if anything is."""
    if not _answers(advisories):
        print(f"NOT AUDITED: {advisories} cannot be reached; nothing was learnt of the versions")
        return None
    asked = _ask(constraints, advisories)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        return asked.stderr
    skipped = [each["name"] for each in packages if "skip_reason" in each]
    if skipped:
        return f"nothing could be learnt of {', '.join(skipped)}"
    found = [_described(package) for package in packages if package["vulns"]]
    if found:
        return "\n".join(["known vulnerabilities:", *found])
    print(f"{len(packages)} packages have no known vulnerability")
    return None


def _answers(advisories: str) -> bool:
    question = urllib.request.Request(advisories, json.dumps(_A_QUESTION).encode())
    try:
        with urllib.request.urlopen(question, timeout=_SECONDS) as answer:
            return isinstance(json.load(answer), dict)
    except (OSError, ValueError, HTTPException):
        return False


def _ask(constraints: Path, advisories: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(constraints)]
    pinned = ["--no-deps", "--disable-pip"]
    service = ["--vulnerability-service", "osv", "--osv-url", advisories]
    said = ["--format", "json", "--progress-spinner", "off", "--timeout", str(_SECONDS)]
    return subprocess.run(
        [*command, *pinned, *service, *said], capture_output=True, text=True, check=False
    )


def _described(package: dict[str, Any]) -> str:
    ids = ", ".join(each["id"] for each in package["vulns"])
    fixed = sorted({version for each in package["vulns"] for version in each["fix_versions"]})
    cure = f"; fixed in {', '.join(fixed)}" if fixed else ""
    return f"  {package['name']} {package['version']}: {ids}{cure}"


if __name__ == "__main__":
    main()
