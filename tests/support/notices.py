"""A Recorder that remembers what it was told."""

from scannerjob.model.notice import Notice
from scannerjob.ports import Ref


class Told:
    """The notices about one ScannerJob, in their order."""

    def __init__(self, ref: Ref, uid: str) -> None:
        self._about = (ref, uid)
        self.notices: list[Notice] = []

    def record(self, ref: Ref, uid: str, notice: Notice) -> None:
        assert (ref, uid) == self._about
        self.notices.append(notice)

    @property
    def reasons(self) -> list[str]:
        return [notice.reason for notice in self.notices]
