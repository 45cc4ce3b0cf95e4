"""Jobs that somebody made up to look like the operator's: never taken for one, never touched."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from scannerjob.model.facts import Fact
from scannerjob.targets.job.names import ATTEMPT, KEY, LAUNCH, NAME, SCANNERJOB, UID, job_name
from tests.cluster.conftest import Open
from tests.cluster.job_target import send
from tests.cluster.jobs import JobWorkload, settled
from tests.cluster.operators import Operators, wait_ready
from tests.security.conftest import User, rule
from tests.support.api import Api, ApiError, Json
from tests.support.controlplane import ControlPlane
from tests.support.pods import Fate
from tests.support.waiting import eventually

CAP = 2
FORGES = [
    rule("batch", "jobs", "get", "list", "create", "update", "patch", "delete"),
    rule("batch", "jobs/status", "patch", "update"),
    rule("scannerjob.dev", "scannerjobs", "get"),
]
NOBODY = "00000000-0000-4000-8000-000000000000"
LONG_AGO = "0000-01-01T00:00:00Z"


class Forger:
    """Somebody who may do all with the Jobs of a namespace, and copies what the operator writes."""

    def __init__(self, api: Api, namespace: str, uid: str, scannerjob: str = "pdf-pages") -> None:
        self.api = api
        self.path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.uid = uid
        self.scannerjob = scannerjob

    def job(
        self,
        launch: str | None,
        called: str = "",
        key: str = "[1]",
        owner: Mapping[str, Any] | None = None,
    ) -> Json:
        """A Job of this launch, labelled as ours are and called so, or as that launch's would be.

        `owner` is what its owner has otherwise than ours; without it nobody owns it.
        """
        labels = {NAME: self.scannerjob, UID: self.uid}
        if launch is not None:
            labels[LAUNCH] = launch
        metadata = {
            "name": called or job_name(self.scannerjob, launch or ""),
            "labels": labels,
            "annotations": {SCANNERJOB: self.scannerjob, KEY: key, ATTEMPT: "1"},
            "ownerReferences": [] if owner is None else [self.owner(**owner)],
        }
        container = {"name": "forged", "image": "none"}
        pod = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        # Its end is what whoever manages it says.
        spec = {"template": pod, "managedBy": "example.com/forger"}
        return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}

    def owner(self, **changes: Any) -> Json:
        return {
            "apiVersion": "scannerjob.dev/v1alpha1",
            "kind": "ScannerJob",
            "name": self.scannerjob,
            "uid": self.uid,
            "controller": True,
            **changes,
        }

    def create(self, job: Json, end: str | None = None) -> str:
        """Create it, and have it end at once; gives its name.

        One that is owned by what is not there may be gone before that.
        """
        self.api.create(self.path, job)
        name = str(job["metadata"]["name"])
        try:
            if end is not None:
                self.api.patch(f"{self.path}/{name}/status", {"status": ended(end)})
        except ApiError as error:
            if error.status != 404:
                raise
        return name

    def jobs(self) -> dict[str, Json]:
        return {each["metadata"]["name"]: each for each in self.api.get(self.path)["items"]}


def ended(end: str) -> Json:
    """The status of a Job that came to this end: Complete or Failed."""
    times = {"startTime": "2026-01-01T00:00:00Z"}
    led_to = "SuccessCriteriaMet" if end == "Complete" else "FailureTarget"
    if end == "Complete":
        times["completionTime"] = "2026-01-01T00:00:01Z"
    conditions = [
        {"type": kind, "status": "True", "reason": "Forged", "lastTransitionTime": LONG_AGO}
        for kind in (led_to, end)
    ]
    return {**times, "conditions": conditions}


OURS: Mapping[str, Any] = {}
ALMOST: Mapping[str, Mapping[str, Any]] = {
    "owned-by-another-of-that-name": {"uid": NOBODY},
    "owned-by-another-kind": {"kind": "ConfigMap", "apiVersion": "v1"},
    "owned-by-another-group": {"apiVersion": "example.com/v1"},
    "not-controlled": {"controller": False},
    "owned-by-another-name": {"name": "invoices"},
}


def test_no_launch_is_believed_to_be_a_job_that_took_its_name(
    opened: Open, namespace: str, user: User
) -> None:
    """Each sits where a launch's Job is to be, with its labels, and says that it has ended."""
    site = opened(successfulJobsHistoryLimit=0, failedJobsHistoryLimit=0)
    forger = Forger(user("forger", FORGES), namespace, site.uid)
    another = {"name": "invoices", "uid": opened(name="invoices").uid}
    owners: Mapping[str, Mapping[str, Any] | None] = {
        "owned-by-nobody": None,
        "owned-by-another": another,
        # All other owners are not there, and the garbage collector removes what they own.
        **{what: ALMOST[what] for what in ("owned-by-another-group", "not-controlled")},
    }
    squatters = {
        what: forger.create(forger.job(f"id-{what}", owner=owner), "Complete")
        for what, owner in owners.items()
    }

    for what in squatters:
        told = site.launch_one(what)
        assert told.fact is Fact.NOT_SENT, (what, told)
        assert "NameConflict" in str(told.reason)
        assert site.observed(what).fact is Fact.GONE, what
        again = site.launch(send(what, sends=2))[f"id-{what}"]
        assert again.fact is Fact.REFUSED, (what, again)
    site.clean_up(settled=list(squatters))
    site.reopen()
    site.tell()
    assert site.observe().strays == ()
    assert site.observe().hold is None
    assert set(forger.jobs()) == set(squatters.values())


