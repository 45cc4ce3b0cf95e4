"""Short ways to write down Jobs, their pods and what launches them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from datetime import datetime
from typing import Any

from scannerjob.model.facts import Send
from scannerjob.model.ledger import format_time
from scannerjob.model.row import Json, Row
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.targets.job.manifest import Owner, manifest
from scannerjob.targets.job.names import LAUNCH
from scannerjob.targets.job.view import JobView, view
from tests.unit.cases import NOW, item, spec


class Watch:
    """The monotonic clock of a module, in place of its `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


OWNER = Owner("docs", "pdf-pages", "uid-1")
CONTAINER = {"name": "pages", "image": "none"}

Document = dict[str, Any]


def template(*containers: Mapping[str, Any], **job_spec: Any) -> Document:
    """A JobTemplateSpec with these containers; `job_spec` goes into the Job's."""
    pod = {"spec": {"containers": [dict(each) for each in containers or (CONTAINER,)]}}
    return {"spec": {"template": pod, **job_spec}}


def job_spec(a_template: Mapping[str, Any] | None = None, **fields: Any) -> ScannerJobSpec:
    job = {"template": template() if a_template is None else a_template}
    limits = {name: fields.pop(name) for name in list(fields) if name.endswith("HistoryLimit")}
    return spec(celery=None, job={**job, **limits}, **fields)


def send(key: str = "[7]", sends: int = 1, attempt: int = 1, **values: Json) -> Send:
    claimed = item(key, sends=sends, attempt=attempt)
    return Send(claimed, Row(key, values), None, None)


def made(a_template: Mapping[str, Any] | None = None, **values: Any) -> Document:
    """The Job of a row with these values, made by this template."""
    return manifest(OWNER, job_spec(a_template), send(**values))


def document(
    key: str = "[7]",
    version: int = 1,
    created: datetime = NOW,
    owner: Owner = OWNER,
    **status: Any,
) -> Document:
    """The Job of the row of this key as an API server shows it."""
    job = manifest(owner, job_spec(), send(key))
    job["metadata"] |= {
        "uid": f"job-{key}",
        "resourceVersion": str(version),
        "creationTimestamp": format_time(created),
    }
    return {**deepcopy(job), "status": status}


def condition(kind: str, reason: str = "", since: datetime = NOW, truth: str = "True") -> Document:
    return {
        "type": kind,
        "status": truth,
        "reason": reason,
        "lastTransitionTime": format_time(since),
    }


def seen_job(key: str = "[7]", **fields: Any) -> JobView:
    return view(document(key, **fields))


def ended_job(key: str, end: str = "Complete", since: datetime = NOW, **fields: Any) -> JobView:
    return seen_job(key, conditions=[condition(end, since=since)], **fields)


def pod(key: str = "[7]", phase: str = "Failed", **status: Any) -> Document:
    """A pod of the launch of the row of this key."""
    labels = {LAUNCH: f"id-{key}"}
    return {
        "metadata": {"name": f"pod-{key}", "labels": labels},
        "status": {"phase": phase, **status},
    }


def exited(code: int, reason: str | None = "Error", name: str = "pages") -> Document:
    """A container's status after its program has ended."""
    return {"name": name, "state": {"terminated": {"exitCode": code, "reason": reason}}}
