"""ScannerJob documents in YAML files: read and checked, each problem with its file and line."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from scannerjob.model.spec import API_VERSION, KIND, LABEL, SUBDOMAIN, SpecError, parse_spec
from scannerjob.ports import Ref

DEFAULT_NAMESPACE = "default"

_TOP_FIELDS = ("apiVersion", "kind", "metadata", "spec", "status")
# All of Kubernetes' ObjectMeta, so that what `kubectl get -o yaml` prints can be used.
_METADATA_FIELDS = (
    *("name", "namespace", "labels", "annotations", "generateName", "uid", "resourceVersion"),
    *("generation", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"),
    *("finalizers", "ownerReferences", "managedFields", "selfLink"),
)
# A problem begins with the path of its field; one of the spec as a whole may name a field next.
_FIELD = re.compile(r"([\w.\[\]]+)(?:: ([a-z][\w.]*):)?")
# More than any template needs. A few lines can stand for billions of values, or for one in itself.
_MOST_VALUES, _DEEPEST, _MOST_BITS = 100_000, 100, 64

# What sqlglot calls those that a query may be written in.
_DIALECTS = ("postgres", "mysql", "sqlite")

# As it is named in problems.
_STDIN = Path("stdin")

_Problems = Iterator[tuple[int, str]]


class DocumentError(Exception):
    """Files that cannot be used: every problem in them, as `FILE:LINE: FIELD: what is expected`."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Document:
    """A valid ScannerJob document, its namespace filled in, and where it stands.

    `named` says whether it names its namespace itself.
    """

    ref: Ref
    body: Mapping[str, Any]
    place: str
    named: bool = True

    def within(self, namespace: str) -> Document:
        """The same, in this namespace if it names none."""
        if self.named:
            return self
        body = {**self.body, "metadata": {**self.body["metadata"], "namespace": namespace}}
        return replace(self, ref=Ref(namespace, self.ref.name), body=body)


def load_documents(
    files: Iterable[Path], namespace: str = DEFAULT_NAMESPACE, *, in_cluster: bool = True
) -> list[Document]:
    """The ScannerJobs in these files, `-` for stdin; `namespace` is for those that name none.

    Raises DocumentError naming every problem in all of the files. Where they are not to run
    `in_cluster`, a ScannerJob that launches Kubernetes Jobs is a problem too, and what is wrong
    with a query is left to its status.
    """
    documents: list[Document] = []
    problems: list[str] = []
    for file in files:
        try:
            documents += _read(_STDIN if file == Path("-") else file, namespace, in_cluster)
        except DocumentError as error:
            problems += error.problems
    problems += _given_twice(documents)
    if problems:
        raise DocumentError(problems)
    return documents


def problems_of(text: str) -> list[str]:
    """What is wrong with a text that is to become a file: each problem with its field."""
    try:
        return [problem for node in _compose(text) for _, problem in _check(node, True)]
    except yaml.YAMLError as error:
        return [f"not YAML: {_said(error)}"]


def _read(file: Path, namespace: str, in_cluster: bool) -> list[Document]:
    nodes = _parse(file)
    problems = [
        f"{file}:{line}: {problem}" for node in nodes for line, problem in _check(node, in_cluster)
    ]
    if problems:
        raise DocumentError(problems)
    return [_document(file, node, namespace) for node in nodes]


def _parse(file: Path) -> list[yaml.Node]:
    try:
        nodes = _compose(_bytes(file).decode())
    except OSError as error:
        raise DocumentError([f"{file}: cannot be read: {error.strerror}"]) from None
    except yaml.MarkedYAMLError as error:
        raise DocumentError([f"{file}:{_line_of(error)}: not YAML: {_said(error)}"]) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DocumentError([f"{file}: not YAML: {_said(error)}"]) from None
    if not nodes:
        raise DocumentError([f"{file}: expected a {KIND} document, found none"])
    return nodes


def _bytes(file: Path) -> bytes:
    return sys.stdin.buffer.read() if file is _STDIN else file.read_bytes()


def _compose(text: str) -> list[yaml.Node]:
    try:
        return [node for node in yaml.compose_all(text, yaml.SafeLoader) if not _is_empty(node)]
    except RecursionError:
        raise yaml.YAMLError(_TOO_DEEP) from None


