"""The Job that a row becomes: the author's template, and what is added to it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from scannerjob.model.environment import containers, environment
from scannerjob.model.facts import Send
from scannerjob.model.row import Json
from scannerjob.model.spec import API_VERSION, KIND, ScannerJobSpec
from scannerjob.ports import TargetError
from scannerjob.targets.job.names import (
    ATTEMPT,
    KEY,
    LAUNCH,
    NAME,
    SCANNERJOB,
    UID,
    job_name,
    label_value,
)

# What a Job is given unless its author says otherwise: attempts are counted here, one Job is one
# attempt, and no second pod of it starts while the first may still run (KEP-3939).
_JOB_DEFAULTS = {"podReplacementPolicy": "Failed"}
_POD_DEFAULTS = {"restartPolicy": "Never"}
_TTL = "ttlSecondsAfterFinished"


@dataclass(frozen=True)
class Owner:
    """The ScannerJob that Jobs are launched for."""

    namespace: str
    name: str
    uid: str

    @property
    def labels(self) -> dict[str, str]:
        """What all its Jobs and their pods are found by."""
        return {NAME: label_value(self.name), UID: self.uid}

    @property
    def reference(self) -> dict[str, Any]:
        """What makes the garbage collector remove its Jobs with it."""
        return {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }


def manifest(owner: Owner, spec: ScannerJobSpec, send: Send) -> dict[str, Any]:
    """The Job of one launch.

    Raises UnusableRow for a value that no environment can hold, TargetError for a template that
    cannot even be given a name.
    """
    item = send.item
    told = {KEY: item.key, ATTEMPT: str(item.attempt)}
    return _job(owner, spec, item.id, send.row.values, told)


def specimen(owner: Owner, spec: ScannerJobSpec) -> dict[str, Any]:
    """A Job as all others but without a row, for the API server to check the template by.

    Raises TargetError as `manifest` does.
    """
    job = _job(owner, spec, "specimen", {}, {})
    if (seconds := ttl_seconds(spec)) is not None:
        job["spec"][_TTL] = seconds
    return job


def ttl_seconds(spec: ScannerJobSpec) -> Any:
    """The template's ttlSecondsAfterFinished, as its author wrote it, or None."""
    job_spec = spec.job.template.get("spec") if spec.job else None
    return job_spec.get(_TTL) if isinstance(job_spec, Mapping) else None


def _job(
    owner: Owner,
    spec: ScannerJobSpec,
    launch_id: str,
    values: Mapping[str, Json],
    told: Mapping[str, str],
) -> dict[str, Any]:
    template = deepcopy(spec.job.template) if spec.job else {}
    labels = {**owner.labels, LAUNCH: launch_id}
    metadata = _mapping(template, "metadata")
    if template["metadata"] is not metadata:
        raise TargetError("InvalidTemplate", "spec.job.template.metadata: must be a mapping")
    # In a template that was copied from a Job. A dry run takes it, a create never does.
    metadata.pop("resourceVersion", None)
    metadata |= {
        "name": job_name(owner.name, launch_id),
        "namespace": owner.namespace,
        "ownerReferences": [owner.reference],
    }
    _mapping(metadata, "labels").update(labels)
    _mapping(metadata, "annotations").update({SCANNERJOB: owner.name, **told})
    job_spec = _mapping(template, "spec")
    _complete(job_spec, spec)
    pod = _mapping(job_spec, "template")
    _mapping(_mapping(pod, "metadata"), "labels").update(labels)
    pod_spec = _mapping(pod, "spec")
    _add(pod_spec, _POD_DEFAULTS)
    for container in containers(pod_spec):
        # First, so that the template's own variables may refer to them.
        _list(container, "env")[:0] = environment(values)
    return {"apiVersion": "batch/v1", "kind": "Job", **template}


def _complete(job_spec: dict[str, Any], spec: ScannerJobSpec) -> None:
    if job_spec.get("backoffLimitPerIndex") is None:
        _add(job_spec, {"backoffLimit": 0})
    _add(job_spec, _JOB_DEFAULTS)
    if spec.deadline is not None:
        _add(job_spec, {"activeDeadlineSeconds": math.ceil(spec.deadline.total_seconds())})
    # Else it might be gone before its end was counted; it is put back on then.
    job_spec.pop(_TTL, None)


def _add(part: dict[str, Any], defaults: Mapping[str, Any]) -> None:
    for field, value in defaults.items():
        if part.get(field) is None:
            part[field] = value


def _mapping(part: dict[str, Any], field: str) -> dict[str, Any]:
    """The mapping in this field, made if there is none.

    What is there and is no mapping is left for the API server to refuse.
    """
    found = part.get(field)
    if found is None:
        found = part[field] = {}
    return found if isinstance(found, dict) else {}


def _list(part: dict[str, Any], field: str) -> list[Any]:
    """As `_mapping`, of a list."""
    found = part.get(field)
    if found is None:
        found = part[field] = []
    return found if isinstance(found, list) else []
