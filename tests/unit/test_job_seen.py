"""What is remembered of the Jobs that were seen."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

import pytest

from scannerjob.ports import Ref, Snapshot
from scannerjob.targets.job import JobTargets, seen
from scannerjob.targets.job.seen import SeenJobs
from scannerjob.targets.job.view import JobView, view
from tests.unit.cases import ago, spec
from tests.unit.job_cases import Watch, condition, document, ended_job, job_spec, seen_job

PLACE = ("docs", "pdf-pages")


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    watch = Watch()
    monkeypatch.setattr(seen, "time", watch)
    return watch


@pytest.fixture
def jobs(watch: Watch) -> SeenJobs:
    return SeenJobs()


def again(job: JobView, version: int) -> JobView:
    """Another Job of the same name, made after that one was deleted."""
    made = document(job.key, version)
    made["metadata"]["uid"] = "again"
    return view(made)


def test_a_job_is_found_where_its_scannerjob_is(jobs: SeenJobs) -> None:
    assert jobs.put(seen_job()) is None
    assert jobs.of(PLACE) == [seen_job()]
    assert jobs.of(("other", "pdf-pages")) == []


def test_an_older_state_changes_nothing(jobs: SeenJobs) -> None:
    old, new = seen_job(version=9), ended_job("[7]", version=10)

    jobs.put(new)
    jobs.put(old)

    assert jobs.of(PLACE) == [new]


def test_a_newer_state_takes_its_place_and_the_old_one_is_given(jobs: SeenJobs) -> None:
    old, new = seen_job(version=9), ended_job("[7]", version=10)
    jobs.put(old)

    assert jobs.put(new) == old
    assert jobs.of(PLACE) == [new]


def test_what_is_told_late_of_an_earlier_job_of_the_name_changes_nothing(jobs: SeenJobs) -> None:
    first = ended_job("[7]", version=9)
    second = again(first, 12)
    jobs.put(second)

    jobs.put(first)
    jobs.drop(first)

    assert jobs.of(PLACE) == [second]


def test_one_that_was_deleted_is_gone(jobs: SeenJobs) -> None:
    jobs.put(seen_job("a"))
    jobs.put(seen_job("b"))

    jobs.drop(seen_job("a"))
    jobs.drop(seen_job("a"))

    assert jobs.of(PLACE) == [seen_job("b")]


class TestAList:
    def test_shows_what_was_not_known_and_what_is_gone(self, jobs: SeenJobs, watch: Watch) -> None:
        jobs.put(seen_job("gone"))
        watch.now += 1

        jobs.listed(PLACE, [seen_job("new")], watch.now)

        assert jobs.of(PLACE) == [seen_job("new")]

    def test_cannot_lack_what_was_made_after_it_began(self, jobs: SeenJobs, watch: Watch) -> None:
        began = watch.now
        watch.now += 1
        jobs.put(seen_job("made meanwhile"))

        jobs.listed(PLACE, [], began)

        assert jobs.of(PLACE) == [seen_job("made meanwhile")]

    def test_does_not_take_back_what_the_watch_told_since(
        self, jobs: SeenJobs, watch: Watch
    ) -> None:
        new = ended_job("[7]", version=10)
        jobs.put(new)

        jobs.listed(PLACE, [seen_job(version=9)], watch.now)

        assert jobs.of(PLACE) == [new]

    def test_tells_nothing_of_other_places(self, jobs: SeenJobs, watch: Watch) -> None:
        jobs.put(seen_job())
        watch.now += 1

        jobs.listed(("docs", "other"), [], watch.now)

        assert jobs.of(PLACE) == [seen_job()]


class TestAnEnding:
    def test_lasts_since_it_was_first_seen(self, jobs: SeenJobs, watch: Watch) -> None:
        jobs.put(seen_job(version=1, terminating=1))
        watch.now += 40
        jobs.put(ending := seen_job(version=2, terminating=1, failed=1))
        watch.now += 2

        assert jobs.ending_for(ending) == timedelta(seconds=42)

    def test_is_over_when_it_has_ended_or_goes_on(self, jobs: SeenJobs, watch: Watch) -> None:
        jobs.put(seen_job(version=1, terminating=1))
        watch.now += 40
        jobs.put(running := seen_job(version=2, active=1))
        assert jobs.ending_for(running) == timedelta(0)

        jobs.put(again := seen_job(version=3, terminating=1))
        assert jobs.ending_for(again) == timedelta(0)

    def test_of_one_job_is_not_that_of_the_next(self, jobs: SeenJobs, watch: Watch) -> None:
        first = seen_job(version=1, terminating=1)
        jobs.put(first)
        watch.now += 40
        made = document(version=5, terminating=1)
        made["metadata"]["uid"] = "again"
        jobs.put(view(made))

        assert jobs.ending_for(view(made)) == timedelta(0)

    def test_of_one_that_is_not_known_has_not_begun(self, jobs: SeenJobs) -> None:
        assert jobs.ending_for(seen_job(terminating=1)) == timedelta(0)


class TestAnEnd:
    def test_is_as_old_as_it_is_known_whatever_its_date(self, jobs: SeenJobs, watch: Watch) -> None:
        jobs.put(seen_job(version=1, active=1))
        watch.now += 40
        jobs.put(ended_job("[7]", version=2, since=ago(9999)))
        watch.now += 2
        jobs.put(touched := ended_job("[7]", version=3, since=ago(9999)))
        watch.now += 3

        assert jobs.ended_for(touched) == timedelta(seconds=5)

    def test_of_one_job_is_not_that_of_the_next(self, jobs: SeenJobs, watch: Watch) -> None:
        first = ended_job("[7]")
        jobs.put(first)
        watch.now += 40
        jobs.put(second := again(first, 2))

        assert jobs.ended_for(second) == timedelta(0)

    def test_of_one_that_is_not_known_has_not_come(self, jobs: SeenJobs) -> None:
        assert jobs.ended_for(ended_job("[7]")) == timedelta(0)


class TestWhatIsRemembered:
    def test_lasts_as_long_as_the_job(self, jobs: SeenJobs) -> None:
        job = ended_job("[7]", "Failed")
        jobs.put(job)
        jobs.note_cause(job, "exit code 1")
        jobs.count([job])
        assert (jobs.cause(job), jobs.is_counted(job)) == ("exit code 1", True)

        jobs.drop(job)

        assert (jobs.cause(job), jobs.is_counted(job)) == (None, False)

    def test_does_not_outlast_one_that_another_took_the_place_of(self, jobs: SeenJobs) -> None:
        job = ended_job("[7]", "Failed")
        jobs.put(job)
        jobs.note_cause(job, "exit code 1")
        jobs.count([job])

        jobs.put(again(job, 2))

        assert (jobs.cause(job), jobs.is_counted(job)) == (None, False)

    def test_is_nothing_of_one_that_went_while_it_was_asked_for(self, jobs: SeenJobs) -> None:
        job = ended_job("[7]", "Failed")

        jobs.note_cause(job, "exit code 1")

        assert jobs.cause(job) is None


class TestWhatTheWatchTells:
    @pytest.fixture
    def targets(self) -> JobTargets:
        return JobTargets(cast(Any, None))

    def test_of_an_end_wakes_its_scannerjob_once(self, targets: JobTargets) -> None:
        done = document(version=2, conditions=[condition("Complete")])

        assert targets.seen("ADDED", document(version=1)) is None
        assert targets.seen("MODIFIED", document(version=1, active=1)) is None
        assert targets.seen("MODIFIED", done) == Ref("docs", "pdf-pages")
        assert targets.seen("MODIFIED", {**done}) is None
        assert targets.seen("MODIFIED", document(version=1)) is None

    def test_of_one_that_had_ended_before_it_began_wakes_too(self, targets: JobTargets) -> None:
        done = document(version=2, conditions=[condition("Failed")])

        assert targets.seen(None, done) == Ref("docs", "pdf-pages")

    def test_of_a_deletion_wakes(self, targets: JobTargets) -> None:
        assert targets.seen("DELETED", document()) == Ref("docs", "pdf-pages")

    def test_only_a_scannerjob_that_launches_jobs_has_a_target(self, targets: JobTargets) -> None:
        snapshot = Snapshot(Ref("docs", "pdf-pages"), "uid-1", 1, {}, {}, "1")

        target = targets.open(snapshot, job_spec())

        assert target.traits.tells_outcomes
        assert target.traits.sees_all
        assert list(target.endpoints) == ["kubernetes"]
        with pytest.raises(ValueError, match="no Jobs"):
            targets.open(snapshot, spec())
