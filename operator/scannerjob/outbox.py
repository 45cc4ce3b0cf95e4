"""What this process knows of its own sends and the ledger does not know yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from scannerjob.model.facts import Fact, Observation, Report, Send
from scannerjob.model.ledger import Ledger, Phase
from scannerjob.ports import ConflictError, PortError, UnknownOutcomeError

# Writes whose outcome stays unknown may follow each other for long, and only one of them can land.
_MAX_REPORTS = 20_000


class Outbox:
    """The sends of one ScannerJob between their claim and the write that books their outcome.

    It is worth nothing to safety: a crash may take it along, and then what became of a send is
    looked into again.
    """

    def __init__(self) -> None:
        self._reports: dict[str, Report] = {}
        self.unbooked = False

    @property
    def reports(self) -> Mapping[str, Report]:
        """What is known of each send, by launch id."""
        return dict(self._reports)

    @contextmanager
    def claiming(self, sends: Sequence[Send]) -> Iterator[None]:
        """Around the write that claims these sends.

        Until they are handed to a sender, it is known of them that nothing was sent. If the write's
        outcome stays unknown, that is what the next cycle needs to release them; if it lost, there
        is no such claim.
        """
        before = dict(self._reports)
        self._note(sends, Observation(Fact.NOT_SENT, "claimed, but never sent"))
        try:
            yield
        except UnknownOutcomeError:
            raise
        except (ConflictError, PortError):
            self._reports = before
            raise

    def hand_over(self, sends: Sequence[Send]) -> None:
        """From now on these may be on their way, whatever happens to this process."""
        self._note(sends, Observation(Fact.UNCERTAIN, "handed over, but not answered"))
        self.unbooked = True

    def answer(self, sends: Sequence[Send], seen: Mapping[str, Observation]) -> list[Observation]:
        """Note what the target said of these sends; gives what is known of each."""
        for send in sends:
            if send.item.id in seen:
                self._note([send], seen[send.item.id])
        return [self._reports[send.item.id].observation for send in sends]

    def booked(self, ledger: Ledger | None = None) -> None:
        """The ledger says it all now; where it was written, what it says can be dropped.

        No write that was lost can land after one that was won.
        """
        self.unbooked = False
        if ledger is not None:
            claimed = {item.id for item in ledger.items if item.phase is Phase.CLAIMED}
            self._reports = {i: report for i, report in self._reports.items() if i in claimed}

    def _note(self, sends: Sequence[Send], seen: Observation) -> None:
        for send in sends:
            self._reports[send.item.id] = Report(send.item.sends, seen)
        for launch_id in list(self._reports)[:-_MAX_REPORTS]:
            del self._reports[launch_id]
