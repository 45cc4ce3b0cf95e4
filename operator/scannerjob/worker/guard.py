"""`install`: one line in a Celery app, and what the operator launches runs once."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, get_args

from scannerjob.worker.beside import Beside
from scannerjob.worker.heartbeats import Heartbeats, open_heartbeats
from scannerjob.worker.launch import (
    Launch,
    OnError,
    current,
    enter,
    execution_of,
    is_launch,
    undisturbed,
)
from scannerjob.worker.leases import End
from scannerjob.worker.presence import keep_announcing
from scannerjob.worker.records import HEADER, State
from scannerjob.worker.stores import open_store

_MARK = "_scannerjob_guarded"

_logger = logging.getLogger(__name__)


def install(app: Any, url: str, *, on_error: OnError = "refuse") -> None:
    """Have the workers of a Celery app execute each launch of the operator once.

    `url` is where the guard's records are, the one that the ScannerJob's `celery.guard` names:
    Redis, or a database that SQLAlchemy opens. Call it where the app is made, before or after its
    tasks are. Other tasks than the operator's are left alone.

    If the store cannot be asked, a launch waits until it can be (`on_error="refuse"`), or runs
    unguarded (`"run"`).

    Raises StoreError if the URL cannot be used, ValueError if `on_error` is something else or the
    app has a guard with other settings already.
    """
    if on_error not in get_args(OnError):
        raise ValueError(f'on_error must be "refuse" or "run", not {on_error!r}')
    installed = getattr(app, _MARK, None)
    if installed and installed.settings != (url, on_error):
        raise ValueError("this app has a guard with other settings already: install it once")
    if not installed:
        guard = Guard(url, on_error)
        setattr(app, _MARK, guard)
        _connect(app, guard)


def _connect(app: Any, guard: Guard) -> None:
    from celery import signals

    def guard_tasks(**_: Any) -> None:
        for task in list(app.tasks.values()):
            guard.guard(type(task))

    def begin_worker(sender: Any, **_: Any) -> None:
        if sender.app == app:
            _refuse_spawn(sender)
            guard_tasks()  # those, too, that came after the app was finalized
            guard.start(sorted(app.tasks))

    def end_task(task: Any, retval: Any, state: str | None, **_: Any) -> None:
        guard.end(task, state, retval)

    def revoke_task(request: Any, terminated: bool, expired: bool, **_: Any) -> None:
        # One that is terminated ends by itself; of one that expired the operator knows.
        if not terminated and not expired:
            guard.revoke(request)

    app.on_after_finalize.connect(guard_tasks, weak=False)
    if app.finalized:
        guard_tasks()
    signals.worker_init.connect(begin_worker, weak=False)
    signals.task_postrun.connect(end_task, weak=False)
    signals.task_revoked.connect(revoke_task, weak=False)


def _refuse_spawn(worker: Any) -> None:
    """Spawned processes have another app, made from the settings of this one, without a guard."""
    if getattr(worker, "pool_start_method", "fork") != "fork":
        sys.exit("the guard needs worker_pool_start_method = 'fork': other processes are unguarded")


class Guard:
    """The guard of one app, in this process."""

    def __init__(self, url: str, on_error: OnError) -> None:
        self.settings = url, on_error
        self._url = url
        self._on_error = on_error
        self._store = open_store(url)
        self._heartbeats: Heartbeats | None = None
        os.register_at_fork(after_in_child=self._begin_anew)

    def start(self, tasks: Sequence[str]) -> None:
        """Start the process that sends heartbeats, before there are processes which need it.

        It announces `tasks`, those which this app guards by now.
        """
        try:
            Beside(self._url, str(self._store), tasks).start()
        except Exception as error:  # noqa: BLE001 - for whatever reason, there is another way
            _logger.warning(
                "the guard's heartbeat process cannot be started, threads renew leases instead: "
                "a task in one long call of C may lose its launch: %s",
                error,
            )
            # A store of its own: processes that are forked have nothing of what it does just then.
            keep_announcing(open_store(self._url), tasks)

    def guard(self, task: Any) -> None:
        """Have this class of tasks ask before it starts. To do so again changes nothing."""
        if _MARK in task.__dict__:
            return
        setattr(task, _MARK, True)
        self._wrap_before_start(task)
        self._wrap_on_replace(task)

    def _wrap_before_start(self, task: Any) -> None:
        theirs = inspect.getattr_static(task, "before_start")
        # Celery would store STARTED before anybody is asked, over what the first delivery has left.
        tracks_start, task.track_started = task.track_started, False

        @functools.wraps(task.before_start)
        def before_start(self_: Any, task_id: str, args: Any, kwargs: Any) -> Any:
            self.begin(self_)
            if tracks_start:
                _store_started(self_)
            return theirs.__get__(self_, type(self_))(task_id, args, kwargs)

        task.before_start = before_start

    def _wrap_on_replace(self, task: Any) -> None:
        theirs = inspect.getattr_static(task, "on_replace")

        @functools.wraps(task.on_replace)
        def on_replace(self_: Any, sig: Any) -> Any:
            launch = current()
            if launch and launch.request is self_.request:
                # What bears the id at last goes on with the launch: of a chain, its last task.
                _put_header(sig, launch.execution.id)
                launch.replaced = True
            return theirs.__get__(self_, type(self_))(sig)

        task.on_replace = on_replace

    def begin(self, task: Any) -> None:
        """Claim what is about to be executed. Raises Ignore if it must not be."""
        request = task.request
        launch = current()
        if not is_launch(request) or (launch and launch.request is request):
            return
        launch = Launch(task, self._store, self._beats(), self._on_error)
        enter(launch)
        if not launch.begin():
            from celery.exceptions import Ignore

            enter(None)
            _logger.info("launch %s was begun elsewhere, or given up: ignored here", request.id)
            raise Ignore(f"launch {request.id} was begun elsewhere, or given up")

    def end(self, task: Any, state: str | None, outcome: Any) -> None:
        """Write down how it ended, if it is one that was claimed."""
        launch = current()
        if launch and launch.request is task.request:
            # An end that is not told would leave it held for as long as this process lives.
            with undisturbed():
                enter(None)
                launch.end(state, outcome)

    def revoke(self, request: Any) -> None:
        """Have it written down that nothing of it runs: a worker was told to drop its messages."""
        if is_launch(request):
            self._beats().finish(End(execution_of(request), State.FAILED, "it was revoked"))

    def _beats(self) -> Heartbeats:
        self._heartbeats = self._heartbeats or open_heartbeats(self._store)
        return self._heartbeats

    def _begin_anew(self) -> None:
        """After a fork; the store does so by itself."""
        self._heartbeats = None


def _put_header(sig: Any, launch_id: str) -> None:
    sig.set(headers={**(sig.options.get("headers") or {}), HEADER: launch_id})
    parts = list(getattr(sig, "tasks", ()))
    body = getattr(sig, "body", None)
    for part in [*parts, *([body] if body is not None else [])]:
        _put_header(part, launch_id)


def _store_started(task: Any) -> None:
    """Store STARTED as Celery does."""
    request = task.request
    ignored = request.__dict__.get("ignore_result")
    if request.is_eager or (task.ignore_result if ignored is None else ignored):
        return
    told = {"pid": os.getpid(), "hostname": request.hostname}
    task.backend.store_result(request.id, told, "STARTED", request=request)
