"""The brokers and result backends in use: equal Secrets share one connection and its thread."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

from sqlalchemy import URL

from scannerjob.model.spec import NO_TIME, ScannerJobSpec
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.ports import ConfigurationError, naming
from scannerjob.targets.celery.amqp_broker import AmqpBroker
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.event_streams import AmqpEvents, RedisEnds, RedisEvents, SqlEnds
from scannerjob.targets.celery.events import EventStream, Listener, Watch
from scannerjob.targets.celery.guard import Guard
from scannerjob.targets.celery.messages import reserved_headers
from scannerjob.targets.celery.outcomes import Outcomes, RedisResults, SqlResults
from scannerjob.targets.celery.publisher import Publisher
from scannerjob.targets.celery.redis_broker import RedisBroker
from scannerjob.targets.celery.redis_client import open_redis
from scannerjob.targets.celery.server_urls import amqp_tls, redis_tls
from scannerjob.targets.celery.sql_broker import SqlBroker
from scannerjob.targets.celery.target import CeleryTarget
from scannerjob.tls import CertificateFiles, database_arguments
from scannerjob.urls import parse_database_url
from scannerjob.worker.redis_store import RedisStore
from scannerjob.worker.sql_engine import open_engine
from scannerjob.worker.sql_store import SqlStore

_BROKER = "spec.celery.broker"
_RESULT_BACKEND = "spec.celery.resultBackend"
_GUARD = "spec.celery.guard"
_KINDS = {_BROKER: "broker", _RESULT_BACKEND: "result backend", _GUARD: "guard"}

_BROKERS = "redis://, rediss://, amqp://, amqps:// or sqla+DATABASE_URL"
# What AMQP has room for; a whole header must fit into one frame.
_MAX_NAME, _MAX_HEADERS = 255, 64 * 1024
_SQL_BROKERS = ("sqla", "sqlalchemy")
_READABLE_RESULTS = (
    "redis://, rediss:// or db+DATABASE_URL (results sent over a broker reach their caller only)"
)
_SENT_BACK = ("rpc", "amqp", "amqps", "pyamqp")
# How long, in seconds, a guard's store may take for one answer.
_PATIENCE = 5.0

_EVENTS: Mapping[str, Callable[[Endpoint], EventStream]] = {
    "redis": RedisEvents,
    "rediss": RedisEvents,
    "amqp": AmqpEvents,
    "amqps": AmqpEvents,
    "pyamqp": AmqpEvents,
}

# A URL, and the certificates with which it is gone to.
_Place = tuple[str, CertificateFiles | None]
_Shared = TypeVar("_Shared", Publisher, Outcomes, Guard)


def _nobody() -> None:
    pass


class Brokers:
    """Opens Celery targets. A broker's connection goes with the last target that uses it.

    `local_files` is for a process that works with its own machine's files.
    """

    def __init__(self, *, local_files: bool = True) -> None:
        self._local_files = local_files
        # A call that hangs keeps its publisher here, so that however often a target is opened anew,
        # the threads that hang are counted together.
        self._publishers: WeakValueDictionary[_Place, Publisher] = WeakValueDictionary()
        self._outcomes: WeakValueDictionary[_Place, Outcomes] = WeakValueDictionary()
        self._guards: WeakValueDictionary[_Place, Guard] = WeakValueDictionary()
        self._listeners: WeakKeyDictionary[Publisher | Guard, Listener] = WeakKeyDictionary()
        self._silent: set[str] = set()

    def open(
        self,
        broker_url: str,
        result_backend_url: str | None,
        spec: ScannerJobSpec,
        wake: Callable[[], None] = _nobody,
        *,
        guard_url: str | None = None,
        broker_files: CertificateFiles | None = None,
        result_backend_files: CertificateFiles | None = None,
        guard_files: CertificateFiles | None = None,
    ) -> CeleryTarget:
        """The target of a ScannerJob whose Secrets hold these. Connects to nothing yet.

        `wake` is called, in any thread, when an event hints that one of its tasks has ended.
        Raises ConfigurationError naming the field, without any secret.
        """
        if spec.celery is None:
            raise ValueError("this ScannerJob launches no Celery tasks")
        _check(spec.celery)
        place = broker_url.strip(), broker_files
        publisher = _shared(self._publishers, place, self._publisher)
        outcomes = None
        if result_backend_url is not None:
            outcomes = self.results(result_backend_url, result_backend_files)
        guard = None
        if guard_url is not None:
            guard = _shared(self._guards, (guard_url.strip(), guard_files), self._guard)
        return CeleryTarget(
            publisher,
            outcomes,
            spec.celery,
            _life_margin(broker_url, spec),
            list(self._watches(publisher, guard, wake)),
            guard,
        )

    def results(self, url: str, files: CertificateFiles | None = None) -> Outcomes:
        """The result backend at this URL. Connects to nothing yet. Raises ConfigurationError."""
        return _shared(self._outcomes, (url.strip(), files), self._results)

    def close(self) -> None:
        """End the threads and their connections. A target that is used again connects again."""
        for publisher in self._publishers.values():
            publisher.close()
        for outcomes in self._outcomes.values():
            outcomes.close()
        for guard in self._guards.values():
            guard.close()
        for listener in self._listeners.values():
            listener.close()

    def _publisher(self, url: str, files: CertificateFiles | None) -> Publisher:
        match _scheme(url):
            case "redis" | "rediss":
                endpoint = self._redis(_BROKER, url, files)
                return Publisher(endpoint, partial(RedisBroker, endpoint), keeps_records=None)
            case "amqp" | "pyamqp" | "amqps":
                with naming(_BROKER):
                    tls = amqp_tls(url, files)
                endpoint = Endpoint(_KINDS[_BROKER], url, tls, files)
                return Publisher(endpoint, partial(AmqpBroker, endpoint), keeps_records=False)
            case scheme if scheme in _SQL_BROKERS:
                database, endpoint = self._database(_BROKER, url, url.partition("+")[2], files)
                return Publisher(
                    endpoint, partial(SqlBroker, endpoint, database), keeps_records=False
                )
            case _:
                raise _refused(_BROKER, _BROKERS)

    def _results(self, url: str, files: CertificateFiles | None) -> Outcomes:
        match _scheme(url):
            case "redis" | "rediss":
                endpoint = self._redis(_RESULT_BACKEND, url, files)
                return Outcomes(endpoint, partial(RedisResults, endpoint))
            case scheme if scheme in _SENT_BACK:
                raise _refused(_RESULT_BACKEND, _READABLE_RESULTS)
            case _:
                bare = url.removeprefix("db+")
                database, endpoint = self._database(_RESULT_BACKEND, url, bare, files)
                return Outcomes(endpoint, partial(SqlResults, endpoint, database))

    def _guard(self, url: str, files: CertificateFiles | None) -> Guard:
        if _scheme(url) in ("redis", "rediss"):
            endpoint = self._redis(_GUARD, url, files)
            return Guard(
                endpoint,
                lambda: RedisStore(open_redis(endpoint, socket_timeout=_PATIENCE)),
                partial(RedisEnds, endpoint),
            )
        database, endpoint = self._database(_GUARD, url, url, files)

        def connect() -> SqlStore:
            text = database.render_as_string(hide_password=False)
            return SqlStore(open_engine(text, tls=endpoint.tls, timeout=_PATIENCE))

        return Guard(endpoint, connect, partial(SqlEnds, connect))

    def _watches(
        self, publisher: Publisher, guard: Guard | None, wake: Callable[[], None]
    ) -> Iterator[Watch]:
        """For what may tell that a task has ended: the guard, and the broker that is published to.

        A guard tells it earlier, and of every task.
        """
        if guard:
            yield self._watch(guard, guard.ends, wake)
        elif stream := _EVENTS.get(_scheme(publisher.endpoint.url)):
            yield self._watch(publisher, partial(stream, publisher.endpoint), wake)

    def _watch(
        self, server: Publisher | Guard, stream: Callable[[], EventStream], wake: Callable[[], None]
    ) -> Watch:
        if server not in self._listeners:
            self._listeners[server] = Listener(server.endpoint, stream, self._silent)
        return self._listeners[server].watch(wake)

    def _redis(self, field: str, url: str, files: CertificateFiles | None) -> Endpoint:
        with naming(field):
            tls = redis_tls(url, files, allow_files=self._local_files)
        return Endpoint(_KINDS[field], url, tls, files)

    def _database(
        self, field: str, url: str, bare: str, files: CertificateFiles | None
    ) -> tuple[URL, Endpoint]:
        with naming(field):
            database = parse_database_url(bare, local_files=self._local_files)
            tls = database_arguments(database, files)
        return database, Endpoint(_KINDS[field], url, tls, files)


def _shared(
    known: WeakValueDictionary[_Place, _Shared],
    place: _Place,
    make: Callable[[str, CertificateFiles | None], _Shared],
) -> _Shared:
    shared = known.get(place) or make(*place)
    known[place] = shared
    return shared


def _scheme(url: str) -> str:
    return re.split(r"\+|://", url.strip(), maxsplit=1)[0].lower()


def _life_margin(broker_url: str, spec: ScannerJobSpec) -> timedelta:
    # Workers on a SQLAlchemy broker may start a message that has expired since they fetched it.
    late = spec.deadline if _scheme(broker_url) in _SQL_BROKERS else None
    return late or NO_TIME


def _check(celery: CelerySpec) -> None:
    """Refuse what would be ignored, by us or by Celery."""
    if (celery.exchange is None) != (celery.routing_key is None):
        raise _invalid("spec.celery", "set exchange and routingKey together, or only queue")
    _check_names(celery)


def _check_names(celery: CelerySpec) -> None:
    for name in sorted(reserved_headers() & celery.headers.keys()):
        raise _invalid(f"spec.celery.headers.{name}", "Celery sets this header itself")
    for name in sorted({"CC", "BCC"} & celery.headers.keys()):
        raise _invalid(f"spec.celery.headers.{name}", "RabbitMQ would send copies elsewhere")
    for field, text in _names(celery):
        if len(text.encode()) > _MAX_NAME:
            raise _invalid(field, f"takes more than {_MAX_NAME} bytes in UTF-8")
    if sum(len(f"{name}{value}".encode()) for name, value in celery.headers.items()) > _MAX_HEADERS:
        raise _invalid("spec.celery.headers", f"take more than {_MAX_HEADERS} bytes in UTF-8")


def _names(celery: CelerySpec) -> Iterator[tuple[str, str]]:
    yield "spec.celery.queue", celery.queue
    yield "spec.celery.exchange", celery.exchange or ""
    yield "spec.celery.routingKey", celery.routing_key or ""
    yield from (("spec.celery.headers", name) for name in celery.headers)


def _refused(field: str, expected: str) -> ConfigurationError:
    return ConfigurationError("InvalidURL", f"{field}: the URL must begin with {expected}")


def _invalid(field: str, problem: str) -> ConfigurationError:
    return ConfigurationError("InvalidSpec", f"{field}: {problem}")
