"""The Job that a row becomes."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scannerjob.model.row import UnusableRow
from scannerjob.ports import TargetError
from scannerjob.targets.job.manifest import Owner, manifest, specimen, ttl_seconds
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
from tests.unit.cases import spec
from tests.unit.job_cases import CONTAINER, OWNER, job_spec, made, send, template

LABELS = {NAME: "pdf-pages", UID: "uid-1", LAUNCH: "id-[7]"}
_PART = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(_PART, min_size=1, max_size=30).map(
    lambda parts: ".".join(parts)[:253].strip("-.")
)
_LABEL = re.compile(r"[a-z0-9A-Z]([-._a-zA-Z0-9]*[a-zA-Z0-9])?")
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def containers(job: dict[str, Any], field: str = "containers") -> Any:
    return job["spec"]["template"]["spec"][field]


def env(container: dict[str, Any]) -> list[tuple[str, str]]:
    return [(each["name"], each["value"]) for each in container["env"]]


class TestNames:
    @given(NAMES.filter(bool), st.uuids().map(str))
    def test_are_ones_that_a_job_and_its_pods_can_have(self, scannerjob: str, launch: str) -> None:
        name = job_name(scannerjob, launch)
        assert len(name) <= 63
        assert _DNS_LABEL.fullmatch(name)

    @given(NAMES.filter(bool))
    def test_of_scannerjobs_become_labels(self, scannerjob: str) -> None:
        label = label_value(scannerjob)
        assert len(label) <= 63
        assert _LABEL.fullmatch(label)
        assert label == scannerjob or len(scannerjob) > 63

    @given(st.uuids().map(str), st.uuids().map(str))
    def test_tell_launches_apart_and_every_send_of_one_has_the_same(
        self, one: str, other: str
    ) -> None:
        assert job_name("pages", one) == job_name("pages", one)
        assert one == other or job_name("pages", one) != job_name("pages", other)

    def test_of_253_characters_with_dots_are_told_apart(self) -> None:
        one, other = "pages.of." * 28 + "a", "pages.of." * 28 + "b"
        assert len(one) == 253
        assert len(job_name(one, "id")) == 63
        assert job_name("a.b", "id").startswith("a-b-")
        assert label_value(one) != label_value(other)

    def test_are_those_of_their_scannerjob(self) -> None:
        assert made()["metadata"]["name"] == job_name("pdf-pages", "id-[7]")
        assert made()["metadata"]["namespace"] == "docs"


class TestWhatJobsAreFoundBy:
    def test_a_job_and_its_pods_carry_the_labels(self) -> None:
        job = made({"metadata": {"labels": {"team": "docs"}}, **template()})

        assert job["metadata"]["labels"] == {"team": "docs", **LABELS}
        assert job["spec"]["template"]["metadata"]["labels"] == LABELS

    def test_the_row_and_the_attempt_stand_in_annotations(self) -> None:
        written = {"metadata": {"annotations": {"team": "docs"}}, **template()}

        job = manifest(OWNER, job_spec(written), send("[7]", attempt=3))

        assert job["metadata"]["annotations"] == {
            "team": "docs",
            SCANNERJOB: "pdf-pages",
            KEY: "[7]",
            ATTEMPT: "3",
        }

    def test_its_scannerjob_controls_it(self) -> None:
        (reference,) = made()["metadata"]["ownerReferences"]

        assert reference == {
            "apiVersion": "scannerjob.dev/v1alpha1",
            "kind": "ScannerJob",
            "name": "pdf-pages",
            "uid": "uid-1",
            "controller": True,
            "blockOwnerDeletion": True,
        }

    def test_a_long_name_stands_whole_in_the_annotation(self) -> None:
        name = "pages.of." * 28 + "a"

        job = manifest(Owner("docs", name, "uid-1"), job_spec(), send())

        assert job["metadata"]["annotations"][SCANNERJOB] == name
        assert job["metadata"]["labels"][NAME] == label_value(name)

    def test_nothing_of_it_can_be_taken_over_by_the_template(self) -> None:
        metadata = {
            "name": "mine",
            "namespace": "kube-system",
            "labels": {LAUNCH: "other"},
            "annotations": {KEY: "other"},
            "ownerReferences": [{"uid": "other", "controller": True}],
        }

        job = made({"metadata": metadata, **template()})

        assert job["metadata"] == made()["metadata"]


class TestDefaults:
    def test_one_job_is_one_attempt_unless_its_author_says_otherwise(self) -> None:
        given, kept = made(), made(template(backoffLimit=2, podReplacementPolicy="Any"))

        assert given["spec"]["backoffLimit"] == 0
        assert given["spec"]["podReplacementPolicy"] == "Failed"
        assert given["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert (kept["spec"]["backoffLimit"], kept["spec"]["podReplacementPolicy"]) == (2, "Any")

    def test_a_limit_for_each_index_is_not_undone_by_one_for_all(self) -> None:
        assert "backoffLimit" not in made(template(backoffLimitPerIndex=1))["spec"]

    @pytest.mark.parametrize("field", ["backoffLimit", "podReplacementPolicy"])
    def test_null_says_nothing(self, field: str) -> None:
        assert made(template(**{field: None}))["spec"] == made()["spec"]

    @pytest.mark.parametrize(("deadline", "seconds"), [("1h", 3600), ("1500ms", 2)])
    def test_a_deadline_becomes_the_jobs_own(self, deadline: str, seconds: int) -> None:
        job = manifest(OWNER, job_spec(deadline=deadline), send())

        assert job["spec"]["activeDeadlineSeconds"] == seconds

    def test_a_deadline_in_the_template_is_kept(self) -> None:
        written = job_spec(template(activeDeadlineSeconds=5), deadline="1h")

        assert manifest(OWNER, written, send())["spec"]["activeDeadlineSeconds"] == 5

    def test_no_job_goes_before_its_end_was_counted(self) -> None:
        written = job_spec(template(ttlSecondsAfterFinished=60))

        assert "ttlSecondsAfterFinished" not in manifest(OWNER, written, send())["spec"]
        assert specimen(OWNER, written)["spec"]["ttlSecondsAfterFinished"] == 60
        assert ttl_seconds(written) == 60

    @pytest.mark.parametrize("a_spec", [job_spec(), job_spec({}), job_spec({"spec": 1}), spec()])
    def test_without_a_time_to_live_there_is_none(self, a_spec: Any) -> None:
        assert ttl_seconds(a_spec) is None

    def test_what_queues_need_passes_through(self) -> None:
        labels = {"kueue.x-k8s.io/queue-name": "batch"}

        job = made({"metadata": {"labels": labels}, **template(suspend=True)})

        assert job["spec"]["suspend"] is True
        assert job["metadata"]["labels"].items() >= labels.items()


class TestTheRow:
    def test_stands_in_the_environment_of_all_containers_before_their_own(self) -> None:
        own = {"name": "URL", "value": "http://pdf/$(PDF_ID)"}
        written = template({**CONTAINER, "env": [own]}, {"name": "other"})
        written["spec"]["template"]["spec"]["initContainers"] = [{"name": "first", "env": None}]

        job = made(written, pdf_id=7, title="a $(PDF_ID) for $5")

        row = [("PDF_ID", "7"), ("TITLE", "a $$(PDF_ID) for $$5")]
        main, other = containers(job)
        assert env(main) == [*row, ("URL", "http://pdf/$(PDF_ID)")]
        assert env(other) == row
        assert [env(each) for each in containers(job, "initContainers")] == [row]

    def test_that_no_environment_can_hold_is_unusable(self) -> None:
        with pytest.raises(UnusableRow, match=r"column title: .* NUL"):
            made(title="a\0b")

    def test_changes_nothing_of_the_template(self) -> None:
        written = template({**CONTAINER, "env": [{"name": "A", "value": "b"}]})
        a_spec = job_spec(deepcopy(written))

        first = manifest(OWNER, a_spec, send(pdf_id=7))

        assert a_spec.job is not None
        assert a_spec.job.template == written
        assert manifest(OWNER, a_spec, send(pdf_id=7)) == first

    def test_is_not_in_the_specimen(self) -> None:
        job = specimen(OWNER, job_spec())

        assert containers(job)[0]["env"] == []
        assert KEY not in job["metadata"]["annotations"]


class TestUnusualTemplates:
    """The API server refuses by their path what is not written as it must be."""

    @pytest.mark.parametrize(
        "written",
        [
            {},
            {"metadata": None, "spec": None},
            {"spec": {"template": None}},
            {"spec": {"template": {"metadata": None, "spec": {"containers": None}}}},
            {"metadata": {"labels": None, "annotations": None}},
            template({**CONTAINER, "env": None}),
        ],
    )
    def test_parts_that_are_not_there_are_made(self, written: dict[str, Any]) -> None:
        job = made(written, pdf_id=7)

        assert job["metadata"]["labels"] == LABELS
        assert job["spec"]["template"]["metadata"]["labels"] == LABELS
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"

    @pytest.mark.parametrize(
        "written",
        [
            {"metadata": {"labels": 1}, **template()},
            {"metadata": {"annotations": ["a"]}, **template()},
            {"spec": "a"},
            {"spec": {"template": [1]}},
            {"spec": {"template": {"metadata": "a", "spec": {"containers": "a"}}}},
            {"spec": {"template": {"metadata": {"labels": []}, "spec": {"containers": ["a"]}}}},
            template({**CONTAINER, "env": 5}),
            template({**CONTAINER, "env": {"A": "b"}}),
        ],
    )
    def test_parts_of_another_kind_are_left_as_they_are(self, written: dict[str, Any]) -> None:
        def kept(before: Any, after: Any) -> bool:
            if isinstance(before, dict):
                return isinstance(after, dict) and all(
                    kept(before[name], after[name]) for name in before
                )
            if isinstance(before, list):
                return isinstance(after, list) and all(map(kept, before, after))
            return bool(before == after)

        job = made(deepcopy(written), pdf_id=7)

        assert job["metadata"]["name"] == job_name("pdf-pages", "id-[7]")
        assert kept(written, job)

    def test_a_template_copied_from_a_job_can_be_created(self) -> None:
        job = made({"metadata": {"resourceVersion": "1"}, **template()})

        assert "resourceVersion" not in job["metadata"]

    @pytest.mark.parametrize("metadata", ["a", ["a"], 1, False])
    def test_metadata_that_can_hold_no_name_are_named(self, metadata: Any) -> None:
        a_spec = job_spec({"metadata": metadata, **template()})

        with pytest.raises(TargetError, match=r"spec\.job\.template\.metadata") as error:
            specimen(OWNER, a_spec)
        assert error.value.reason == "InvalidTemplate"
        with pytest.raises(TargetError):
            manifest(OWNER, a_spec, send())
