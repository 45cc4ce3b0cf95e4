"""Records in a guard's store that no worker wrote: each concerns its own launch alone.

Who may write the store may say of the launches in it that they have ended, or that they run. He
frees no slot of another, stops no other launch, and ends no process.
"""

import pickle
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis
from sqlalchemy import create_engine, text

from scannerjob.model.facts import Fact
from scannerjob.targets.celery.lapses import Lapses
from scannerjob.worker.records import Execution, Reading, Record, State, Store
from scannerjob.worker.redis_store import ENDED_CHANNEL, record_key
from scannerjob.worker.stores import open_store
from tests.security.test_forged_results import Bomb
from tests.support.site import Site
from tests.support.waiting import eventually

YEAR_3000 = 32503680000000
GARBAGE = ["done ", "DONE", "\x80\x04.", "", "running'; DROP TABLE x", "x" * 20_000]


@pytest.fixture
def client(redis_url: str) -> redis.Redis:
    return redis.Redis.from_url(redis_url)


@pytest.fixture
def in_redis(redis_url: str) -> Iterator[Store]:
    with closing(open_store(redis_url)) as store:
        yield store


def told(store: Store, launch: str) -> Record | None:
    return store.read([launch]).records.get(launch)


def is_held(store: Store, launch: str) -> bool:
    """Whether it is taken for one that runs, and nobody may begin or end it, or give it up."""
    execution = Execution(launch, 0, "another")
    record = told(store, launch)
    return (
        record is not None
        and record.state is State.RUNNING
        and not store.claim(execution, 15.0)
        and not store.finish(execution, State.DONE)
        and store.renew([execution], 15.0) == {launch}
        and store.supersede([launch])[launch].state is State.RUNNING
    )


@pytest.mark.parametrize("state", [each for each in GARBAGE if each])
def test_a_state_that_is_none_is_held(client: redis.Redis, in_redis: Store, state: str) -> None:
    client.hset(record_key("forged"), mapping={"state": state, "until": "0", "owner": "him"})

    assert is_held(in_redis, "forged")
    assert told(in_redis, "good") is None


@pytest.mark.parametrize("field", ["retries", "until"])
@pytest.mark.parametrize("value", ["1e999", "9" * 5000, "nan", "\xff", "0x10 ", "[1]"])
def test_a_number_that_is_none_concerns_its_own_launch_alone(
    client: redis.Redis, in_redis: Store, field: str, value: str
) -> None:
    in_redis.register(["good"])
    client.hset(record_key("forged"), mapping={"state": "running", "owner": "him", field: value})

    reading = in_redis.read(["good", "forged"])

    assert reading.records["good"].state is State.QUEUED
    assert reading.records["forged"].state is State.RUNNING


def test_keys_that_are_no_records_are_held(client: redis.Redis, in_redis: Store) -> None:
    client.set(record_key("text"), "done")
    client.rpush(record_key("list"), "state", "done")
    client.sadd(record_key("set"), "done")
    client.zadd(record_key("scores"), {"done": 1})
    client.xadd(record_key("stream"), {"state": "done"})

    for each in ("text", "list", "set", "scores", "stream"):
        assert is_held(in_redis, each), each
    in_redis.register(["good"])
    assert in_redis.supersede(["good", "text"])["good"].state is State.SUPERSEDED


def test_fields_of_any_size_are_read_no_further_than_they_are_ever_written(
    client: redis.Redis, in_redis: Store
) -> None:
    huge = "x" * (16 * 1024 * 1024)
    client.hset(record_key("forged"), mapping={"state": "failed", "reason": huge, "was": huge})
    client.hset(record_key("huge"), mapping={"state": huge, "owner": huge, "until": huge})
    sent = client.info("stats")["total_net_output_bytes"]

    assert in_redis.read(["forged", "huge"]).records["huge"].state is State.RUNNING
    assert client.info("stats")["total_net_output_bytes"] - sent < 1024 * 1024
    client.flushdb()


