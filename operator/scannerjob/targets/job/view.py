"""What matters of a Job, read once from its document."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from scannerjob.apiserver import is_older
from scannerjob.model.ledger import parse_time, time_of_others
from scannerjob.model.row import MAX_KEY_BYTES
from scannerjob.model.spec import API_GROUP, KIND
from scannerjob.targets.job.names import ATTEMPT, KEY, LAUNCH, NAME, SCANNERJOB, UID, job_name

_ENDS = ("Complete", "Failed")


@dataclass(frozen=True, slots=True)
class JobView:
    """A Job that is labelled as one of ours.

    `owner` is the UID of the ScannerJob that controls it, if its name is the one that this gives to
    the Job of this launch: one that a person copied has another. `end` is its final condition's
    type, set when no pod of it runs any more; `reason` is that condition's or, before the end, that
    of what it is coming to. `ending`: it has failed or a pod of it was deleted, but
    that pod has not ended. `pods` says whether any pod was ever made.
    """

    namespace: str
    name: str
    uid: str
    version: str
    scannerjob: str
    label: str
    owner: str | None
    labelled_owner: str
    launch: str
    key: str
    attempt: int
    created: datetime
    end: str | None
    changed: datetime
    reason: str
    ending: bool
    suspended: bool
    pods: bool
    ttl: int | None

    @property
    def place(self) -> tuple[str, str]:
        """Where Jobs of its ScannerJob are filed: namespace and label."""
        return self.namespace, self.label

    def is_newer_than(self, other: JobView) -> bool:
        """Whether this is a later state than `other`, as far as their versions tell (KEP-5504).

        Of two Jobs of one name, too, the later one has the higher version.
        """
        return not is_older(self.version, other.version)


def view(job: Mapping[str, Any]) -> JobView:
    """Read a Job's document."""
    metadata, spec, status = job["metadata"], job.get("spec") or {}, job.get("status") or {}
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    created = parse_time(metadata.get("creationTimestamp")) or datetime.now(UTC)
    end = _condition(status, *_ENDS)
    told = end or _condition(status, "FailureTarget", "SuccessCriteriaMet") or {}
    label, launch = labels.get(NAME, ""), labels.get(LAUNCH, "")
    return JobView(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata.get("resourceVersion", ""),
        scannerjob=annotations.get(SCANNERJOB, label),
        label=label,
        owner=_owner(metadata, launch),
        labelled_owner=labels.get(UID, ""),
        launch=launch,
        # What no ledger would take may be a person's doing, and must not keep others from it.
        key=(annotations.get(KEY) or launch)[:MAX_KEY_BYTES],
        attempt=_number(annotations.get(ATTEMPT)),
        created=created,
        end=end["type"] if end else None,
        changed=time_of_others(told.get("lastTransitionTime")) or created,
        reason=told.get("reason") or told.get("type") or "",
        ending=not end and bool(told or status.get("terminating")),
        suspended=bool(spec.get("suspend")),
        pods=any(status.get(count) for count in ("active", "succeeded", "failed", "terminating")),
        ttl=spec.get("ttlSecondsAfterFinished"),
    )


def _condition(status: Mapping[str, Any], *types: str) -> Mapping[str, Any] | None:
    for each in status.get("conditions") or ():
        if each.get("type") in types and each.get("status") == "True":
            return dict(each)
    return None


def _owner(metadata: Mapping[str, Any], launch: str) -> str | None:
    owners = metadata.get("ownerReferences") or ()
    controller = next((each for each in owners if each.get("controller")), None)
    if controller is None or not launch or not _is_scannerjob(controller):
        return None
    if metadata["name"] != job_name(controller.get("name", ""), launch):
        return None
    return str(controller["uid"])


def _is_scannerjob(owner: Mapping[str, Any]) -> bool:
    group, _, _ = owner.get("apiVersion", "").partition("/")
    return bool(group == API_GROUP and owner.get("kind") == KIND)


def _number(text: str | None) -> int:
    return max(1, int(text)) if text and text.isdecimal() and len(text) < 4 else 1
