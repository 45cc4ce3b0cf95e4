"""One change of a ScannerJob, as a person makes it, and what is to come of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from dataclasses import field as of
from enum import StrEnum
from typing import Any

Json = Any
Spec = Mapping[str, Any]


class Outcome(StrEnum):
    """What a change leads to; all but READY are mistakes."""

    READY = "it works"
    REFUSED = "the API server refuses it"
    UNREADY = "it is taken, and Ready says what is wrong"
    # Once nothing is out any more, what was changed is taken over.
    HELD = "it is taken, and Ready says what is wrong as long as anything is out"
    SILENT = "it is taken, and only the work could tell that it is wrong"


class Removed:
    """In place of a value: the field is not there."""

    def __repr__(self) -> str:
        return "removed"


REMOVED = Removed()


@dataclass(frozen=True)
class Change:
    """A spec that differs from the good one in `patch`, a merge patch, and is about one field.

    `says` is what the API server's refusal, or the message of Ready, must name; one of several,
    between bars. `drained`: it is made, and undone, while nothing is out, as a key may only be
    changed then. `bound`: it is refused for that alone. "@trial" and "@schema" stand for the
    trial's own names.
    """

    field: str
    what: str
    patch: Spec
    outcome: Outcome
    says: str = ""
    drained: bool = False
    bound: bool = False

    @property
    def valid(self) -> bool:
        """Whether it is no mistake."""
        return self.outcome is Outcome.READY

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"{self.field}: {self.what}"

    def is_named(self, told: str) -> bool:
        """Whether a message says what it must."""
        return any(each in told for each in self.says.split("|"))

    def spec(self, good: Spec) -> dict[str, Any]:
        """The good spec with this change in it."""
        return merged(good, self.patch)


@dataclass(frozen=True)
class Deed:
    """Something else that a person does, by a method of `deeds.Deeds`."""

    field: str
    what: str
    method: str
    valid: bool = False
    arguments: Mapping[str, Any] = of(default_factory=dict)

    @property
    def name(self) -> str:
        """Tells it from all others."""
        return f"{self.field}: {self.what}"


Step = Change | Deed


def at(field: str, value: Json) -> dict[str, Any]:
    """The patch that sets one field, for example `spec.retry.attempts`."""
    for name in reversed(field.split(".")[1:]):
        value = {name: value}
    found: dict[str, Any] = value
    return found


def merged(spec: Spec, patch: Spec) -> dict[str, Any]:
    """The spec with a patch in it; neither of both is changed."""
    result = deepcopy(dict(spec))
    for name, value in patch.items():
        old = result.get(name)
        if value is REMOVED:
            result.pop(name, None)
        elif isinstance(old, Mapping) and isinstance(value, Mapping) and name != "template":
            result[name] = merged(old, value)
        else:
            result[name] = deepcopy(value)
    return result


def named(document: Json, names: Mapping[str, str]) -> Json:
    """With the trial's own names for those that stand for them."""
    text = json.dumps(document)
    for placeholder, name in names.items():
        text = text.replace(placeholder, name)
    return json.loads(text)
