"""A broken promise, and the few events that show it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tests.proof.history import Moment

MAX_LINES = 12


@dataclass(frozen=True)
class Violation:
    """Which promise was broken, how, and the events that show it, in order of time."""

    promise: str
    sentence: str
    excerpt: tuple[Moment, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.promise}: {self.sentence}", *map(str, self.excerpt)])


def violation(promise: str, sentence: str, moments: Iterable[Moment]) -> Violation:
    """A violation; of a long excerpt the beginning is left out, and its length told."""
    ordered = sorted(set(moments))
    left_out = len(ordered) - MAX_LINES + 1
    if left_out > 1:
        first = Moment(ordered[0].time, f"... and {left_out} events from here on")
        ordered = [first, *ordered[left_out:]]
    return Violation(promise, sentence, tuple(ordered))
