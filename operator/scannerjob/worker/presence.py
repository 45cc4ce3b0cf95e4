"""What a worker says of itself in the guard's store: which tasks it guards, again and again.

Where a launch waits in no queue and was not begun, it may be lost, or be run by a worker that has
no guard. The operator sends it again only if a worker has said that it guards such tasks.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from scannerjob.worker.records import ANNOUNCED, Store

# In seconds. An announcement outlasts two that fail, and a store that lost it has it again soon.
_EVERY = ANNOUNCED / 3
_AGAIN = 1.0
# So many names in one call, lest other calls should wait; and so many of one worker at most.
_BATCH = 500
MAX_TASKS = 10_000

_logger = logging.getLogger(__name__)


def keep_announcing(store: Store, tasks: Sequence[str]) -> None:
    """Announce these from now on, in a thread, for as long as this process lives.

    Not by what renews leases, which must not wait for it.
    """
    if len(tasks) > MAX_TASKS:
        _logger.warning(
            "%d tasks are too many to announce, what is lost of the last %d is not sent again",
            len(tasks),
            len(tasks) - MAX_TASKS,
        )
    work = threading.Thread(
        target=_announce_all, args=(store, tasks[:MAX_TASKS]), name="guard-presence", daemon=True
    )
    work.start()


def _announce_all(store: Store, tasks: Sequence[str]) -> None:
    while True:
        for start in range(0, len(tasks), _BATCH):
            _announce(store, tasks[start : start + _BATCH])
        time.sleep(_EVERY)


def _announce(store: Store, tasks: Sequence[str]) -> None:
    """Until it is done: before the first one, the store may be down for long."""
    while True:
        try:
            return store.announce(tasks, ANNOUNCED)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, it is tried again
            _logger.debug("the guard's store is not told of guarded tasks: %s", error)
        time.sleep(_AGAIN)
