"""What was promised for a run: it follows from what its ScannerJobs launch, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Promised:
    """How the run was configured, and within which times its promises hold.

    `broker` is None for Kubernetes Jobs. "redis" keeps a record of each launch
    (`maxmemory-policy noeviction`), "evicting redis" does not. `slack`: how much later one witness
    may be than another, in seconds. `send_deadline`: what was claimed is sent within that, or
    never. `cycle`: how long one takes at most, where nothing is wrong. `recovery`: how long after a
    fault everything is asked again, its longest rest included. `lapse`: how long after a worker's
    death its lease is believed to have lapsed.
    """

    broker: Literal["redis", "evicting redis", "rabbitmq", "sql"] | None
    guard: bool = False
    backend: bool = False
    republish: bool = False
    slack: float = 5.0
    send_deadline: float = 30.0
    cycle: float = 5.0
    recovery: float = 60.0
    lapse: float = 45.0

    @property
    def jobs(self) -> bool:
        """Whether rows become Kubernetes Jobs."""
        return self.broker is None

    @property
    def told(self) -> bool:
        """Whether a launch tells how it ended, so that a row which left settles none that runs."""
        return self.jobs or self.guard or self.backend

    @property
    def sends_again(self) -> bool:
        """Whether a launch in doubt is sent again; else it is held."""
        return self.jobs or self.guard or self.broker == "redis" or self.republish

    @property
    def publishes_once(self) -> bool:
        """Whether a second message of one launch is never given to the broker."""
        return not self.jobs and not self.guard and (self.broker == "redis" or not self.republish)

    @property
    def executes_once(self) -> bool:
        """Whether one launch is executed once, whatever the operator does."""
        return not self.jobs and (self.guard or self.broker == "redis")
