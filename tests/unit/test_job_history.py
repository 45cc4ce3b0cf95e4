"""Which Jobs are removed, and which are kept."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scannerjob.model.spec import JobTarget
from scannerjob.targets.job import seen
from scannerjob.targets.job.history import ended, removable, surplus
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.view import JobView
from tests.unit.cases import ago
from tests.unit.job_cases import Watch, ended_job, job_spec, seen_job


def keys(jobs: Iterable[JobView]) -> list[str]:
    return [job.key for job in jobs]


def limits(successful: int = 3, failed: int = 1) -> JobTarget:
    job = job_spec(successfulJobsHistoryLimit=successful, failedJobsHistoryLimit=failed).job
    assert job is not None
    return job


def test_only_what_ended_and_holds_no_slot_is_settled() -> None:
    jobs = [seen_job("runs"), ended_job("uncounted"), ended_job("done"), ended_job("bad", "Failed")]

    assert keys(ended(jobs, ["id-runs", "id-uncounted"])) == ["done", "bad"]


class TestANameStands:
    def test_while_a_late_create_may_stumble_over_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(seen, "time", watch := Watch())
        jobs = SeenJobs()
        jobs.put(old := ended_job("old"))
        watch.now += 1
        jobs.put(young := ended_job("young", since=ago(9999)))
        watch.now += 1260

        assert keys(removable([young, old], jobs)) == ["old"]

    def test_no_longer_than_its_end_is_counted_where_it_was_sent_once(self) -> None:
        counted, other = ended_job("counted"), ended_job("not")
        jobs = SeenJobs()
        jobs.count([counted])

        assert keys(removable([counted, other], jobs)) == ["counted"]


class TestTheLimits:
    def test_keep_the_last_ones_to_end_of_either_outcome(self) -> None:
        good = [ended_job(f"good-{age}", since=ago(age)) for age in (5, 1, 9, 3)]
        bad = [ended_job(f"bad-{age}", "Failed", since=ago(age)) for age in (2, 8)]

        assert keys(surplus([*good, *bad], limits(successful=2))) == ["good-5", "good-9", "bad-8"]

    def test_of_zero_keep_none(self) -> None:
        assert keys(surplus([ended_job("a"), ended_job("b", "Failed")], limits(0, 0))) == ["a", "b"]

    def test_have_defaults_as_a_cronjob_has_them(self) -> None:
        job = job_spec().job
        assert job is not None
        assert (job.successful_jobs_history_limit, job.failed_jobs_history_limit) == (3, 1)

    @given(
        st.lists(st.tuples(st.sampled_from(["Complete", "Failed"]), st.integers(0, 5)), max_size=9),
        st.integers(0, 4),
        st.integers(0, 4),
    )
    def test_are_never_undercut_and_never_exceeded(
        self, ends: list[tuple[str, int]], successful: int, failed: int
    ) -> None:
        jobs = [ended_job(f"{n}", end, since=ago(age)) for n, (end, age) in enumerate(ends)]

        gone = set(keys(surplus(jobs, limits(successful, failed))))

        for end, limit in (("Complete", successful), ("Failed", failed)):
            those = [job for job in jobs if job.end == end]
            kept = [job for job in those if job.key not in gone]
            assert len(kept) == min(limit, len(those))
            removed = [job.changed for job in those if job.key in gone]
            assert all(job.changed >= max(removed, default=job.changed) for job in kept)
