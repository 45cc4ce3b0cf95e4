"""Whether workers are seen to take what is launched: for people to know, and no evidence."""

from __future__ import annotations

from datetime import datetime

from scannerjob.model.conditions import Workers
from scannerjob.model.facts import Backlog
from scannerjob.model.ledger import Ledger, Phase


class WorkerWatch:
    """Looks at a queue from cycle to cycle. What it remembers may be lost at any time.

    Where the broker does not know who listens, a worker is seen by what it does: messages become
    fewer, or launches end.
    """

    def __init__(self) -> None:
        self._last: Backlog | None = None
        self._unseen_since: datetime | None = None
        self._in_need = True

    @property
    def seen(self) -> Workers | None:
        """What is known by now; None where nothing is, though something waits for workers."""
        if self._last is not None:
            counted = self._last.consumers is not None
            return Workers(self._last.queue, self._unseen_since, counted)
        return None if self._in_need else Workers("", None, counted=False)

    def note(
        self, backlog: Backlog | None, ledger: Ledger, now: datetime, *, busy: bool = False
    ) -> None:
        """Take in what the broker told; None where that is not known, or where nothing is out.

        `busy`: some worker holds a lease on a launch.
        """
        self._in_need = _in_need(ledger)
        if busy or not self._in_need:
            self._unseen_since = None
        elif backlog is not None:
            self._compare(backlog, ledger, now)

    def _compare(self, backlog: Backlog, ledger: Ledger, now: datetime) -> None:
        if self._shows_workers(backlog, ledger):
            self._unseen_since = None
        elif self._unseen_since is None:
            self._unseen_since = _since(ledger, now, first=self._last is None)
        self._last = backlog

    def _shows_workers(self, backlog: Backlog, ledger: Ledger) -> bool:
        if backlog.consumers is not None:
            return backlog.consumers > 0
        fewer = self._last is not None and backlog.waiting < self._last.waiting
        settled, since = ledger.last_settled, self._unseen_since
        ended = settled is not None and since is not None and settled > since
        return backlog.waiting == 0 or fewer or ended


def _since(ledger: Ledger, now: datetime, *, first: bool) -> datetime:
    """Now; or, for who has just begun to look, since what was launched waits or the last ended."""
    if not first:
        return now.replace(microsecond=0)
    oldest = min((item.first_claimed for item in ledger.outstanding), default=now)
    return max(oldest, ledger.last_settled or oldest)


def _in_need(ledger: Ledger) -> bool:
    """Whether anything waits for a worker, or will as soon as it is launched again."""
    return any(item.outstanding or item.phase is Phase.WAITING for item in ledger.items)