def test_a_pickle_is_never_unpickled(client: redis.Redis, in_redis: Store, tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "owned"))
    client.hset(record_key("forged"), mapping={"state": bomb, "owner": bomb, "reason": bomb})

    assert is_held(in_redis, "forged")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("url", ["postgres_url", "mariadb_url", "sqlite_url"])
def test_a_row_that_is_no_record_is_held(url: str, request: pytest.FixtureRequest) -> None:
    place = request.getfixturevalue(url)
    engine = create_engine(place, isolation_level="AUTOCOMMIT")
    with closing(open_store(place)) as store:
        store.register(["good", "forged", "long"])
        with engine.connect() as connection:
            connection.execute(
                text("UPDATE scannerjob_launch SET state = 'DONE', retries = -5 WHERE id='forged'")
            )
            connection.execute(
                text("UPDATE scannerjob_launch SET reason = :reason WHERE id = 'long'"),
                {"reason": "x" * 60_000},
            )
        engine.dispose()

        assert is_held(store, "forged")
        records = store.read(["good", "forged", "long"]).records
        assert records["good"].state is State.QUEUED
        assert len(records["long"].reason) == 1000


def test_no_lease_that_cannot_be_read_or_lies_far_ahead_ever_lapses() -> None:
    view = Lapses().view()
    forged = {
        "far": Record(State.RUNNING, owner="him", until=YEAR_3000 / 1000),
        "unreadable": Record(State.RUNNING),
    }
    for second in range(0, 4000, 5):
        seen = view.note(Reading("one", float(second), forged), list(forged), float(second))

        assert {each.fact for each in seen.values()} == {Fact.RUNNING}


@pytest.mark.timeout(300)
def test_forged_records_hold_their_own_slots_and_end_no_process(
    tmp_path: Path, postgres_url: str, redis_url: str, client: redis.Redis
) -> None:
    """No worker is there, so that nothing but the forger moves."""
    with closing(Site(tmp_path, postgres_url)) as site:
        site.put_secret("app-broker", redis_url)
        guard = {"urlSecretRef": {"name": "app-broker", "key": "url"}}
        site.add_rows(1, 8)
        file = site.scanner_job(concurrency=7, celery__guard=guard)
        with site.scanner(file) as scanner:
            items = eventually(partial(launched, site, range(1, 8)), timeout=60)
            done, *others = (str(items[row]) for row in range(1, 8))
            forge(client, others)
            for _ in range(20):
                for hint in (done, *others, "x" * 100_000, "\xff\x00", "{}"):
                    client.publish(ENDED_CHANNEL, hint)
            client.hset(record_key(done), mapping={"state": "done"})
            client.publish(ENDED_CHANNEL, done)

            # The one that was said to be done has given its slot to the next row.
            after = eventually(partial(launched, site, range(2, 9)), timeout=60)

            assert {after[row] for row in range(2, 8)} == set(others)
            assert scanner.running
        assert site.snapshot().status["succeeded"] == 1
        assert [site.snapshot().status.get(each, 0) for each in ("failed", "lost")] == [0, 0]
        assert "a bug" not in site.logs()


def forge(client: redis.Redis, launches: list[str]) -> None:
    """Six kinds of records, for as many launches."""
    far, negative, owned, garbage, empty, text = launches
    client.hset(record_key(far), mapping={"state": "running", "until": YEAR_3000, "owner": "him"})
    client.hset(record_key(negative), mapping={"state": "retrying", "retries": -7, "until": -1})
    client.hset(record_key(owned), mapping={"state": "running", "owner": "x" * 10_000, "until": -1})
    client.hset(record_key(garbage), mapping={"state": "gone", "reason": "\x1b[2J"})
    client.hset(record_key(empty), mapping={"state": "running", "until": "", "retries": "many"})
    client.delete(record_key(text))
    client.set(record_key(text), "done")


def launched(site: Site, rows: range) -> dict[int, str]:
    """The launches that are out, by row, once they are those of these rows."""
    out = {
        int(item["key"].strip("[]")): item["id"]
        for item in site.items()
        if item["phase"] == "Launched"
    }
    return out if out.keys() == set(rows) else {}
