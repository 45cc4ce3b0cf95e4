"""The specification of a ScannerJob, as its author writes it: parsed, checked and frozen.

The same documents are checked twice: by the CRD's schema on an API server, and here. A test feeds
one corpus of good and bad specs to both.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

API_GROUP = "scannerjob.dev"
API_VERSION = f"{API_GROUP}/v1alpha1"
KIND = "ScannerJob"

MAX_CONCURRENCY = 1000
MIN_INTERVAL = timedelta(milliseconds=500)
NO_TIME = timedelta(0)

# GEP-2257: up to four groups of at most five digits, largest unit first is not required there.
_DURATION = re.compile(r"^([0-9]{1,5}(h|m|s|ms)){1,4}$")
_DURATION_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)")
_UNITS = {
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
}


class SpecError(ValueError):
    """A ScannerJob that cannot be used. Each problem names its field and what was expected."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def parse_duration(text: object) -> timedelta:
    """Read a duration as in Gateway API (GEP-2257): `500ms`, `30s`, `1h30m`.

    Raises ValueError for anything else, a bare number included: `30` has no unit.
    """
    if isinstance(text, timedelta):
        return text
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError(
            f"must be a duration with a unit, such as 500ms, 30s or 1h30m, not {text!r}"
        )
    parts = _DURATION_PART.findall(text)
    return sum((int(number) * _UNITS[unit] for number, unit in parts), NO_TIME)


def _at_least(least: timedelta, written: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if value < least:
            raise ValueError(f"must be at least {written}")
        return value

    return AfterValidator(check)


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Interval = Annotated[Duration, _at_least(MIN_INTERVAL, "500ms")]
Timeout = Annotated[Duration, _at_least(timedelta(milliseconds=1), "1ms")]
Lifetime = Annotated[Duration, _at_least(timedelta(seconds=1), "1s")]
# As Kubernetes has them: of namespaces, and of most else.
LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL}(\.{LABEL})*"
_NAME = rf"^{SUBDOMAIN}$"
_SECRET_KEY = r"^[-._a-zA-Z0-9]+$"
Name = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_NAME)]
SecretKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_SECRET_KEY)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, extra="forbid", frozen=True, strict=True
    )


class SecretKeyRef(_Part):
    """One key of a Secret in the ScannerJob's own namespace."""

    name: Name
    key: SecretKey


class SecretRef(_Part):
    """A whole Secret in the ScannerJob's own namespace."""

    name: Name


class Connection(_Part):
    """Where a database or a broker is: a URL, and the certificates to reach it with, if any."""

    url_secret_ref: SecretKeyRef
    tls_secret_ref: SecretRef | None = None


class Retry(_Part):
    """How often a row is tried, and how long it rests between two attempts.

    `attempts` counts all of them, the first included. The n-th rest is `backoff * 2**(n-1)`, at
    most `max_backoff`, with up to a tenth of jitter taken off.
    """

    attempts: Annotated[int, Field(ge=1, le=100)] = 3
    backoff: Duration = timedelta(seconds=10)
    max_backoff: Duration = timedelta(minutes=10)


class CeleryTarget(_Part):
    """Each row becomes one Celery task; its columns are the task's keyword arguments.

    `expires` is how long a task may wait for a worker; without it, for ever. It bounds a lost
    task's slot only together with `deadline`, so that, without a guard, they are set both or
    neither.
    """

    broker: Connection
    result_backend: Connection | None = None
    guard: Connection | None = None
    task: ShortText
    queue: ShortText = "celery"
    expires: Lifetime | None = None
    priority: Annotated[int, Field(ge=0, le=255)] | None = None
    exchange: ShortText | None = None
    routing_key: ShortText | None = None
    headers: Annotated[
        dict[ShortText, Annotated[str, StringConstraints(max_length=1024)]], Field(max_length=32)
    ] = {}
    on_uncertain_publish: Literal["Hold", "Republish"] = "Hold"


class JobTarget(_Part):
    """Each row becomes one Kubernetes Job made from `template`, a batch/v1 JobTemplateSpec."""

    template: dict[str, Any]
    successful_jobs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 3
    failed_jobs_history_limit: Annotated[int, Field(ge=0, le=1000)] = 1


class ScannerJobSpec(_Part):
    """What to look for, how often, how many at a time, and what to launch."""

    suspend: bool = False
    database: Connection
    query: Annotated[str, StringConstraints(min_length=1, max_length=32768)]
    key: (
        Annotated[tuple[ShortText, ...], Field(min_length=1, max_length=8, strict=False)] | None
    ) = None
    interval: Interval = timedelta(seconds=30)
    query_timeout: Timeout = timedelta(seconds=10)
    concurrency: Annotated[int, Field(ge=0, le=MAX_CONCURRENCY)] = 10
    deadline: Lifetime | None = None
    cooldown: Duration = NO_TIME
    retry: Retry = Retry()
    celery: CeleryTarget | None = None
    job: JobTarget | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterable[str]:
        if (self.celery is None) == (self.job is None):
            yield "exactly one of celery or job must be set"
        if self.celery is not None:
            yield from self._celery_problems(self.celery)

    def _celery_problems(self, celery: CeleryTarget) -> Iterable[str]:
        if celery.guard is None and (celery.expires is None) != (self.deadline is None):
            yield (
                "celery.expires and deadline must be set together, or neither: one alone cannot "
                "tell when a lost task may be launched again (celery.guard lifts this)"
            )

    @property
    def lifetime(self) -> timedelta | None:
        """How long after its claim a launch can be alive at most; None where nothing bounds it."""
        if self.celery is None or self.celery.expires is None or self.deadline is None:
            return None
        return self.celery.expires + self.deadline


def parse_spec(document: Mapping[str, Any]) -> ScannerJobSpec:
    """Parse the `spec` of a ScannerJob document; raises SpecError naming every bad field."""
    try:
        return ScannerJobSpec.model_validate(document)
    except ValidationError as error:
        raise SpecError(_describe(detail) for detail in error.errors()) from None


def _describe(detail: Any) -> str:
    path = "spec" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in detail["loc"])
    match detail["type"]:
        case "extra_forbidden":
            return f"{path}: unknown field{_suggestion(detail['loc'])}"
        case "missing":
            return f"{path}: required, but missing"
        case "value_error":
            return f"{path}: {detail['ctx']['error']}"
        case kind if kind in _EXPECTED:
            return f"{path}: must be {_EXPECTED[kind].format(**detail.get('ctx', {}))}"
        case "string_pattern_mismatch":
            return f"{path}: must be {_PATTERNS[detail['ctx']['pattern']]}"
        case _:
            return f"{path}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


# What was expected, in words, by the kind of mistake.
_EXPECTED = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "string_type": "a text; quote it if it looks like a number",
    "string_too_short": "a text that is not empty",
    "string_too_long": "a text of at most {max_length} characters",
    "too_short": "a list that is not empty",
    "too_long": "of at most {max_length} entries",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
_PATTERNS = {
    _NAME: "lower case letters, digits, - and ., as in app-db",
    _SECRET_KEY: "letters, digits, -, _ and ., as in database-url",
}


def _suggestion(location: tuple[int | str, ...]) -> str:
    from difflib import get_close_matches

    known = _fields_at(location[:-1])
    close = get_close_matches(str(location[-1]), known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; expected one of {', '.join(known)}"


def _fields_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = ScannerJobSpec
    for step in location:
        field = next(f for f in model.model_fields.values() if f.alias == step)
        model = next(t for t in _models_in(field.annotation))
    return [str(field.alias) for field in model.model_fields.values()]


def _models_in(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)
