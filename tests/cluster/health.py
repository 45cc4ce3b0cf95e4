"""What an operator tells its probes."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any


def answer(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """The status and what came with it. Raises OSError where nobody listens."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)
