"""A run, as the checks see it: its history, what was promised for it, and its launches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import inf
from typing import Any

from tests.proof.endings import Endings
from tests.proof.history import History, Version
from tests.proof.launches import Launch, launches_of
from tests.proof.promised import Promised


class Run:
    """A history together with what was promised for it, and what follows from both."""

    def __init__(self, history: History, promised: Promised) -> None:
        self.history = history
        self.promised = promised
        self.endings = Endings(history, promised)

    @cached_property
    def launches(self) -> list[Launch]:
        """All, in the order in which they began."""
        return launches_of(self.history)

    @cached_property
    def launch(self) -> Mapping[str, Launch]:
        """By their ids."""
        return {launch.id: launch for launch in self.launches}

    @cached_property
    def launches_of(self) -> Mapping[str, list[Launch]]:
        """Those of each ScannerJob, in order; one whose claim nobody saw is nobody's."""
        groups: dict[str, list[Launch]] = {uid: [] for uid in self.history.versions_of}
        for launch in self.launches:
            if launch.uid is not None:
                groups.setdefault(launch.uid, []).append(launch)
        return groups

    @cached_property
    def rows(self) -> Mapping[tuple[str, str], list[Launch]]:
        """The launches of each row of each ScannerJob, in order."""
        groups: dict[tuple[str, str], list[Launch]] = defaultdict(list)
        for uid, launches in self.launches_of.items():
            for launch in launches:
                groups[uid, launch.row].append(launch)
        return groups

    @cached_property
    def may_end(self) -> Mapping[str, float]:
        """Before this a launch is out beyond doubt."""
        return {launch.id: self.endings.may_end(launch) for launch in self.launches}

    @cached_property
    def must_end(self) -> Mapping[str, float]:
        """From this on the operator can know that a launch is not out.

        It says itself that it does when it launches the row anew.
        """
        ends = {launch.id: self.endings.must_end(launch) for launch in self.launches}
        for launches in self.rows.values():
            for launch, following in pairwise(launches):
                ends[launch.id] = min(ends[launch.id], following.begun)
        return ends

    def unseen(self, uid: str) -> set[str]:
        """What this ScannerJob's ledger had claimed, and nobody saw sent."""
        claims = self.history.claims.items()
        return {claim for claim, by in claims if by[0].uid == uid and claim not in self.launch}

    def is_claim_in_doubt(self, item: Mapping[str, Any]) -> bool:
        """Whether this item of a ledger is a claim that nobody saw sent."""
        return item["phase"] == "Claimed" and item["id"] not in self.launch

    def is_excused(self, uid: str) -> bool:
        """Whether nothing can be said of this ScannerJob's ledger."""
        return any(excuse.uid == uid for excuse in self.history.excuses)

    def calm_since(self, uid: str) -> float:
        """When all faults were over, and what they had delayed can have been asked again."""
        return self.disturbed_until(uid) + self.promised.recovery

    def disturbed_until(self, uid: str) -> float:
        """When all faults were over."""
        ends = [each.end for each in self.history.faults if each.uid in (None, uid)]
        # A successor launches nothing while Jobs of its predecessor go on.
        for other, versions in self.history.versions_of.items():
            if other != uid and versions[-1].deleted:
                ends += [self.must_end[each.id] for each in self.launches_of[other] if each.jobs]
        return max(ends, default=-inf)

    def settled_by(self, uid: str) -> float:
        """When a ScannerJob's status must tell how things are: two intervals after all changes.

        `inf` where things changed until the end, or nobody saw its versions after that.
        """
        versions = self.history.versions_of[uid]
        if versions[-1].deleted or self.is_excused(uid):
            return inf
        changed = max(self._last_change(versions), self.calm_since(uid))
        due = changed + 2 * versions[-1].interval + self.promised.slack
        unseen = (
            self.history.has_gap("scannerjobs", begin=changed)
            or self.history.has_gap("jobs", "messages")
            or any(launch.uid is None for launch in self.launches)
        )
        return inf if unseen or due >= self.history.end else due

    def _last_change(self, versions: list[Version]) -> float:
        history = self.history
        times = [
            *(each.time for each in history.messages),
            *(each.time for each in history.deaths),
            *(each.since for each in history.excuses),
            *(each.end for each in history.faults),
            *(time for each in history.rows for time in (each.since, each.until)),
            *(time for job in history.jobs for time in (job.created, job.finished, job.deleted)),
            *(time for pod in history.pods for time in (pod.created, pod.ended)),
            *(time for run in history.executions for time in (run.started, run.ended)),
            versions[0].time,
            *(b.time for a, b in pairwise(versions) if a.spec != b.spec),
        ]
        return max(time for time in times if time is not None and time < inf)
