"""The brokers and result backends in use: equal URLs share one connection and its thread."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import TypeVar
from weakref import WeakValueDictionary

from sqlalchemy import URL, make_url

from scannerjob.model.spec import NO_TIME, ScannerJobSpec
from scannerjob.model.spec import CeleryTarget as CelerySpec
from scannerjob.ports import ConfigurationError
from scannerjob.targets.celery.amqp_broker import AmqpBroker
from scannerjob.targets.celery.endpoint import Endpoint
from scannerjob.targets.celery.messages import reserved_headers
from scannerjob.targets.celery.outcomes import Outcomes, RedisResults, SqlResults
from scannerjob.targets.celery.publisher import Publisher
from scannerjob.targets.celery.redis_broker import RedisBroker
from scannerjob.targets.celery.sql_broker import SqlBroker
from scannerjob.targets.celery.target import CeleryTarget
from scannerjob.urls import host_of, parse_database_url

_BROKER = "spec.celery.broker"
_RESULT_BACKEND = "spec.celery.resultBackend"

_REDIS_URL = "redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER]"
_AMQP_URL = "amqp://[USER:PASSWORD@]HOST[:PORT][/VIRTUALHOST]"
_SQL_BROKERS = ("sqla", "sqlalchemy")
_READABLE_RESULTS = (
    "redis:// or db+DATABASE_URL (results sent over a broker reach their caller only)"
)
_SENT_BACK = ("rpc", "amqp", "pyamqp")
_NOT_YET = ("amqps", "rediss")

_Shared = TypeVar("_Shared", Publisher, Outcomes)


class Brokers:
    """Opens Celery targets. A broker's connection goes with the last target that uses it.

    `allow_sqlite` is for a process that works with its own machine's files.
    """

    def __init__(self, *, allow_sqlite: bool = True) -> None:
        self._allow_sqlite = allow_sqlite
        # A call that hangs keeps its publisher here, so that however often a target is opened anew,
        # the threads that hang are counted together.
        self._publishers: WeakValueDictionary[str, Publisher] = WeakValueDictionary()
        self._outcomes: WeakValueDictionary[str, Outcomes] = WeakValueDictionary()

    def open(
        self, broker_url: str, result_backend_url: str | None, spec: ScannerJobSpec
    ) -> CeleryTarget:
        """The target of a ScannerJob whose Secrets hold these URLs. Connects to nothing yet.

        Raises ConfigurationError naming the field, without any secret.
        """
        if spec.celery is None:
            raise ValueError("this ScannerJob launches no Celery tasks")
        _check(spec.celery)
        publisher = _shared(self._publishers, broker_url.strip(), self._publisher)
        outcomes = None
        if result_backend_url is not None:
            outcomes = _shared(self._outcomes, result_backend_url.strip(), self._results)
        return CeleryTarget(publisher, outcomes, spec.celery, _life_margin(broker_url, spec))

    def close(self) -> None:
        """End the threads and their connections. A target that is used again connects again."""
        for publisher in self._publishers.values():
            publisher.close()
        for outcomes in self._outcomes.values():
            outcomes.close()

    def _publisher(self, url: str) -> Publisher:
        endpoint = Endpoint("broker", url)
        match _scheme(url):
            case "redis":
                _check_redis(_BROKER, url)
                return Publisher(endpoint, partial(RedisBroker, endpoint), keeps_records=None)
            case "amqp" | "pyamqp":
                _check_url(_BROKER, url, _AMQP_URL)
                return Publisher(endpoint, partial(AmqpBroker, endpoint), keeps_records=False)
            case scheme if scheme in _SQL_BROKERS:
                database = self._database(_BROKER, url.partition("+")[2])
                return Publisher(
                    endpoint, partial(SqlBroker, endpoint, database), keeps_records=False
                )
            case scheme:
                raise _refused(_BROKER, scheme, "redis://, amqp:// or sqla+DATABASE_URL")

    def _results(self, url: str) -> Outcomes:
        endpoint = Endpoint("result backend", url)
        match _scheme(url):
            case "redis":
                _check_redis(_RESULT_BACKEND, url)
                return Outcomes(endpoint, partial(RedisResults, url))
            case scheme if scheme in _NOT_YET or scheme in _SENT_BACK:
                raise _refused(_RESULT_BACKEND, scheme, _READABLE_RESULTS)
            case _:
                database = self._database(_RESULT_BACKEND, url.removeprefix("db+"))
                return Outcomes(endpoint, partial(SqlResults, database))

    def _database(self, field: str, url: str) -> URL:
        try:
            return parse_database_url(url, allow_sqlite=self._allow_sqlite)
        except ConfigurationError as error:
            raise ConfigurationError(error.reason, f"{field}: {error}") from None


def _shared(
    known: WeakValueDictionary[str, _Shared], url: str, make: Callable[[str], _Shared]
) -> _Shared:
    shared = known.get(url) or make(url)
    known[url] = shared
    return shared


def _scheme(url: str) -> str:
    return re.split(r"\+|://", url.strip(), maxsplit=1)[0].lower()


def _life_margin(broker_url: str, spec: ScannerJobSpec) -> timedelta:
    # Workers on a SQLAlchemy broker may start a message that has expired since they fetched it.
    late = spec.deadline if _scheme(broker_url) in _SQL_BROKERS else None
    return late or NO_TIME


def _check(celery: CelerySpec) -> None:
    """Refuse what would be ignored, by us or by Celery."""
    if celery.guard is not None:
        raise _not_yet("spec.celery.guard")
    if celery.broker.tls_secret_ref is not None:
        raise _not_yet(f"{_BROKER}.tlsSecretRef")
    if celery.result_backend is not None and celery.result_backend.tls_secret_ref is not None:
        raise _not_yet(f"{_RESULT_BACKEND}.tlsSecretRef")
    if (celery.exchange is None) != (celery.routing_key is None):
        raise _invalid("spec.celery", "set exchange and routingKey together, or only queue")
    for name in sorted(reserved_headers() & celery.headers.keys()):
        raise _invalid(f"spec.celery.headers.{name}", "Celery sets this header itself")


def _check_redis(field: str, url: str) -> None:
    _check_url(field, url, _REDIS_URL)
    if not (make_url(url).database or "0").isdecimal():
        raise _invalid_url(field, "must end with the number of a database", _REDIS_URL)


def _check_url(field: str, url: str, expected: str) -> None:
    try:
        host_of(url)
    except ConfigurationError:
        raise _invalid_url(field, "cannot be read", expected) from None
    if make_url(url).query or ";" in url:
        problem = "has options or alternatives, of which none are accepted"
        raise _invalid_url(field, problem, expected)


def _invalid_url(field: str, what: str, expected: str) -> ConfigurationError:
    message = f"{field}: the URL {what}; expected {expected}, special characters percent-encoded"
    return ConfigurationError("InvalidURL", message)


def _refused(field: str, scheme: str, expected: str) -> ConfigurationError:
    if scheme in _NOT_YET:
        return _not_yet(f"{field}: {scheme}://")
    return ConfigurationError("InvalidURL", f"{field}: the URL must begin with {expected}")


def _not_yet(what: str) -> ConfigurationError:
    return ConfigurationError("NotSupported", f"{what} is not supported yet by this version")


def _invalid(field: str, problem: str) -> ConfigurationError:
    return ConfigurationError("InvalidSpec", f"{field}: {problem}")
