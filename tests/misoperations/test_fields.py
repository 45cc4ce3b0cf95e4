"""No field of a ScannerJob is forgotten: each is changed well once at least, and badly thrice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml

from tests.harness.record import REPOSITORY
from tests.harness.setting import Target
from tests.misoperations.fields import steps
from tests.misoperations.plan import HANDS, plan

CRD = REPOSITORY / "crds" / "scannerjob.dev_scannerjobs.yaml"
TARGETS: tuple[Target, ...] = ("celery", "job")


def leaves(schema: Mapping[str, Any], path: str) -> Iterator[str]:
    """The fields that have none of their own in the schema."""
    if "properties" not in schema:
        yield path
    for name, field in schema.get("properties", {}).items():
        yield from leaves(field, f"{path}.{name}")


def fields() -> list[str]:
    (version,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
    return list(leaves(version["schema"]["openAPIV3Schema"]["properties"]["spec"], "spec"))


def test_the_fields_are_those_of_the_schema() -> None:
    assert {"spec.suspend", "spec.celery.guard.tlsSecretRef.name"} <= set(fields())


@pytest.mark.parametrize("field", fields())
def test_each_field_is_changed_well_once_and_badly_thrice(field: str) -> None:
    target: Target = "job" if field.startswith("spec.job") else "celery"
    tried = Counter(step.valid for step in steps(target) if step.field == field)
    assert tried[True] >= 1, f"no valid change of {field}: add one to tests/misoperations/fields.py"
    assert tried[False] >= 3, f"too few bad ones of {field}: add them to fields.py"


@pytest.mark.parametrize("target", TARGETS)
def test_each_change_has_a_name_of_its_own_and_is_dealt_out_once(target: Target) -> None:
    names = [step.name for step in steps(target)]
    dealt = [
        step.name for seed in range(1, HANDS[target] + 1) for step, _ in plan(seed, target).steps
    ]
    assert sorted(dealt) == sorted(names)
    assert len(set(names)) == len(names)
