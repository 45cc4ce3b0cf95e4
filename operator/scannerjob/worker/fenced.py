"""A check, for a task that wants to be sure before it commits."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from scannerjob.worker.launch import current


class LeaseLostError(RuntimeError):
    """The launch is not this execution's any more, or may not be: commit nothing."""


def fenced() -> AbstractContextManager[None]:
    """Make sure that the launch which is executed here is still this execution's.

        with fenced():
            session.commit()

    Raises LeaseLostError if it is not, or if the store cannot be asked (with `on_error="run"` the
    latter passes). Otherwise no other execution begins for a lease (15 s) from now: a block that
    takes less, in a process that is not frozen within it, is alone in what it does. As a bare call,
    `fenced()`, it is the same check. Does nothing outside a launch of the operator. It asks for the
    launch of the thread that calls it: a thread that a task has begun itself is outside.
    """
    launch = current()
    reason = launch.check() if launch else None
    if launch and reason:
        raise LeaseLostError(f"launch {launch.execution.id} is not ours: {reason}")
    return nullcontext()
