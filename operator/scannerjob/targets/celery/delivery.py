"""What is known of a batch of messages while it is on its way, and whether it may still go."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Observation


class TooLateError(Exception):
    """The deadline has passed, or nobody waits any more: nothing may be handed to the network."""


class Delivery:
    """The sends of one call, from when it is made until it returns.

    A publisher's thread hands messages over and records their answers while the event loop waits.
    Either may stop at any moment, and what is known is true at each: a send that was not handed
    over was not sent and will not be; one that was, and was not answered, is uncertain.
    """

    def __init__(self, ids: Collection[str], deadline: float) -> None:
        self._lock = threading.Lock()
        self._ids = tuple(ids)
        self._deadline = deadline
        self._closed = False
        self._handed_over: set[str] = set()
        self._answers: dict[str, Observation] = {}
        self._failure: str | None = None

    def hand_over(self, ids: Collection[str]) -> None:
        """Note that these are about to be written to the network.

        To be called right before that write. Raises TooLateError where it must not be made.
        """
        with self._lock:
            if self._closed or boottime() >= self._deadline:
                raise TooLateError
            self._handed_over.update(ids)

    def answer(self, id: str, fact: Fact, reason: str | None = None) -> None:  # noqa: A002
        """Record what the broker said of one send."""
        with self._lock:
            self._answers[id] = Observation(fact, reason)

    def fail(self, reason: str) -> None:
        """Say why there will be no more answers."""
        with self._lock:
            self._failure = reason

    def close(self) -> Mapping[str, Observation]:
        """Let nothing more be handed over, and tell what is known of each send."""
        with self._lock:
            self._closed = True
            return {each: self._known(each) for each in self._ids}

    def _known(self, each: str) -> Observation:
        if each in self._answers:
            return self._answers[each]
        if each in self._handed_over:
            return Observation(Fact.UNCERTAIN, self._failure or "no answer before the deadline")
        return Observation(Fact.NOT_SENT, self._failure or "not sent before the deadline")
