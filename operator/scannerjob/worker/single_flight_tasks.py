"""What a decorator that stands above Celery's is given, in place of a function."""

# celery is published without types.
# mypy: allow-untyped-calls

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def decorate_task(candidate: Any, decorate: Decorator) -> bool:
    """Decorate what a Celery task runs, in place; False if this is no task.

    A task that Celery has not made yet is decorated as soon as it is. Raises TypeError for a
    `shared_task`, of which each app makes its own, later.
    """
    if "celery" not in sys.modules:
        return False
    from celery.app.task import Task
    from celery.local import PromiseProxy, Proxy

    if type(candidate) is Proxy:
        raise TypeError(
            "single_flight: put @single_flight below @shared_task, next to the function"
        )
    if type(candidate) is PromiseProxy:
        candidate.__then__(lambda: _decorate(candidate._get_current_object(), decorate))
        return True
    if isinstance(candidate, Task):
        _decorate(candidate, decorate)
        return True
    return False


def _decorate(task: Any, decorate: Decorator) -> None:
    """With `autoretry_for`, `run` is Celery's own, which tries again what `_orig_run` raises."""
    attribute = "_orig_run" if hasattr(task, "_orig_run") else "run"
    setattr(task, attribute, decorate(getattr(task, attribute)))