_TOO_DEEP = f"nested more than {_DEEPEST} deep"


def _is_empty(node: yaml.Node | None) -> bool:
    return node is None or node.tag == "tag:yaml.org,2002:null"


def _said(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError | yaml.reader.ReaderError):
        return "expected text in UTF-8"
    if not isinstance(error, yaml.MarkedYAMLError):
        return str(error)
    begun = f" from line {error.context_mark.line + 1}" if error.context_mark else ""
    context = f"{error.context}{begun}: " if error.context else ""
    return f"{context}{error.problem}"


def _line_of(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _check(node: yaml.Node, in_cluster: bool) -> _Problems:
    try:
        _refuse_what_is_too_large(node)
        yield from _keys_given_twice(node)
        body = _construct(node)
    except yaml.MarkedYAMLError as error:
        yield _line_of(error), f"not YAML: {_said(error)}"
        return
    for problem in _problems(body, in_cluster):
        yield _line(node, problem), problem


def _refuse_what_is_too_large(node: yaml.Node) -> None:
    if sum(1 for _ in islice(_expanded(node), _MOST_VALUES + 1)) > _MOST_VALUES:
        raise _unusable(node, f"more than {_MOST_VALUES} values, with each alias in full")


def _expanded(node: yaml.Node, depth: int = 1) -> Iterator[yaml.Node]:
    """It and all that it holds, as often as aliases stand for it."""
    if depth > _DEEPEST:
        raise _unusable(node, f"{_TOO_DEEP}, or an alias within what it stands for")
    yield node
    if not isinstance(node, yaml.ScalarNode):
        for each in node.value:
            for part in each if isinstance(each, tuple) else (each,):
                yield from _expanded(part, depth + 1)


def _unusable(node: yaml.Node, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)


class _Constructor(yaml.constructor.SafeConstructor):
    """Names the line of a value that is none: `2024-02-30`, or `!!int abc`."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            made = super().construct_object(node, deep)
            if not isinstance(made, int) or made.bit_length() <= _MOST_BITS:
                return made
        except (ValueError, TypeError, AttributeError, LookupError, ArithmeticError):
            pass
        kind = node.tag.rpartition(":")[2]
        shown = f"{node.value:.40}" if isinstance(node, yaml.ScalarNode) else "this"
        raise _unusable(node, f"{shown} cannot be read as {kind}; quote it if it is a text")


def _construct(node: yaml.Node) -> Any:
    return _Constructor().construct_document(node)


def _keys_given_twice(node: yaml.Node) -> _Problems:
    """YAML's parser takes the last of them and says nothing."""
    for mapping in {id(part): part for part in _expanded(node)}.values():
        seen: dict[str, int] = {}
        for key in _plain_keys(mapping):
            line = key.start_mark.line + 1
            if key.value in seen:
                yield line, f"{key.value}: given twice, first on line {seen[key.value]}"
            seen.setdefault(key.value, line)


def _plain_keys(node: yaml.Node) -> Iterator[yaml.ScalarNode]:
    if isinstance(node, yaml.MappingNode):
        yield from (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))


def _problems(body: Any, in_cluster: bool) -> Iterator[str]:
    if not isinstance(body, dict):
        yield f"expected a {KIND} document: a mapping with apiVersion, kind, metadata and spec"
        return
    header = [*_header_problems(body)]
    yield from header
    if any(problem.startswith(("apiVersion", "kind")) for problem in header):
        return
    yield from _metadata_problems(body.get("metadata"))
    yield from _spec_problems(body.get("spec"), in_cluster)


def _header_problems(body: Mapping[str, Any]) -> Iterator[str]:
    for field, expected in (("apiVersion", API_VERSION), ("kind", KIND)):
        if field not in body:
            yield f"{field}: required, but missing: expected {expected}"
        elif body[field] != expected:
            yield f"{field}: expected {expected}, not {body[field]!r}"
    yield from _unknown_fields("", body, _TOP_FIELDS)


