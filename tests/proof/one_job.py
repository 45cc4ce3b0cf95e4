"""One Job object for each launch, and no second one beside the pods of the first."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "one Job per launch"


def check(run: Run) -> Iterator[Violation]:
    """At most one Job object per launch, and none for a row while a pod of a former one may run."""
    for launch in run.launches:
        yield from _objects(launch)
    for launches in run.rows.values():
        for position, launch in enumerate(launches):
            for former in launches[:position]:
                yield from _beside_pods(run, former, launch)


def _objects(launch: Launch) -> Iterator[Violation]:
    owned = [job for job in launch.jobs if job.owner is not None]
    if len({job.uid for job in owned}) > 1 and owned[1].created < launch.excused:
        moments = [moment for job in owned for moment in job.moments()]
        yield violation(PROMISE, f"{launch.id} has {len(owned)} Job objects", moments)


def _beside_pods(run: Run, former: Launch, launch: Launch) -> Iterator[Violation]:
    if not launch.jobs or former.excused <= launch.begun:
        return
    # Pods and Jobs are watched apart from each other.
    slack = run.promised.slack
    over = run.endings.pod_over
    began = [pod for pod in former.pods if pod.created <= launch.begun]
    running = [pod for pod in began if over(pod) > launch.begun + slack]
    if running:
        sentence = f"{launch.id} is created while a pod of {former.id} may run"
        moments = [*former.moments(), *running[0].moments(), launch.begin()]
        yield violation(PROMISE, sentence, moments)
