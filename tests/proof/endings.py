"""Until when each launch is out.

Nobody outside can tell the moment at which a launch is over. So there are two: `may_end`, before
which it is out beyond doubt, and `must_end`, from which on the operator can know that it is not.
Accusations of too much rest on the first, of too little on the second.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from tests.proof.history import Execution, History, Pod, Witness
from tests.proof.launches import Launch
from tests.proof.promised import Promised

# How much later than by its message's times a launch counts as over: a tenth, within these bounds.
_LEAST_MARGIN, _MOST_MARGIN = 2.0, 120.0
# A claim whose row has left is kept this long where nothing else can stop a late sender.
_LATEST_SEND = 900.0


class Endings:
    """When launches and their executions end, by what was promised and observed."""

    def __init__(self, history: History, promised: Promised) -> None:
        self._history = history
        self._promised = promised

    def over(self, launch: Launch, run: Execution) -> float:
        """When an execution may be over: its end, its worker's, its limit, or our knowledge of it.

        Where nothing but its row tells of a launch, also when that has left: it must match until
        the work is done.
        """
        if run.ended is not None:
            ends = [run.ended]
        else:
            upsets = [
                *self._history.deaths_of.get(run.worker, ()),
                *self._gaps("executions"),
                launch.excused,
            ]
            ends = [each for each in upsets if each >= run.started]
            # Its limit runs from its real begin, which its own record is later than.
            unnoted = min(launch.time_limit, self._promised.slack)
            ends.append(run.started + launch.time_limit - unnoted)
        if not self._promised.told:
            ends.append(self._history.leaves(launch.uid, launch.row, run.started))
        return min(ends, default=inf)

    def may_end(self, launch: Launch) -> float:
        """Before this it is out beyond doubt."""
        end = self._job_may_end(launch) if launch.jobs else self._task_may_end(launch)
        return min(end, max(launch.begun, launch.excused))

    def must_end(self, launch: Launch) -> float:
        """From this on the operator can know that it is not out; `inf` if that cannot be told."""
        if launch.excused < inf:
            return inf
        return self._job_must_end(launch) if launch.jobs else self._task_must_end(launch)

    def pod_over(self, pod: Pod) -> float:
        """When nothing of a pod may run any more, as far as its watch can tell."""
        if pod.ended is not None:
            return pod.ended
        return min((each for each in self._gaps("pods") if each >= pod.created), default=inf)

    # Jobs

    def _job_may_end(self, launch: Launch) -> float:
        job = launch.jobs[0]
        if job.finished is not None:
            return job.finished
        if job.deleted is not None:
            # Two watches: the operator may have seen the pods end before ours did.
            pods_end = max(map(self.pod_over, launch.pods), default=-inf)
            return max(job.deleted, pods_end - self._promised.slack)
        return min((each for each in self._gaps("jobs") if each >= job.created), default=inf)

    def _job_must_end(self, launch: Launch) -> float:
        job = launch.jobs[0]
        if job.finished is not None:
            return job.finished
        if job.deleted is None:
            return inf
        ends = [inf if pod.ended is None else pod.ended for pod in launch.pods]
        if launch.id in self._history.sent_again:
            # Another create of it may still be on its way.
            ends.append(self._history.claims[launch.id][-1].time + _LATEST_SEND)
        return max([job.deleted, *ends])

    # Celery tasks

    def _task_may_end(self, launch: Launch) -> float:
        ends = [self.over(launch, run) for run in launch.finals]
        if not launch.finals:
            ends += [launch.expires, *self._unrecorded(launch)]
        return max(launch.begun, min([*ends, self._leaves_idle(launch)], default=inf))

    def _unrecorded(self, launch: Launch) -> Iterator[float]:
        """When it may have been begun and lost before that could be recorded."""
        since = max((run.started for run in launch.executions), default=launch.begun)
        deaths = [each.time for each in self._history.deaths]
        frozen = [each.since for each in self._history.excuses if each.worker is not None]
        yield from (each for each in (*deaths, *frozen, *self._gaps("executions")) if each >= since)
        if self._promised.guard and (released := self._released(launch)) is not None:
            yield released

    def _released(self, launch: Launch) -> float | None:
        """Its begin, if it was given up by then: a guard lets nobody execute what comes so late."""
        claims = self._history.claims.get(launch.id)
        if not claims:
            return None
        later = (
            each
            for each in self._history.versions_of[claims[0].uid]
            if each.time > claims[-1].time or each.deleted
        )
        released = min((each.time for each in later), default=inf)
        return launch.begun if released <= launch.begun + self._promised.slack else None

    def _leaves_idle(self, launch: Launch) -> float:
        """When its row first does not match while no execution of it goes on.

        One that goes on, and will tell of its end, is out whether its row matches or not.
        """
        moment = launch.begun
        runs = [(run.started, self.over(launch, run)) for run in launch.executions]
        while (moment := self._history.leaves(launch.uid, launch.row, moment)) < inf:
            going_on = [over for started, over in runs if started <= moment < over]
            if not going_on:
                return moment
            moment = max(going_on)
        return inf

    def _task_must_end(self, launch: Launch) -> float:
        ends = [self._life(launch)]
        if self._promised.guard:
            ends += [self._told_by_guard(run) for run in launch.finals]
        elif self._promised.backend and not (self._history.faults or self._history.deaths):
            ends += [run.ended for run in launch.finals if run.ended is not None]
        if not self._promised.told or (self._promised.guard and not launch.executions):
            ends.append(self._told_by_row(launch))
        return min(ends)

    def _told_by_guard(self, run: Execution) -> float:
        deaths = self._history.deaths_of.get(run.worker, ())
        death = min((each for each in deaths if each >= (run.ended or run.started)), default=inf)
        if run.ended is None:
            return death + self._promised.lapse
        # It may have died with its end unsaid.
        unsaid = death <= run.ended + self._promised.slack or self._history.faults
        return death + self._promised.lapse if death < inf and unsaid else run.ended

    def _told_by_row(self, launch: Launch) -> float:
        """When its row has left for good, and no late sender and no worker can be at it any more.

        Of one that came back, nobody knows whether the operator has ever missed it.
        """
        left = self._history.leaves(launch.uid, launch.row, launch.begun)
        watched = self._history.matches(launch.uid, launch.row)
        if not watched or self._history.returns(launch.uid, launch.row, left) < inf:
            return inf
        if self._promised.guard and self._history.deaths:
            return left + self._promised.lapse
        held = not self._promised.sends_again and launch.id not in self._history.accepted
        return max(left, launch.begun + _LATEST_SEND) if held else left

    def _life(self, launch: Launch) -> float:
        """When it can no longer be alive, by the times in its message and a margin for clocks."""
        life = launch.expires - launch.begun + launch.time_limit
        if life == inf:
            return inf
        margin = min(max(life / 10, _LEAST_MARGIN), _MOST_MARGIN)
        once_more = launch.time_limit if self._promised.broker == "sql" else 0.0
        return launch.begun + life + margin + once_more + 1.0

    def _gaps(self, witness: Witness) -> list[float]:
        return [gap.begin for gap in self._history.gaps if gap.witness == witness]
