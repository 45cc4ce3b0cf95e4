"""What became of tasks, read from Celery's result backend: many at a time, and never unpickled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

from redis import ResponseError
from sqlalchemy import URL, BindParameter, bindparam, inspect, text

from scannerjob.clock import boottime
from scannerjob.model.facts import Fact, Observation
from scannerjob.targets.celery.database import open_engine
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.failures import Failure, failed
from scannerjob.targets.celery.lane import Lane
from scannerjob.targets.celery.redis_client import open_redis

# How long all that is asked in one go may take.
_PATIENCE = 10.0
_IDS_AT_ONCE = 1000

# Results may be of any size, and many are read at once: how a task ended stands at their beginning,
# and the exception at the end of its traceback.
_MAX_BYTES = 16 * 1024
_MAX_TRACE = 2000
# Of the one that a person asks for, more.
_MAX_FAILURE = 1024 * 1024

_Answer = TypeVar("_Answer")

_JSON = json.JSONDecoder()
# How Celery begins one that is longer.
_BEGINNING = re.compile(rb'\{"status": "(?P<status>[A-Z]+)", ')
_FAILURE = "FAILURE"
_FAILED = (_FAILURE, "RETRY")
# What is not here (PENDING, RECEIVED, a state of the task's own) tells nothing.
_SEEN = {
    "SUCCESS": Observation(Fact.SUCCEEDED),
    "STARTED": Observation(Fact.STARTED),
    "RETRY": Observation(Fact.STARTED),
    "REVOKED": Observation(Fact.NOT_STARTED),
}


class Results(Protocol):
    """A connection to a result backend, made and used by one thread."""

    def read(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is known of these tasks, in one round trip."""
        ...

    def failure(self, task_id: str) -> Failure | None:
        """How this task failed; None where it did not, or nothing of it is kept."""
        ...

    def close(self) -> None:
        """Drop the connection. Never raises."""
        ...


