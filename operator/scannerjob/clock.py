"""The real clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def boottime() -> float:
    """CLOCK_BOOTTIME in seconds: unlike CLOCK_MONOTONIC it goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SystemClock:
    """The `Clock` of the machine this runs on."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def boottime(self) -> float:
        """See the function of this name."""
        return boottime()
