"""`kubectl explain` reads as documentation: it says what each field is."""

from __future__ import annotations

import re

import pytest

from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.waiting import eventually
from tests.unit.test_crd_documentation import FIELDS

NAMED = re.compile(r"^  (\w+)\t<", re.MULTILINE)


def fields_of(parent: str) -> set[str]:
    """Those right below it, as the CRD has them."""
    split = (path.rpartition(".") for path in FIELDS)
    return {name for above, _, name in split if above == parent}


@pytest.mark.parametrize(
    ("path", "first_words"),
    [
        (".spec", "What to look for, how often, how many at a time"),
        (".spec.celery", "Each row becomes a Celery task."),
        (".spec.job", "Each row becomes a Kubernetes Job."),
        (".spec.retry", "How often a row is tried"),
        (".status", "What the operator observed"),
    ],
)
def test_a_field_is_described_and_so_is_each_in_it(
    cluster: ControlPlane, path: str, first_words: str
) -> None:
    # The API server tells of a new kind a moment after it serves it.
    told = eventually(
        lambda: cluster.kubectl("explain", f"scannerjob{path}"), ignoring=KubectlError
    )
    _, _, described = told.partition("DESCRIPTION:\n    ")
    assert described.startswith(first_words)
    assert set(NAMED.findall(described)) == fields_of(path)
    assert "<no description>" not in described
