"""A row as the environment of a Job's containers: which variables its columns become."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from scannerjob.model.row import Json, UnusableRow

_C_IDENTIFIER = re.compile(r"[A-Z_][A-Z0-9_]*")
# What changes how a program is found, loaded or run, whom it trusts and through whom it goes, or is
# said by Kubernetes or by us, is not for a row to say.
_RESERVED = re.compile(
    r"PATH|HOME|HOSTNAME|IFS|BASH_ENV|BASHOPTS|SHELLOPTS|PS4|PROMPT_COMMAND"
    r"|NODE_(OPTIONS|PATH|EXTRA_CA_CERTS)|CLASSPATH|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS"
    r"|_JAVA_OPTIONS|PERL5(OPT|LIB|DB)|PERLLIB|RUBY(OPT|LIB)|PYTHON[A-Z]+|PHPRC|LUA_INIT"
    r"|DOTNET_STARTUP_HOOKS|OPENSSL_(CONF|MODULES|ENGINES)|GCONV_PATH|GLIBC_TUNABLES"
    r"|GIT_(SSH|SSH_COMMAND|EXEC_PATH|PROXY_COMMAND|ASKPASS|CONFIG_.*)"
    r"|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|(CURL|REQUESTS)_CA_BUNDLE"
    r"|(LD|KUBERNETES|SCANNERJOB)_.*"
)


def variable(column: str) -> str:
    """The name of the environment variable that a column becomes: `pdf_id` is `PDF_ID`."""
    return column.upper()


def column_problems(columns: Sequence[str], template: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with these columns for Jobs of this template: each names its column."""
    taken = set(_names(template))
    names = [variable(column) for column in columns]
    for column, name in zip(columns, names, strict=True):
        if not _C_IDENTIFIER.fullmatch(name):
            yield f"column {column!r} cannot be an environment variable: use A-Z, 0-9 and _"
        elif _RESERVED.fullmatch(name):
            yield f"column {column!r} would become the environment variable {name}, a reserved one"
        elif name in taken:
            yield f"column {column!r} would become {name}, which spec.job.template sets already"
        elif names.count(name) > 1:
            yield f"column {column!r} is not the only one that would become {name}"


def environment(values: Mapping[str, Json]) -> list[dict[str, str]]:
    """The row as `env` of a container. `$` is doubled, so that Kubernetes expands nothing in it.

    NULL is empty, a truth value `true` or `false`, a list or mapping JSON. Raises UnusableRow for a
    text that no environment can hold.
    """
    return [
        {"name": variable(column), "value": _text(column, value).replace("$", "$$")}
        for column, value in values.items()
    ]


def containers(pod_spec: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The containers and init containers of a pod's spec, as far as they are written as such."""
    for field in ("initContainers", "containers"):
        yield from _mappings(pod_spec.get(field))


def _names(template: Mapping[str, Any]) -> Iterator[str]:
    pod_spec: Any = template
    for field in ("spec", "template", "spec"):
        pod_spec = pod_spec.get(field) if isinstance(pod_spec, Mapping) else None
    for container in containers(pod_spec if isinstance(pod_spec, Mapping) else {}):
        yield from (str(each.get("name")) for each in _mappings(container.get("env")))


def _mappings(found: Any) -> Iterable[dict[str, Any]]:
    # What is not written as it must be, the API server refuses by its field's path.
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else ()


def _text(column: str, value: Json) -> str:
    if isinstance(value, str):
        if "\0" in value:
            raise UnusableRow(f"column {column}: an environment cannot hold a NUL character")
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