def _metadata_problems(metadata: Any) -> Iterator[str]:
    if not isinstance(metadata, dict):
        yield "metadata: required: a mapping with the ScannerJob's name"
        return
    yield from _unknown_fields("metadata.", metadata, _METADATA_FIELDS)
    if "name" not in metadata:
        yield f"metadata.name: required, but missing: expected {NAME}"
    elif not is_name(metadata["name"]):
        yield f"metadata.name: expected {NAME}, not {metadata['name']!r}"
    namespace = metadata.get("namespace")
    if namespace is not None and not is_namespace(namespace):
        yield f"metadata.namespace: expected {NAME}, not {namespace!r}"
    for field in ("labels", "annotations"):
        yield from _text_problems(f"metadata.{field}", metadata.get(field))


def _text_problems(path: str, texts: Any) -> Iterator[str]:
    if texts is None:
        return
    if not isinstance(texts, dict):
        yield f"{path}: expected a mapping of texts, not {texts!r}"
        return
    for name, text in texts.items():
        if not isinstance(name, str) or not isinstance(text, str):
            yield f"{path}.{name}: expected a text: quote it"


NAME = "lower case letters, digits and -, as in pdf-pages"


def is_name(name: Any) -> bool:
    """Whether this could be the name of a ScannerJob."""
    return _is_name(name, SUBDOMAIN, 253)


def is_namespace(name: Any) -> bool:
    """Whether this could be the name of a namespace."""
    return _is_name(name, LABEL, 63)


def _is_name(name: Any, pattern: str, length: int) -> bool:
    return isinstance(name, str) and len(name) <= length and bool(re.fullmatch(pattern, name))


def _unknown_fields(path: str, part: Mapping[Any, Any], known: Sequence[str]) -> Iterator[str]:
    for field in part:
        if field not in known:
            close = get_close_matches(str(field), known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected one of {', '.join(known)}"
            yield f"{path}{field}: unknown field; {hint}"


def _spec_problems(spec: Any, in_cluster: bool) -> Iterator[str]:
    if not isinstance(spec, dict):
        yield "spec: required: a mapping with database, query, and celery or job"
        return
    try:
        parsed = parse_spec(spec)
    except SpecError as error:
        yield from error.problems
        return
    if in_cluster:
        yield from _query_problems(parsed.query)
    if parsed.job is not None and not in_cluster:
        yield "spec.job: Kubernetes Jobs are launched by the operator only; use spec.celery here"
    elif parsed.job is not None:
        from scannerjob.cli.templates import template_problems

        yield from template_problems(parsed.job.template, "spec.job.template")


def _query_problems(query: str) -> Iterator[str]:
    """Why no database that there may be would be asked this; which one it is nobody knows yet."""
    from scannerjob.ports import SourceError
    from scannerjob.sources.parse import parse

    refusals = []
    for dialect in _DIALECTS:
        try:
            parse(query, dialect)
        except SourceError as error:
            refusals.append(str(error).replace("spec.query", "spec.query:", 1))
    if len(refusals) == len(_DIALECTS):
        yield refusals[0]


def _line(node: yaml.Node, problem: str) -> int:
    """The line of the field a problem is about, or of the nearest part around it that is there."""
    named = _FIELD.match(problem)
    path = re.findall(r"[^.\[\]]+", ".".join(filter(None, named.groups()))) if named else []
    line = node.start_mark.line + 1
    for step in path:
        found = next((pair for pair in _children(node) if pair[0] == step), None)
        if found is None:
            break
        _, line, node = found
    return line


def _children(node: yaml.Node) -> Iterator[tuple[str, int, yaml.Node]]:
    """What a mapping or a list holds: its name or index, its line, and itself."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield str(key.value), key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield str(index), value.start_mark.line + 1, value


def _document(file: Path, node: yaml.Node, namespace: str) -> Document:
    body = _construct(node)
    metadata = {**body["metadata"]}
    metadata["namespace"] = metadata.get("namespace") or namespace
    ref = Ref(metadata["namespace"], metadata["name"])
    place = f"{file}:{node.start_mark.line + 1}"
    named = bool(body["metadata"].get("namespace"))
    return Document(ref, {**body, "metadata": metadata}, place, named)


def _given_twice(documents: Iterable[Document]) -> Iterator[str]:
    first: dict[Ref, Document] = {}
    for document in documents:
        other = first.setdefault(document.ref, document)
        if other is not document:
            yield f"{document.place}: {document.ref} is given twice, first in {other.place}"
