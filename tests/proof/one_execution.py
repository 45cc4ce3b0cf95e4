"""A launch is published once, and executed once."""

from __future__ import annotations

from collections.abc import Iterator

from tests.proof.launches import Launch
from tests.proof.run import Run
from tests.proof.violation import Violation, violation

PROMISE = "one execution per launch"


def check(run: Run) -> Iterator[Violation]:
    """The second delivery of a launch does not execute; where none can arise, none is published.

    With the guard, or on a broker that remembers what was published, a launch is executed once.
    Without the guard a launch in doubt is published again only by `Republish`, on a broker which
    cannot drop a second message. An execution that gave itself back is none.
    """
    for launch in run.launches:
        if run.promised.publishes_once:
            yield from _published_again(launch)
        if run.promised.executes_once:
            yield from _executed_again(launch)


def _published_again(launch: Launch) -> Iterator[Violation]:
    again = launch.messages[1:]
    if again and again[0].time < launch.excused:
        moments = [message.moment() for message in launch.messages]
        yield violation(PROMISE, f"{launch.id} is published {len(moments)} times", moments)


def _executed_again(launch: Launch) -> Iterator[Violation]:
    again = launch.finals[1:]
    if again and again[0].started < launch.excused:
        sentence = f"{launch.id} is executed {len(launch.finals)} times"
        yield violation(PROMISE, sentence, launch.moments())
