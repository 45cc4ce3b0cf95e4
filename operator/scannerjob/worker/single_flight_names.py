"""The name of a lock, made from the arguments of a call."""

from __future__ import annotations

import inspect
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# What a task that is bound, a method and a class method get as their first argument.
_RECEIVERS = frozenset({"self", "cls"})


class Naming:
    """Names the calls of one function, by a template in the manner of `str.format`.

    `{0}` and `{item_id}` are arguments, however they were passed, and defaults are filled in;
    `self` and `cls` have names, but are not counted. Raises ValueError for a placeholder that is no
    parameter, and TypeError for a function of which the parameters are not known.
    """

    def __init__(self, template: str, function: Callable[..., Any]) -> None:
        self._template = template
        self.called = getattr(function, "__qualname__", repr(function))
        try:
            self.signature = inspect.signature(function)
        except ValueError:
            raise TypeError(
                f"single_flight: the parameters of {self.called} are not known"
            ) from None
        self._check_placeholders()

    def name(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The name for a call with these.

        Raises TypeError if the function does not take them, ValueError if they make no name.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.called}() {error}") from None
        bound.apply_defaults()
        positional = bound.args[self._receivers :]
        return _fill(self._template, positional, _by_name(bound), f"for {self.called}")

    @property
    def _receivers(self) -> int:
        return int(next(iter(self.signature.parameters), "") in _RECEIVERS)

    def _check_placeholders(self) -> None:
        for field in placeholders(self._template):
            if not self._is_parameter(field):
                known = ", ".join([*self.signature.parameters][self._receivers :]) or "none"
                raise ValueError(
                    f"single_flight: the name {self._template!r} for {self.called} has the"
                    f" placeholder {{{field}}}; expected one of its parameters: {known}"
                )

    def _is_parameter(self, field: str) -> bool:
        kinds = [parameter.kind for parameter in self.signature.parameters.values()]
        if field.isdigit():
            counted = sum(kind in _POSITIONAL for kind in kinds) - self._receivers
            return int(field) < counted or inspect.Parameter.VAR_POSITIONAL in kinds
        return field in self.signature.parameters or inspect.Parameter.VAR_KEYWORD in kinds


def plain(template: str) -> str:
    """The name where there are no arguments. Raises ValueError if it wants some."""
    return _fill(template, (), {}, "of a with block, which has no arguments,")


def placeholders(template: str) -> list[str]:
    """The arguments that a template asks for: `0` and `item` for `x({}, {item.id})`.

    Raises ValueError where it is none.
    """
    try:
        fields = [field for _, field, _, _ in string.Formatter().parse(template)]
    except ValueError as error:
        raise ValueError(f"single_flight: the name {template!r} is no format: {error}") from None
    first = [_first(field) for field in fields if field is not None]
    return [field or str(number) for number, field in enumerate(first)]


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _first(field: str) -> str:
    return field.partition(".")[0].partition("[")[0]


def _by_name(bound: inspect.BoundArguments) -> dict[str, Any]:
    names = dict(bound.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            names |= names[parameter.name]
    return names


def _fill(template: str, args: Sequence[Any], names: Mapping[str, Any], whose: str) -> str:
    try:
        return _Formatter().vformat(template, args, names)
    except (LookupError, AttributeError, ValueError, TypeError) as error:
        raise ValueError(
            f"single_flight: the name {template!r} {whose} cannot be made: {_words(error)}"
        ) from error


def _words(error: Exception) -> str:
    return f"there is no {error}" if isinstance(error, KeyError) else str(error)


class _Formatter(string.Formatter):
    """Takes only what has the same text in every process, since a lock is to be found by it."""

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        if _differs(value):
            raise ValueError(
                f"{{{field_name}}} is a {type(value).__name__}, whose text is another one in each"
                " process; use what tells it from others, such as {0.id}"
            )
        return value, used


def _differs(value: object) -> bool:
    if isinstance(value, str):
        return False
    return isinstance(value, (set, frozenset)) or " at 0x" in str(value)
