"""What a worker would leave behind, in a file that its processes keep locked while they live.

Once all of them have died, the process beside the worker included, nobody of theirs can tell. But
the kernel frees the lock then, whatever they died of and in whatever container: the next worker on
the same machine finds the file, and tells the store at once what would be known only after a lease.
Where no such file can be had, that is how it stays.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self

from scannerjob.worker.leases import End
from scannerjob.worker.records import Execution, State

# Another kernel's locks say nothing here, should machines share a file system.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# The containers of a pod share it, and it outlives them (kubernetes/kubernetes#81001).
_MEMORY = Path("/dev/shm")
_MAX_BYTES = 256 * 1024
# Far more than a worker can hold.
_MAX_READ = 64 * 1024 * 1024

_logger = logging.getLogger(__name__)


class Journal:
    """The ends that are to be written if all of a worker's processes die now.

    `descriptor` is that of the locked file: every process that has a copy of it keeps the lock, as
    those do that are forked. Nothing here ever fails: an entry that is missing is found out by its
    lease, one too many is refused by the store.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ends: dict[str, End] = {}
        # What a predecessor wrote counts until there is something to put in its place.
        self._max_bytes = 0

    def put(self, end: End) -> None:
        """Have this written if nobody is left to do so, in place of what there is of its owner."""
        self._ends[end.execution.owner] = end
        self._append(_line(end))

    def drop(self, owner: str) -> None:
        """There is nothing to be written of it any more."""
        if self._ends.pop(owner, None):
            self._append(_line(owner))

    def _append(self, line: bytes) -> None:
        with suppress(OSError):
            if os.write(self._descriptor, line) and self._size > self._max_bytes:
                self._rewrite()

    @property
    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _rewrite(self) -> None:
        # A crash in between leaves leases that lapse.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, b"".join(map(_line, self._ends.values())))
        # Twice what is in use, lest with many of them every line should have all written anew.
        self._max_bytes = max(_MAX_BYTES, 2 * self._size)


class Journals:
    """Those of all workers on this machine that have the same store."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self._folder = folder
        self._prefix = prefix

    @classmethod
    def of(cls, store: str) -> Self:
        """Those of the store of this name. Raises OSError if there can be none here."""
        in_memory = "TMPDIR" not in os.environ and os.access(_MEMORY, os.W_OK | os.X_OK)
        parent = _MEMORY if in_memory else Path(tempfile.gettempdir())
        folder = parent / f"scannerjob-guard-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        # Two mounts of one file system need not share their locks.
        device = folder.lstat().st_dev
        digest = hashlib.sha256(store.encode()).hexdigest()[:16]
        found = cls(folder, f"{_BOOT.read_text().strip()}-{device:x}-{digest}-")
        found._check()
        return found

    @classmethod
    def beside(cls, path: Path) -> Self:
        """Those of the same store as the one at `path`."""
        return cls(path.parent, f"{path.name.rpartition('-')[0]}-")

    def create(self) -> tuple[Path, int]:
        """Path and descriptor of a new one, empty and locked.

        Raises OSError if there can be none.
        """
        # Under another name until it is locked, lest somebody should take it for a dead one's.
        new = self._folder / f"new-{secrets.token_hex(8)}"
        descriptor = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        path = self._folder / f"{self._prefix}{os.fstat(descriptor).st_ino}"
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(path)
        return path, descriptor

    def left(self) -> Iterator[End]:
        """What is to be written of workers that have died; told once all of it was taken."""
        with suppress(OSError):
            self._check()
            for path in sorted(self._folder.glob(f"{self._prefix}*")):
                yield from _taken(path)

    def _check(self) -> None:
        """That nobody else may write there: whoever could would end launches as he likes."""
        found = self._folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or self._folder.is_symlink():
            raise PermissionError(f"{self._folder} must be a folder of this user alone (mode 0700)")


def _taken(path: Path) -> Iterator[End]:
    """What is in a journal that nobody holds any more, which is removed once all was taken."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # another worker was quicker
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return
        if _is_original(path, os.fstat(descriptor)):
            yield from filter(None, dict(_entries(file.read(_MAX_READ))).values())
            path.unlink(missing_ok=True)


def _is_original(path: Path, found: os.stat_result) -> bool:
    """Whether it is what was locked under this name: nobody locks a copy."""
    return stat.S_ISREG(found.st_mode) and path.name.endswith(f"-{found.st_ino}")


def _entries(contents: bytes) -> Iterator[tuple[str, End | None]]:
    """By owner, the last word counts. A worker that died in the middle of a line wrote no line."""
    for line in filter(None, contents.split(b"\n")):
        try:
            owner, *told = json.loads(line)
            yield str(owner), _end(owner, *told) if told else None
        except Exception as error:  # noqa: BLE001 - whatever stands there, the others count
            _logger.debug("a line of a dead worker's journal cannot be read: %s", error)


def _line(told: End | str) -> bytes:
    if isinstance(told, End):
        execution = told.execution
        parts = [execution.owner, execution.id, execution.retries]
        parts += [told.state.value, told.reason, told.delay]
    else:
        parts = [told]
    # After one that a full disk has cut off, this is a line of its own.
    return b"\n" + json.dumps(parts).encode()


def _end(owner: str, launch: str, retries: int, state: str, reason: str, delay: float) -> End:
    return End(Execution(launch, retries, owner), State(state), reason, delay)
