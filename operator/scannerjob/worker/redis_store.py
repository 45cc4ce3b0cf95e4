"""The guard's records in Redis or Valkey: one hash for each launch, and a set of guarded tasks.

Every method is one script, which is one round trip however many launches it is about. A change
counts as made once the server that was asked has made it: what a failover or a restart without
persistence then loses is lost, and `identity` tells. Redis 5 or newer; a cluster of several shards
is not supported, since one script reads the records of many launches.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import redis
from redis.exceptions import RedisError

from scannerjob.worker import redis_scripts
from scannerjob.worker.errors import StoreError
from scannerjob.worker.records import (
    RETENTION,
    UNREADABLE,
    Execution,
    Reading,
    Record,
    State,
)
from scannerjob.worker.redis_client import place

ENDED_CHANNEL = "scannerjob:ended"
"""Where the id of a launch is published once an execution of it has ended."""

TASKS_KEY = "scannerjob:tasks"
"""The key of the names of the tasks that workers guard."""

_logger = logging.getLogger(__name__)

_Fields = Sequence[bytes | str | None]


def record_key(launch_id: str) -> str:
    """The key of the record of one launch."""
    return f"scannerjob:launch:{launch_id}"


class RedisStore:
    """A `Store` in the database that `client` is connected to, and to be closed with it.

    Records outlive their use by RETENTION, by a TTL of the key; a lease is a field and never a TTL,
    so that one which has lapsed can be told from a record that was lost.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._claim = _Script(client, redis_scripts.CLAIM)
        self._renew = _Script(client, redis_scripts.RENEW)
        self._finish = _Script(client, redis_scripts.FINISH)
        self._register = _Script(client, redis_scripts.REGISTER)
        self._read = _Script(client, redis_scripts.READ)
        self._supersede = _Script(client, redis_scripts.SUPERSEDE)
        self._announce = _Script(client, redis_scripts.ANNOUNCE)
        self._is_guarded = _Script(client, redis_scripts.IS_GUARDED)
        self._checked = False

    def __str__(self) -> str:
        return place(self._client)

    def claim(self, execution: Execution, lease: float) -> bool:
        """See Store. Warns once of a server that may forget records."""
        self._check()
        arguments = execution.retries, execution.owner, _milliseconds(lease)
        return bool(self._claim([execution.id], *arguments))

    def renew(self, executions: Sequence[Execution], lease: float) -> set[str]:
        """See Store."""
        arguments = [part for each in executions for part in (each.retries, each.owner)]
        ids = [each.id for each in executions]
        return {ids[place - 1] for place in self._renew(ids, _milliseconds(lease), *arguments)}

    def finish(
        self, execution: Execution, state: State, reason: str = "", delay: float = 0.0
    ) -> bool:
        """See Store. The id is published on ENDED_CHANNEL in the same step."""
        wait = _milliseconds(delay) if state is State.RETRYING else ""
        arguments = execution.retries, execution.owner, state.value, reason, wait
        return bool(self._finish([execution.id], *arguments, ENDED_CHANNEL, execution.id))

    def announce(self, tasks: Collection[str], duration: float) -> None:
        """See Store."""
        self._announce.on([TASKS_KEY], _milliseconds(duration), *tasks)

    def is_guarded(self, task: str) -> bool:
        """See Store."""
        return bool(self._is_guarded.on([TASKS_KEY], task))

    def register(self, ids: Sequence[str]) -> Mapping[str, State]:
        """See Store."""
        states = self._register(ids)
        return {each: State(_text(state)) for each, state in zip(ids, states, strict=True)}

    def read(self, ids: Sequence[str]) -> Reading:
        """See Store. Raises StoreError where the server does not say which one it is.

        `run_id` is another one after each start, even where nothing was lost: what a server wrote
        to its disk last is not known. `master_replid` is another one once its data come from
        elsewhere: it was made a replica, or a replica was made the master; `run_id` alone would not
        tell of a server that was both, one after the other.
        """
        run, history, now, records = self._read(ids)
        if not run or not history:
            what = "tells us no run_id and master_replid: allow its user the command INFO"
            raise StoreError(f"{self} {what} (ACL: +info)")
        return Reading(f"{_text(run)} {_text(history)}", now / 1000, _records(ids, records))

    def supersede(self, ids: Sequence[str]) -> Mapping[str, Record]:
        """See Store."""
        return _records(ids, self._supersede(ids))

    def evicts(self) -> bool:
        """Whether the server removes records when its memory is full, as far as it tells.

        An execution that has ended looks then as if it had never begun.
        """
        memory: Mapping[str, Any] = self._client.info("memory")
        limited = int(memory.get("maxmemory", 0)) > 0
        return limited and memory.get("maxmemory_policy", "noeviction") != "noeviction"

    def close(self) -> None:
        """See Store."""
        # With an error of its own where a server has gone.
        try:
            self._client.close()
        except (RedisError, OSError) as error:
            _logger.debug("%s: %s while closing", self, error)

    def _check(self) -> None:
        if self._checked:
            return
        try:
            evicts = self.evicts()
        except redis.ResponseError:
            evicts = False  # not everybody may ask
        self._checked = True
        if evicts:
            _logger.warning(
                "%s removes records when its memory is full, and a task that has ended may then "
                "run again: set its maxmemory-policy to noeviction, or use another for the guard",
                self,
            )


class _Script:
    """A script; loaded where the server does not know it."""

    def __init__(self, client: redis.Redis, script: str) -> None:
        self._script = client.register_script(redis_scripts.PRELUDE + script)
        self._pool = client.connection_pool

    def __call__(self, ids: Sequence[str], *arguments: str | int) -> Any:
        """Run it on the records of these launches."""
        return self.on([record_key(each) for each in ids], *arguments)

    def on(self, keys: Sequence[str], *arguments: str | int) -> Any:
        """Run it on these keys."""
        try:
            return self._script(keys, [int(RETENTION), *arguments])
        except redis.ResponseError as error:
            # Of a script, not every version of Redis says it with an error of its own kind.
            if "read only replica" in str(error):
                # The master has become one: its name may lead to another server by now.
                self._pool.disconnect(inuse_connections=False)
            raise


def _records(ids: Sequence[str], answers: Sequence[_Fields]) -> dict[str, Record]:
    pairs = zip(ids, map(_record, answers), strict=True)
    return {each: record for each, record in pairs if record}


def _record(fields: _Fields) -> Record | None:
    try:
        return _parsed(*map(_text, fields))
    except (ValueError, OverflowError):
        return UNREADABLE


def _parsed(
    state: str, retries: str, owner: str, until: str, reason: str, was: str
) -> Record | None:
    if not state:
        return None
    return Record(
        state=State(state),
        retries=int(retries or 0),
        owner=owner,
        until=int(until) / 1000 if until else None,
        reason=reason,
        was=State(was) if was else None,
    )


def _text(value: bytes | str | None) -> str:
    """Of a client that decodes answers, or does not; nothing for a field that is not there."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
