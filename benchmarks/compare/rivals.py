"""The libraries that ScannerJob is compared with, in a folder of their own in the user's cache."""

import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

# Without what they depend on: all systems run on the same Celery.
PACKAGES = ("celery-once==3.0.1", "celery-singleton==0.3.1", "six==1.17.0")


def library() -> Path:
    """The folder to put into PYTHONPATH; what belongs there is installed the first time."""
    known = hashlib.sha256(" ".join((*PACKAGES, sys.version)).encode()).hexdigest()[:16]
    folder = _cache() / "rivals" / known
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
            _install(Path(fresh) / "library")
            (Path(fresh) / "library").rename(folder)
    return folder


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scannerjob"


def _install(folder: Path) -> None:
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    subprocess.run([*pip, "--no-deps", "--target", str(folder), *PACKAGES], check=True)
