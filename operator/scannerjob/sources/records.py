"""From a result's raw rows to rows under keys, with those held back that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scannerjob.model.environment import column_problems
from scannerjob.model.row import MAX_ROW_BYTES, Json, Row, UnusableRow, canonical_key, to_json
from scannerjob.ports import SourceError

_Key = Sequence[str]

# What a problem shows of a key.
_SHOWN_KEY = 80
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gave: column names, the driver's codes for their types, and rows.

    `complete` says that there were no more rows.
    """

    columns: tuple[str, ...]
    type_codes: tuple[Any, ...]
    rows: Sequence[Sequence[Any]]
    complete: bool


@dataclass(slots=True)
class Records:
    """The usable rows of a result; the others by key, where they have one, and by problem."""

    rows: list[Row] = field(default_factory=list)
    held_back: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def key_columns(columns: Sequence[str], key: _Key | None) -> _Key:
    """The names of the key columns: the first column is the key if none is named.

    Raises SourceError: InvalidColumn for a column that cannot be an argument, InvalidKey for a key
    column that is not there.
    """
    _check_columns(columns)
    for name in key or ():
        if name not in columns:
            there = ", ".join(columns)
            message = f"spec.key: the query has no column {name}; it has {there}"
            raise SourceError("InvalidKey", message)
    return key or columns[:1]


def _check_columns(columns: Sequence[str]) -> None:
    for name in columns:
        if not name.isidentifier():
            raise _invalid_column(name, "is not an identifier", "AS some_name")
        if columns.count(name) > 1:
            raise _invalid_column(name, "is there more than once", "AS another_name")


def _invalid_column(name: str, fault: str, alias: str) -> SourceError:
    message = f"spec.query: column {name!r} {fault}; columns become arguments: add {alias} to it"
    return SourceError("InvalidColumn", message)


def check_variables(columns: Sequence[str], template: Mapping[str, Any]) -> None:
    """Raises SourceError, InvalidColumn, if a column cannot be a variable of this template's."""
    for problem in column_problems(columns, template):
        message = f"spec.query: {problem}; columns become variables: add AS another_name to it"
        raise SourceError("InvalidColumn", message)


def sort_out(result: Result, key: _Key) -> Records:
    """The rows in their order; of rows with one key, the first is usable."""
    records = Records()
    seen: set[str] = set()
    for number, row in enumerate(result.rows, start=1):
        values = dict(zip(result.columns, row, strict=True))
        try:
            own_key = _canonical({name: values[name] for name in key})
        except UnusableRow as error:
            records.problems.append(f"row {number} of the result: {error}")
        else:
            _add(records, seen, own_key, values)
    return records


def _add(records: Records, seen: set[str], key: str, values: dict[str, Any]) -> None:
    try:
        if key in seen:
            raise UnusableRow("another row has the same key")
        seen.add(key)
        records.rows.append(Row(key, _sendable(values)))
    except UnusableRow as error:
        records.held_back.add(key)
        records.problems.append(f"row {key[:_SHOWN_KEY]}: {error}")


def _canonical(columns: dict[str, Any]) -> str:
    for name, value in columns.items():
        if value is None:
            raise UnusableRow(f"key column {name} is NULL")
    try:
        return canonical_key([_json(name, value) for name, value in columns.items()])
    except UnicodeEncodeError:
        raise UnusableRow("its key is not valid text") from None


def _sendable(columns: dict[str, Any]) -> dict[str, Json]:
    # Copies of what is too large by far would take as much again.
    _check_size(sum(len(v) for v in columns.values() if isinstance(v, (str, bytes))))
    values = {name: _json(name, value) for name, value in columns.items()}
    try:
        _check_size(len(_encode(values).encode()))
    except UnicodeEncodeError:
        raise UnusableRow("a text in it is not valid") from None
    return values


def _check_size(size: int) -> None:
    if size > MAX_ROW_BYTES:
        limit = MAX_ROW_BYTES // 1024
        raise UnusableRow(
            f"its {size // 1024} KiB are more than the {limit} KiB a message may hold"
        )


def _json(name: str, value: Any) -> Json:
    try:
        return to_json(value)
    except RecursionError:
        raise UnusableRow(f"column {name}: it is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise UnusableRow(f"column {name}: {error}") from None
