"""The libraries that docs/single-flight.md tells how to move from, and benchmarks compare with."""

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

# Without what they depend on: they run with our Celery and our redis-py.
_PACKAGES = ("celery-once==3.0.1", "celery-singleton==0.3.1", "six==1.17.0")


@cache
def rivals() -> Path:
    """The folder that has them, for PYTHONPATH; they are fetched once, into the user's cache."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "scannerjob" / "-".join(["locks", *_PACKAGES])
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            # Another process that does the same does no harm: the first to rename wins.
            _install(Path(fresh) / "library")
            with suppress(OSError):
                (Path(fresh) / "library").rename(folder)
    return folder


def _install(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "--no-deps", "--target", str(folder), *_PACKAGES], check=True)
