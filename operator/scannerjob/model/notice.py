"""What is told to people when something has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Notice:
    """One change: a CamelCase reason, and a message that names what it is about.

    Warning: somebody should look. Normal: it is as it should be, or is so again.
    """

    type: Literal["Normal", "Warning"]
    reason: str
    message: str