def test_jobs_that_look_almost_like_ours_change_nothing(
    work: JobWorkload, operators: Operators, user: User
) -> None:
    work.kubelet.fate = lambda pod: Fate(math.inf)
    work.insert(4)
    work.apply(concurrency=CAP)
    process = operators.start("--no-leader-election")
    before = settled(work, active=CAP, launched=CAP)
    forger = Forger(user("forger", FORGES), work.namespace, work.found()["metadata"]["uid"])
    out = before["items"][0]["id"]
    real = {job_name("pdf-pages", item["id"]) for item in before["items"]}
    almost = [
        *(forger.job(f"new-{what}", key="[3]", owner=owner) for what, owner in ALMOST.items()),
        *(forger.job(out, what, owner=owner) for what, owner in ALMOST.items()),
        forger.job(out, "copied-with-its-owner", owner=OURS),
        forger.job(out, "copied-without-an-owner"),
        forger.job("new", key="[3]"),
        # What no operator ever wrote: no launch, in the very place where one would be.
        forger.job(None, owner=OURS),
    ]
    ends = [None, "Complete", "Failed"]
    for number, job in enumerate(almost):
        forger.create(job, ends[number % 3])

    process.kill()
    process.start()
    wait_ready(process, starts=2)
    # What it makes of them shows with the next thing that it writes.
    work.patch({"interval": "1s"})
    eventually(lambda: work.status()["observedGeneration"] == 2)
    assert work.ready()["status"] == "True", work.ready()
    after = settled(work, active=CAP, launched=CAP, succeeded=0, failed=0, lost=0)
    assert after["items"] == before["items"]

    work.kubelet.fate = lambda pod: Fate(0)
    for name in real:
        work.kubelet.end(name)
    work.wait_done()
    settled(work, launched=4, succeeded=4, failed=0, lost=0, active=0)
    assert set(work.executions().values()) == {1}
    assert work.kubelet.peak() <= CAP
    kept = set(forger.jobs())
    assert {"copied-with-its-owner", "copied-without-an-owner"} <= kept
    assert "Traceback" not in process.log()


def test_a_job_that_looks_exactly_like_ours_holds_one_slot_and_its_own_row(
    work: JobWorkload, operators: Operators, user: User
) -> None:
    """Where no policy forbids to make it: as a launch that came late, it is watched to its end."""
    work.kubelet.fate = lambda pod: Fate(math.inf if pod.env["PDF_ID"] == "1" else 0.1)
    work.insert(1)
    work.apply(concurrency=CAP, retry={"backoff": "1s"})
    operators.start()
    settled(work, active=1, launched=1)
    forger = Forger(user("forger", FORGES), work.namespace, work.found()["metadata"]["uid"])
    name = forger.create(forger.job("exactly", key="[2]", owner=OURS))
    taken_in = settled(work, active=CAP)
    assert [item["id"] for item in taken_in["items"]][1:] == ["exactly"]
    work.insert(2)
    assert work.kubelet.peak() == 1, "no slot is left"
    forger.api.patch(f"{forger.path}/{name}/status", {"status": ended("Complete")})
    eventually(lambda: work.waiting == 1, message="the forged end kept no row from its work")
    work.kubelet.end(job_name("pdf-pages", taken_in["items"][0]["id"]))
    work.wait_done()
    settled(work, active=0)
    assert set(work.executions().values()) == {1}
    assert work.kubelet.peak() <= CAP


class TestUnderThePolicies:
    """Only those who may write the ledger make Jobs that count in it."""

    @pytest.fixture
    def forger(
        self, cluster: ControlPlane, namespace: str, opened: Open, user: User, policies: None
    ) -> Forger:
        return Forger(user("forger", FORGES), namespace, opened().uid)

    def test_no_job_is_made_with_a_scannerjob_as_its_owner(self, forger: Forger) -> None:
        for owner in (OURS, {"controller": False}, {"uid": NOBODY}, {"name": "invoices"}):
            with pytest.raises(ApiError, match=r"403.*counts in its ledger"):
                forger.create(forger.job("new", owner=owner))

    def test_no_job_becomes_one(self, forger: Forger) -> None:
        name = forger.create(forger.job("new"))
        owned = {"metadata": {"ownerReferences": [forger.owner(controller=False)]}}
        for place in (name, f"{name}/status"):
            with pytest.raises(ApiError, match=r"403.*counts in its ledger"):
                forger.api.patch(f"{forger.path}/{place}", owned)
        forger.api.patch(f"{forger.path}/{name}", {"metadata": {"labels": {"team": "docs"}}})

    def test_what_is_ours_can_be_labelled_and_let_go_but_not_taken_over(
        self, forger: Forger, opened: Open
    ) -> None:
        site = opened(name="invoices")
        site.launch_one("1")
        place = f"{forger.path}/{site.job_name('1')}"
        forger.api.patch(place, {"metadata": {"labels": {"team": "docs"}}})
        (owner,) = forger.api.get(place)["metadata"]["ownerReferences"]
        moved = {"metadata": {"ownerReferences": [{**owner, "name": "pdf-pages"}]}}
        with pytest.raises(ApiError, match=r"403.*counts in its ledger"):
            forger.api.patch(place, moved)
        unblocked = {**owner, "blockOwnerDeletion": False}
        forger.api.patch(place, {"metadata": {"ownerReferences": [unblocked]}})
        forger.api.patch(place, {"metadata": {"ownerReferences": None}})
