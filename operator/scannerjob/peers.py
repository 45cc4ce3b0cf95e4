"""How it goes with what is outside: its last trouble, and how long it is left alone after one."""

from __future__ import annotations

from scannerjob.model.conditions import Contact, Trouble


class Backoff:
    """How long something that failed is left alone: 1 s, doubled each time, at most 30 s.

    Times are in seconds of a clock that never goes back.
    """

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0

    def failed(self, now: float) -> float:
        """Note a failure; says for how many seconds to leave it alone."""
        rest = min(30.0, 2.0 ** min(self._failures, 5))
        self._failures += 1
        self._until = now + rest
        return rest

    def worked(self) -> None:
        """Note that it works, or should be tried at once."""
        self._failures, self._until = 0, 0.0

    def rest(self, now: float) -> float:
        """How many seconds it is still to be left alone."""
        return max(0.0, self._until - now)


class Peer:
    """A database or a target, as this process has come to know it."""

    def __init__(self) -> None:
        self.contact = Contact()
        self._backoff = Backoff()

    def answered(self) -> None:
        """It did what it was asked for."""
        self.contact = Contact(tried=True)
        self._backoff.worked()

    def mended(self) -> None:
        """Its trouble, if it had one, is over."""
        if self.contact.trouble is not None:
            self.answered()

    def failed(self, reason: str, message: str, now: float) -> float:
        """It did not; says for how many seconds to leave it alone."""
        self.contact = Contact(tried=True, trouble=Trouble(reason, message))
        return self._backoff.failed(now)

    def rest(self, now: float) -> float:
        """How many seconds it is still to be left alone."""
        return self._backoff.rest(now)

    def try_at_once(self) -> None:
        """What it is asked has changed: how it answered before says nothing any more."""
        self.contact = Contact()
        self._backoff.worked()
