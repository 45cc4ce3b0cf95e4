"""Never more than `concurrency` launches out, at any instant."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush

from tests.proof.history import Version
from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation


def check(run: Run) -> Iterator[Violation]:
    """No launch is made that would bring the outstanding launches above `concurrency`.

    Lowering the cap kills nothing; it stops launches until the count is below it. A launch may rest
    on the cap of its claim, or on any since: it is sent a while after it was claimed. What is
    suspended has a cap of 0.
    """
    for uid, launches in run.launches_of.items():
        out: list[tuple[float, str]] = []
        for launch in launches:
            while out and out[0][0] <= launch.begun:
                heappop(out)
            caps = _caps(run, uid, launch)
            if caps and len(out) + 1 > max(each.cap for each in caps):
                yield _exceeded(run, launch, [run.launch[each] for _, each in out], caps)
            if run.may_end[launch.id] > launch.begun:
                heappush(out, (run.may_end[launch.id], launch.id))


def _caps(run: Run, uid: str, launch: Launch) -> list[Version]:
    """The versions whose cap this launch may rest on; none where nobody saw which those are."""
    slack, versions = run.promised.slack, run.history.versions_of.get(uid, [])
    claims = run.history.claims.get(launch.id)
    since = launch.begun - run.promised.send_deadline - slack
    if claims and claims[0].uid == uid:
        since = min(claims[0].time, launch.begun)
    elif not versions or versions[0].time > since:
        return []
    if run.history.has_gap("scannerjobs", begin=since, end=launch.begun + slack):
        return []
    before = [each for each in versions if each.time <= since][-1:]
    return before + [each for each in versions if since < each.time <= launch.begun + slack]


def _exceeded(run: Run, launch: Launch, out: list[Launch], caps: list[Version]) -> Violation:
    highest = max(caps, key=lambda each: each.cap)
    sentence = f"{launch.id} is launched while {len(out)} are out, the cap is {highest.cap}"
    begins = [each.begin() for each in (*out, launch)]
    return violation("cap", sentence, [highest.moment(), *begins])