class Outcomes:
    """Reads a result backend from a thread of its own."""

    def __init__(self, endpoint: Endpoint, connect: Callable[[], Results]) -> None:
        self.endpoint = endpoint
        self._lane = Lane(str(endpoint), connect)

    def close(self) -> None:
        """End the thread once it is done with what it was given."""
        self._lane.close()

    async def read(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is known of these tasks. Raises TargetError, and then nothing is known of any."""
        return await self._ask(partial(self._read, ids))

    async def last_words(self, task_id: str) -> list[str]:
        """What is kept of how this task failed, if it did, fit to be shown. Raises TargetError."""
        failure = await self._ask(lambda results: results.failure(task_id))
        if failure is None:
            return []
        return [f"task {task_id}: {failure.state}", *failure.last_words(self.endpoint.url)]

    async def _ask(self, question: Callable[[Results], _Answer]) -> _Answer:
        try:
            return await self._lane.run(question, boottime() + _PATIENCE)
        except Exception as error:  # noqa: BLE001 - whatever a client raises, nothing is known
            raise self.endpoint.failure("ResultBackendUnreachable", error) from None

    def _read(self, ids: Sequence[str], results: Results) -> Mapping[str, Observation]:
        return {i: seen for chunk in _chunks(ids) for i, seen in results.read(chunk).items()}


class RedisResults:
    """Celery's result backend in Redis. Connects with the first read."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._redis = open_redis(endpoint, socket_timeout=_PATIENCE)

    def read(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is known of these tasks."""
        with self._redis.pipeline(transaction=False) as pipe:
            for each in ids:
                pipe.getrange(_key(each), 0, _MAX_BYTES - 1)
            found = zip(ids, map(_content, pipe.execute(raise_on_error=False)), strict=True)
        return {each: seen for each, content in found if (seen := _decode(each, content))}

    def failure(self, task_id: str) -> Failure | None:
        """How this task failed."""
        found: Any = self._redis.getrange(_key(task_id), 0, _MAX_FAILURE - 1)
        return _decode_failure(task_id, bytes(found))

    def close(self) -> None:
        """Drop the connection."""
        with suppress(Exception):
            self._redis.close()


class SqlResults:
    """Celery's result backend in a database. Connects with the first read.

    The result itself is a pickle there, and is left alone; how a task failed stands in the last
    line of its traceback.
    """

    _QUERY = (
        "SELECT task_id, status, CASE WHEN status = 'FAILURE' THEN {end} END "
        "FROM celery_taskmeta WHERE task_id IN :ids"
    )
    _WHOLE = (
        f"SELECT status, CASE WHEN length(traceback) < {_MAX_FAILURE} THEN traceback END "
        "FROM celery_taskmeta WHERE task_id = :id"
    )
    _END = f"right(traceback, {_MAX_TRACE})"
    _END_IN_SQLITE = f"substr(traceback, -{_MAX_TRACE})"

    def __init__(self, endpoint: Endpoint, database: URL) -> None:
        end = self._END_IN_SQLITE if database.get_backend_name() == "sqlite" else self._END
        ids: BindParameter[Any] = bindparam("ids", expanding=True)
        self._query = text(self._QUERY.format(end=end)).bindparams(ids)
        self._engine = open_engine(database, endpoint.tls)
        self._has_table = False

    def read(self, ids: Sequence[str]) -> Mapping[str, Observation]:
        """What is known of these tasks: nothing while no worker has made the table."""
        if not self._table_exists():
            return {}
        with self._engine.connect() as connection:
            rows = connection.execute(self._query, {"ids": list(ids)}).all()
        return {each: seen for each, status, trace in rows if (seen := _stored(status, trace))}

    def failure(self, task_id: str) -> Failure | None:
        """How this task failed: the exception stands at the end of its traceback."""
        if not self._table_exists():
            return None
        with self._engine.connect() as connection:
            rows = connection.execute(text(self._WHOLE), {"id": task_id}).all()
        failures = (Failure(status, "", str(trace or "")) for status, trace in rows)
        return next((each for each in failures if each.state in _FAILED), None)

    def _table_exists(self) -> bool:
        self._has_table = self._has_table or inspect(self._engine).has_table("celery_taskmeta")
        return self._has_table

    def close(self) -> None:
        """Drop the connection."""
        with suppress(Exception):
            self._engine.dispose()


def _key(task_id: str) -> str:
    return f"celery-task-meta-{task_id}"


def _chunks(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE))


def _content(reply: Any) -> bytes | None:
    """The beginning of what is stored; nothing where it is no text at all."""
    if isinstance(reply, ResponseError):
        if not str(reply).startswith("WRONGTYPE"):
            raise reply
        return None
    return bytes(reply)


def _decode(task_id: str, content: bytes | None) -> Observation | None:
    """What a stored result says; nothing if it isn't what Celery's JSON serializer writes."""
    if content is None:
        return None
    if len(content) >= _MAX_BYTES:
        return _decode_beginning(content)
    meta = _meta(task_id, content)
    status = meta.get("status")
    if status == _FAILURE:
        return failed(_exception(meta.get("result")))
    return _SEEN.get(status) if isinstance(status, str) else None


def _decode_beginning(content: bytes) -> Observation | None:
    status = _status_begun(content)
    return failed("") if status == _FAILURE else _SEEN.get(status)


def _decode_failure(task_id: str, content: bytes) -> Failure | None:
    is_whole = len(content) < _MAX_FAILURE
    meta = _meta(task_id, content) if is_whole else {"status": _status_begun(content)}
    if meta.get("status") not in _FAILED:
        return None
    return Failure(meta["status"], _exception(meta.get("result")), str(meta.get("traceback") or ""))


def _meta(task_id: str, content: bytes) -> Mapping[str, Any]:
    """What Celery's JSON serializer wrote of this task; nothing where this is something else."""
    try:
        meta, _ = _JSON.raw_decode(content.decode())  # half of what json.loads takes
    except (ValueError, RecursionError):
        return {}
    is_its = isinstance(meta, dict) and meta.get("task_id", task_id) == task_id
    return meta if is_its else {}


def _status_begun(content: bytes) -> str:
    begun = _BEGINNING.match(content)
    return begun["status"].decode() if begun else ""


def _stored(status: str | None, trace: str | None) -> Observation | None:
    """What a row of the table says."""
    if status == _FAILURE:
        return failed((trace or "").strip().rpartition("\n")[2])
    return _SEEN.get(status or "")


def _exception(result: Any) -> str:
    """`ValueError: no such page`, of the exception in Celery's JSON form."""
    if not isinstance(result, dict):
        return ""
    message = result.get("exc_message")
    parts = message if isinstance(message, list) else [message]
    said = ", ".join(str(part) for part in parts if part is not None)
    return f"{result.get('exc_type')}: {said}" if said else str(result.get("exc_type"))
