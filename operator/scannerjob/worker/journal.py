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
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scannerjob.worker.leases import End
from scannerjob.worker.records import Execution, State

# Another kernel's locks say nothing here, should machines share a file system.
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_MAX_BYTES = 256 * 1024

_logger = logging.getLogger(__name__)


class Journal:
    """The ends that are to be written if all of a worker's processes die now.

    `descriptor` is that of the locked file at `path`: every process that has a copy of it keeps the
    lock, as those do that are forked. Nothing here ever fails: an entry that is missing is found
    out by its lease, one too many is refused by the store.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._ends: dict[str, End] = {}
        self._rewrite()

    def put(self, end: End) -> None:
        """Have this written if nobody is left to do so, in place of what there is of its owner."""
        self._ends[end.execution.owner] = end
        self._append(_line(end))

    def drop(self, owner: str) -> None:
        """There is nothing to be written of it any more."""
        if self._ends.pop(owner, None):
            self._append(_line(owner))

    def remove(self) -> None:
        """There is nobody left who could leave anything."""
        with suppress(OSError):
            self._path.unlink()

    def _append(self, line: bytes) -> None:
        with suppress(OSError):
            if os.write(self._descriptor, line) and self._size > _MAX_BYTES:
                self._rewrite()

    @property
    def _size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def _rewrite(self) -> None:
        # A crash in between leaves leases that lapse.
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.write(self._descriptor, b"".join(map(_line, self._ends.values())))


class Journals:
    """Those of all workers on this machine that have the same store, of this name.

    To make one raises OSError if there can be none here.
    """

    def __init__(self, store: str) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"scannerjob-guard-{os.geteuid()}"
        digest = hashlib.sha256(store.encode()).hexdigest()[:16]
        self._prefix = f"{_BOOT.read_text().strip()}-{digest}-"

    def create(self) -> tuple[Path, int]:
        """Path and descriptor of a new one, empty and locked.

        Raises OSError if there can be none.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._check()
        name = f"{self._prefix}{secrets.token_hex(8)}"
        # Under another name until it is locked, lest somebody should take it for a dead one's.
        path, new = self._folder / name, self._folder / f"new-{name}"
        descriptor = os.open(new, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        new.rename(path)
        return path, descriptor

    def left(self) -> list[End]:
        """What is to be written of workers that have died; told once."""
        ends: list[End] = []
        with suppress(OSError):
            self._check()
            for path in sorted(self._folder.glob(f"{self._prefix}*")):
                ends.extend(_taken(path))
        return ends

    def _check(self) -> None:
        """That nobody else may write there: whoever could would end launches as he likes."""
        found = self._folder.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or self._folder.is_symlink():
            raise PermissionError(f"{self._folder} must be a folder of this user alone (mode 0700)")


def _taken(path: Path) -> list[End]:
    """What is in a journal that nobody holds any more, which is removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return []  # another worker was quicker
    with os.fdopen(descriptor, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return []
        ends = dict(_entries(file.read()))
        path.unlink(missing_ok=True)
    return [end for end in ends.values() if end]


def _entries(contents: bytes) -> Iterator[tuple[str, End | None]]:
    """By owner, the last word counts. A worker that died in the middle of a line wrote no line."""
    for line in contents.splitlines():
        try:
            owner, *told = json.loads(line)
            yield owner, _end(owner, *told) if told else None
        except (ValueError, TypeError) as error:
            _logger.debug("a line of a dead worker's journal cannot be read: %s", error)


def _line(told: End | str) -> bytes:
    if isinstance(told, End):
        execution = told.execution
        parts = [execution.owner, execution.id, execution.retries]
        parts += [told.state.value, told.reason, told.delay]
    else:
        parts = [told]
    return json.dumps(parts).encode() + b"\n"


def _end(owner: str, launch: str, retries: int, state: str, reason: str, delay: float) -> End:
    return End(Execution(launch, retries, owner), State(state), reason, delay)
