"""ScannerJobs that come and go, one after the other, each with Secrets of its own."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping

from tests.soak.credentials import Credentials
from tests.soak.lane import Kind, Lane, counters, is_quiet
from tests.soak.systems import NAMESPACE, Cluster, Status

_KINDS: tuple[Kind, ...] = ("redis", "job", "rabbitmq")
_ROWS = 3
_SECRETS = ("database", "redis", "rabbitmq")


class Guests:
    """The guests of an operator, whose rows are in one lane."""

    def __init__(self, cluster: Cluster, lane: Lane, credentials: Credentials) -> None:
        self.lane = lane
        self.counters: Counter[str] = Counter()
        """The sums of those that have gone."""
        self.invited = 0
        self._cluster = cluster
        self._credentials = credentials
        self._kinds = itertools.cycle(_KINDS)
        self._name = ""

    @property
    def present(self) -> bool:
        """Whether one is there."""
        return bool(self._name)

    def invite(self) -> None:
        """Create the next one, with rows to do, unless one is there."""
        if self.present:
            return
        self.invited += 1
        self._name = f"guest-{self.invited}"
        self.lane.kind = next(self._kinds)
        for secret, url in self._credentials.renew("guest").items():
            self._cluster.put_secret(f"{self._name}-{secret}", url)
        self.lane.insert(_ROWS)
        self._cluster.create(self.lane.document(NAMESPACE, self._name, f"{self._name}-"))

    def see_off(
        self,
        statuses: Mapping[str, Status],
        seen_for: float,
        touched: Callable[[float, float], bool],
    ) -> None:
        """Delete the one that is there, once its rows are done and booked."""
        status = statuses.get(self._name, {})
        self.lane.tidy(status, seen_for, touched)
        if not self.present or self.lane.unbooked or not is_quiet(status):
            return
        self.counters += counters(status)
        self._cluster.delete(self._name)
        for secret in _SECRETS:
            self._cluster.delete_secret(f"{self._name}-{secret}")
        self._name = ""
