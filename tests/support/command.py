"""The command line, as a person types it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


class Command:
    """`scannerjob` with these options after each command."""

    def __init__(self, *options: str, env: Mapping[str, str] | None = None) -> None:
        self.options = options
        self._env = {**os.environ, "COLUMNS": "300", "TERM": "dumb", **(env or {})}

    def run(self, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run it; it must end with this exit code, and without a traceback."""
        done = subprocess.run(
            [sys.executable, "-m", "scannerjob", *map(str, arguments), *self.options],
            check=False,
            capture_output=True,
            text=True,
            timeout=120,
            env=self._env,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def says(self, *arguments: object) -> str:
        """What it prints."""
        return self.run(*arguments).stdout

    def complains(self, *arguments: object, code: int) -> str:
        """What it says is wrong; nothing else is printed."""
        return self.run(*arguments, code=code).stderr

    def data(self, *arguments: object) -> Any:
        """What it prints for programs."""
        return json.loads(self.says(*arguments, "--output", "json"))
