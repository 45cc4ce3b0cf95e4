"""What an operator process is told when it is started."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

LEASE_NAME = "scannerjob-operator"


@dataclass(frozen=True)
class Options:
    """The options of `scannerjob operator`.

    `namespaces` are those that are watched: none means all, and None that it is not known. Without
    `lease_namespace` the Lease is in the namespace that the process runs in.
    """

    namespaces: Collection[str] | None = ()
    health_port: int | None = None
    leader_election: bool = True
    lease_name: str = LEASE_NAME
    lease_namespace: str | None = None
