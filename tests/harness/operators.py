"""The operator processes of a trial: started, killed, frozen, and started again."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.clocks import set_offset
from tests.harness.nursery import Child, Nursery, Preparation


class Operator:
    """One replica: a process of `scannerjob`, and after its death the next one."""

    def __init__(
        self,
        nursery: Nursery,
        arguments: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        number: int,
    ) -> None:
        self._nursery = nursery
        self._arguments = arguments
        self._folder = folder
        self._env = env
        self._clock = folder / f"clock-{number}"
        self._number = number
        self.log_file = folder / f"operator-{number}.log"
        self.starts = 0
        self.child: Child | None = None
        self.frozen = False

    @property
    def running(self) -> bool:
        """Whether it is there, frozen or not."""
        return self.child is not None and self.child.running

    @property
    def age(self) -> float:
        """How many seconds ago it was started."""
        assert self.child
        return time.time() - self.child.began

    def start(self, *prepare: Preparation) -> None:
        """Start it, after what is to be done in the new process."""
        if not self._clock.exists():
            set_offset(self._clock, 0.0)
        follow: Preparation = ("tests.harness.clocks:follow", {"file": str(self._clock)})
        self.starts += 1
        self.frozen = False
        self.child = self._nursery.fork(
            self._arguments,
            log=self.log_file,
            env=self._env,
            cwd=self._folder,
            prepare=[follow, *prepare],
        )

    def kill(self) -> bool:
        """SIGKILL; whether it was there until then."""
        self.frozen = False
        return self.child is not None and self.child.kill()

    def pause(self) -> None:
        """Freeze it."""
        assert self.child
        self.frozen = True
        self.child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self.child
        self.frozen = False
        self.child.send(signal.SIGCONT)

    def set_clock(self, offset: float) -> None:
        """Let its wall clock be so many seconds ahead."""
        set_offset(self._clock, offset)

    def limit_file_size(self, size: int) -> None:
        """No file of it may grow beyond so many bytes, as on a full disk; -1 lifts that."""
        assert self.child
        self.child.limit_file_size(size)

    def log(self) -> str:
        """All that its processes have written."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""


def environment(kubeconfig: Path | None) -> dict[str, str]:
    """The variables of an operator's process beside those that the nursery has."""
    return {"KUBECONFIG": str(kubeconfig)} if kubeconfig else {}
