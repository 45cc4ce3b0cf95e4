"""Since when no worker was seen, by what a queue shows from look to look."""

from datetime import datetime, timedelta

from scannerjob.model.facts import Backlog
from scannerjob.model.ledger import Ledger, Phase
from scannerjob.workerwatch import WorkerWatch
from tests.unit.cases import NOW, ago, item, ledger

OUT = ledger(item("1", since=ago(300)), item("2", since=ago(100)))


def watch(*looks: tuple[Backlog | None, Ledger], every: float = 10) -> WorkerWatch:
    """A watch after these looks, the first of them NOW."""
    watch = WorkerWatch()
    for number, (backlog, then) in enumerate(looks):
        watch.note(backlog, then, NOW + timedelta(seconds=number * every))
    return watch


def unseen_since(*looks: tuple[Backlog | None, Ledger]) -> datetime | None:
    seen = watch(*looks).seen
    assert seen is not None
    assert seen.queue == "celery"
    return seen.unseen_since


def rabbit(consumers: int, waiting: int = 2) -> Backlog:
    return Backlog("celery", waiting, consumers)


def redis(waiting: int) -> Backlog:
    return Backlog("celery", waiting)


def test_nothing_is_said_before_the_queue_was_seen() -> None:
    assert watch().seen is None
    assert watch((None, OUT)).seen is None


def test_consumers_are_workers() -> None:
    assert unseen_since((rabbit(1), OUT)) is None
    assert unseen_since((rabbit(0), OUT)) == ago(300)


def test_who_has_seen_some_says_when_they_went() -> None:
    looks = [(rabbit(1), OUT), (rabbit(0), OUT), (rabbit(0), OUT)]

    assert unseen_since(*looks) == NOW + timedelta(seconds=10)
    assert unseen_since(*looks, (rabbit(2), OUT)) is None


def test_who_has_just_begun_to_look_goes_by_the_ledger() -> None:
    settled = ledger(*OUT.items, last_settled=ago(50))

    assert unseen_since((redis(2), OUT)) == ago(300)
    assert unseen_since((redis(2), settled)) == ago(50)


def test_what_is_taken_or_ends_shows_a_worker_where_nobody_counts_them() -> None:
    assert unseen_since((redis(0), OUT)) is None
    assert unseen_since((redis(2), OUT), (redis(1), OUT)) is None
    assert unseen_since((redis(2), OUT), (redis(2), OUT)) == ago(300)
    ended = ledger(*OUT.items, last_settled=NOW + timedelta(seconds=5))
    assert unseen_since((redis(2), OUT), (redis(2), ended)) is None


def test_it_goes_on_while_lives_end_and_the_same_rows_are_launched_anew() -> None:
    resting = ledger(item("1", Phase.WAITING, reason="NeverStarted"))
    again = ledger(item("1", since=NOW + timedelta(seconds=20)))

    assert unseen_since((redis(2), OUT), (redis(2), resting), (redis(3), again)) == ago(300)


def test_nobody_is_missed_where_nothing_is_launched() -> None:
    # A queue in which nothing of ours waits is not looked at.
    assert unseen_since((rabbit(0), OUT), (None, ledger(item("1", Phase.PARKED)))) is None
    seen = watch((None, ledger())).seen
    assert seen is not None
    assert seen.unseen_since is None


def test_what_could_not_be_seen_changes_nothing() -> None:
    assert unseen_since((rabbit(0), OUT), (None, OUT)) == ago(300)


def test_a_lease_shows_a_worker_though_nothing_is_taken() -> None:
    watch = WorkerWatch()
    watch.note(redis(2), OUT, NOW)
    watch.note(redis(2), OUT, NOW + timedelta(seconds=10), busy=True)
    assert watch.seen
    assert watch.seen.unseen_since is None

    watch.note(redis(2), OUT, NOW + timedelta(seconds=20))
    assert watch.seen.unseen_since == NOW + timedelta(seconds=20)
