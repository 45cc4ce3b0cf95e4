"""What a trial is about: how the operator runs, what it launches, and on which parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.proof.promised import Promised

Way = Literal["operator", "standalone"]
Target = Literal["celery", "job"]
Broker = Literal["redis", "rabbitmq", "sql"]


@dataclass(frozen=True)
class Setting:
    """One way to run ScannerJob, and its load.

    `replicas` processes run at once; with `election` (in a cluster) one of them works at a time.
    Every `fails_every`th row fails once, and is tried again. `proxied`: what the operators talk to
    is behind proxies, so that it can be cut off from them, and from them alone. `spec` goes over
    the spec that is made of all this.
    """

    way: Way = "operator"
    target: Target = "celery"
    broker: Broker = "redis"
    guard: bool = True
    replicas: int = 1
    election: bool = False
    rows: int = 20
    cap: int = 4
    seconds: float = 0.3
    fails_every: int = 7
    proxied: bool = False
    spec: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        parts: list[str] = [self.way, self.target]
        if self.target == "celery":
            parts += [self.broker, "guard" if self.guard else "no guard"]
        parts.append(f"{self.replicas} replicas" if self.replicas > 1 else "1 replica")
        return ", ".join([*parts, "election"] if self.election else parts)

    def promised(self, slack: float, recovery: float) -> Promised:
        """What is promised for it; see there for both times."""
        if self.target == "job":
            return Promised(broker=None, slack=slack, recovery=recovery)
        return Promised(broker=self.broker, guard=self.guard, slack=slack, recovery=recovery)
