"""Whether a Job template is one, as far as that can be told without an API server.

Names and types are checked against the models of the Kubernetes client. What values mean is left to
the API server, and so is a field that resembles none: the cluster may be newer than the client.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

# Quantities: the models call them texts, but the API takes numbers too.
_QUANTITIES = {"limits", "requests", "overhead", "capacity", "sizeLimit", "divisor"}
_OF = re.compile(r"(List|Dict)\[(?:str, ?)?(\w+)\]")
_TYPES: Mapping[str, tuple[type, str]] = {
    "str": (str, "a text: quote it"),
    "int": (int, "a whole number"),
    "bool": (bool, "true or false"),
}
# A truth is an int too.
_FOUND: Mapping[type, str] = {
    str: "a text",
    bool: "a truth",
    int: "a number",
    float: "a fraction",
    Mapping: "a mapping",
    Sequence: "a list",
}


def template_problems(template: Mapping[str, Any], path: str) -> Iterator[str]:
    """What is wrong with this JobTemplateSpec: each problem with its field's path.

    That nothing is to run is told of one that has no other problem.
    """
    problems = [*_of_model(template, "V1JobTemplateSpec", path)]
    return iter(problems or _without_container(template, path))


def _without_container(template: Mapping[str, Any], path: str) -> Iterator[str]:
    """The schema of ScannerJobs takes a template as it is; only a Job of it would be refused."""
    part: Any = template
    for field in ("spec", "template", "spec", "containers"):
        path, part = f"{path}.{field}", (part or {}).get(field)
    if not part:
        yield f"{path}: expected a container at least"


def _of_model(value: Any, kind: str, path: str) -> Iterator[str]:
    from kubernetes.aio.client import models

    if not isinstance(value, Mapping):
        yield _expected(path, "a mapping", value)
        return
    model = getattr(models, kind)
    kinds = {field: model.openapi_types[name] for name, field in model.attribute_map.items()}
    for field, part in value.items():
        if field in kinds:
            yield from _of_kind(part, kinds[field], f"{path}.{field}")
        elif close := get_close_matches(str(field), kinds, n=1):
            yield f"{path}.{field}: unknown field; did you mean {close[0]}?"


def _of_kind(value: Any, kind: str, path: str) -> Iterator[str]:
    if value is None or path.rpartition(".")[2] in _QUANTITIES:
        return
    if parts := _OF.fullmatch(kind):
        yield from _of_parts(value, parts[1], parts[2], path)
    elif kind in _TYPES:
        yield from _of_type(value, kind, path)
    elif kind.startswith(("V1", "CoreV1")):
        yield from _of_model(value, kind, path)


def _of_parts(value: Any, holder: str, kind: str, path: str) -> Iterator[str]:
    if holder == "Dict" and isinstance(value, Mapping):
        for name, part in value.items():
            yield from _of_kind(part, kind, f"{path}.{name}")
    elif holder == "List" and isinstance(value, Sequence) and not isinstance(value, str):
        for index, part in enumerate(value):
            yield from _of_kind(part, kind, f"{path}[{index}]")
    else:
        yield _expected(path, "a list" if holder == "List" else "a mapping", value)


def _of_type(value: Any, kind: str, path: str) -> Iterator[str]:
    wanted, words = _TYPES[kind]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        yield _expected(path, words, value)


def _expected(path: str, words: str, value: Any) -> str:
    """Without the value: it may be a password that somebody wrote into an environment."""
    found = next((words for kind, words in _FOUND.items() if isinstance(value, kind)), "this")
    return f"{path}: expected {words}, not {found}"
