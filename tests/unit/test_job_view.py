"""What is read from a Job's document."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from scannerjob.model.row import MAX_KEY_BYTES
from scannerjob.targets.job.names import ATTEMPT, KEY, LAUNCH, NAME, UID, job_name
from scannerjob.targets.job.view import view
from tests.unit.cases import NOW, ago
from tests.unit.job_cases import Document, condition, document, seen_job


def without(job: Document, *path: str) -> Document:
    job = deepcopy(job)
    part: Any = job
    for field in path[:-1]:
        part = part[field]
    del part[path[-1]]
    return job


def annotated(**annotations: str) -> Document:
    job = document()
    job["metadata"]["annotations"] |= annotations
    return job


def test_a_new_job_is_told_by_its_labels_and_annotations() -> None:
    job = seen_job("[7]", version=3, created=ago(5))

    assert (job.namespace, job.scannerjob, job.launch) == ("docs", "pdf-pages", "id-[7]")
    assert (job.key, job.attempt, job.created) == ("[7]", 1, ago(5))
    assert (job.owner, job.labelled_owner, job.place) == ("uid-1", "uid-1", ("docs", "pdf-pages"))
    assert (job.end, job.reason) == (None, "")
    assert (job.ending, job.suspended, job.pods) == (False, False, False)
    assert (job.uid, job.version, job.changed, job.ttl) == ("job-[7]", "3", ago(5), None)


@pytest.mark.parametrize("end", ["Complete", "Failed"])
def test_a_job_has_ended_once_it_says_so(end: str) -> None:
    job = seen_job(conditions=[condition(end, "Why", ago(9))], failed=1)

    assert (job.end, job.reason, job.changed, job.ending) == (end, "Why", ago(9), False)


@pytest.mark.parametrize("kind", ["FailureTarget", "SuccessCriteriaMet"])
def test_what_it_is_coming_to_is_no_end(kind: str) -> None:
    job = seen_job(conditions=[condition(kind, "Why", ago(9))], terminating=1)

    assert (job.end, job.ending, job.reason) == (None, True, "Why")


def test_a_pod_that_was_deleted_and_has_not_ended_is_an_ending() -> None:
    assert seen_job(terminating=1).ending
    assert not seen_job(terminating=0, active=1).ending


def test_a_condition_that_is_not_true_says_nothing() -> None:
    job = seen_job(conditions=[condition("Complete", truth="False"), condition("Suspended")])

    assert (job.end, job.ending, job.changed) == (None, False, NOW)


def test_the_end_counts_and_not_what_led_to_it() -> None:
    conditions = [condition("FailureTarget", "Early", ago(60)), condition("Failed", "Late", ago(1))]

    job = seen_job(conditions=conditions)

    assert (job.end, job.reason, job.changed, job.ending) == ("Failed", "Late", ago(1), False)


def test_a_reason_that_was_not_given_is_the_conditions_type() -> None:
    assert seen_job(conditions=[condition("Failed")]).reason == "Failed"


@pytest.mark.parametrize("count", ["active", "succeeded", "failed", "terminating"])
def test_that_a_pod_was_made_is_told_by_any_count(count: str) -> None:
    counted, uncounted = document(), document()
    counted["status"], uncounted["status"] = {count: 1}, {count: 0}

    assert view(counted).pods
    assert not view(uncounted).pods


def test_suspension_and_time_to_live_are_read() -> None:
    job = document()
    job["spec"] |= {"suspend": True, "ttlSecondsAfterFinished": 0}

    assert (view(job).suspended, view(job).ttl) == (True, 0)


class TestWhoseItIs:
    def test_without_a_controller_it_is_nobodys(self) -> None:
        assert view(without(document(), "metadata", "ownerReferences")).owner is None

    def test_an_owner_that_does_not_control_it_is_none(self) -> None:
        job = document()
        job["metadata"]["ownerReferences"][0]["controller"] = False

        assert view(job).owner is None

    def test_the_label_alone_makes_it_nobodys(self) -> None:
        job = document()
        job["metadata"]["ownerReferences"][0]["uid"] = "another"

        assert (view(job).owner, view(job).labelled_owner) == ("another", "uid-1")

    @pytest.mark.parametrize(("field", "value"), [("name", "copy"), ("labels", {LAUNCH: "other"})])
    def test_a_copy_that_kept_its_controller_is_nobodys(self, field: str, value: Any) -> None:
        job = document()
        job["metadata"][field] = value

        assert view(job).owner is None

    @pytest.mark.parametrize(("field", "value"), [("kind", "Job"), ("apiVersion", "batch/v1")])
    def test_what_another_kind_controls_is_nobodys(self, field: str, value: str) -> None:
        job = document()
        job["metadata"]["ownerReferences"][0][field] = value

        assert view(job).owner is None

    def test_without_a_launch_it_is_nobodys(self) -> None:
        job = without(document(), "metadata", "labels", LAUNCH)
        job["metadata"]["name"] = job_name("pdf-pages", "")

        assert view(job).owner is None

    def test_a_job_without_any_label_or_annotation_is_read_all_the_same(self) -> None:
        bare = without(without(document(), "metadata", "labels"), "metadata", "annotations")
        bare = {**without(bare, "status"), "spec": None}

        job = view(bare)

        assert (job.label, job.launch, job.owner, job.labelled_owner) == ("", "", None, "")


class TestWhatAPersonMayHaveWritten:
    """A key or an attempt that no ledger takes would keep all others from being written."""

    @pytest.mark.parametrize("attempt", ["", "0", "-1", "x", "1.5", "9999", "1" * 5000])
    def test_an_attempt_that_is_none_is_the_first(self, attempt: str) -> None:
        assert view(annotated(**{ATTEMPT: attempt})).attempt == 1

    def test_a_key_that_is_missing_is_the_launch(self) -> None:
        assert view(without(document(), "metadata", "annotations", KEY)).key == "id-[7]"
        assert view(annotated(**{KEY: ""})).key == "id-[7]"

    def test_a_key_that_is_too_long_is_cut(self) -> None:
        assert len(view(annotated(**{KEY: "x" * 9999})).key) == MAX_KEY_BYTES

    @pytest.mark.parametrize("time", ["0000-01-01T00:00:00Z", "2026-01-01T00:00:00+99:99"])
    def test_an_end_at_no_time_was_at_its_creation(self, time: str) -> None:
        ended = {"type": "Complete", "status": "True", "lastTransitionTime": time}

        job = view(document(conditions=[ended]))

        assert (job.end, job.changed) == ("Complete", job.created)

    def test_a_scannerjobs_name_that_is_missing_is_the_label(self) -> None:
        job = without(document(), "metadata", "annotations")

        assert view(job).scannerjob == job["metadata"]["labels"][NAME]
        assert view(job).labelled_owner == job["metadata"]["labels"][UID]


class TestVersions:
    def test_tell_which_state_is_the_later_one(self) -> None:
        older, newer = seen_job(version=9), seen_job(version=10)

        assert newer.is_newer_than(older)
        assert newer.is_newer_than(newer)
        assert not older.is_newer_than(newer)

    def test_tell_a_later_job_of_the_same_name_too(self) -> None:
        before, again = document(version=9), document(version=12)
        again["metadata"]["uid"] = "again"

        assert view(again).is_newer_than(view(before))
        assert not view(before).is_newer_than(view(again))

    def test_that_cannot_be_compared_leave_the_last_word_to_whoever_speaks_last(self) -> None:
        job = document()
        job["metadata"]["resourceVersion"] = "opaque"

        assert view(job).is_newer_than(seen_job(version=10))
        assert seen_job(version=10).is_newer_than(view(job))
