"""The Celery target on real brokers, with real workers."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import base64
import contextlib
import gc
import json
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from scannerjob.model.facts import Fact, Observation, Send
from scannerjob.model.spec import ScannerJobSpec
from scannerjob.ports import TargetError
from scannerjob.targets.celery import Brokers, CeleryTarget
from tests.support.celery_target import (
    BlackHole,
    LossyProxy,
    celery_spec,
    facts,
    ids_of,
    make_send,
    make_sends,
    reasons,
    soon,
    watched_loop,
)
from tests.support.celery_worker import CeleryWorker
from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.servers import PostgresServer, RedisServer
from tests.support.waiting import eventually

ACCEPTED, NOT_SENT, UNCERTAIN = {Fact.ACCEPTED}, {Fact.NOT_SENT}, {Fact.UNCERTAIN}
RECORDS = timedelta(hours=23)

WORKER = """
import json, os, time
from celery import Celery

app = Celery("docs", broker=os.environ["BROKER"], backend=os.environ.get("RESULTS"))
app.conf.worker_prefetch_multiplier = 1
app.conf.broker_connection_retry_on_startup = True

if os.environ["BROKER"].startswith("sqla"):
    from kombu.transport.sqlalchemy import Transport
    Transport.polling_interval = 0.05


@app.task(name="docs.tasks.record", bind=True)
def record(self, **kwargs):
    line = json.dumps({"id": self.request.id, "kwargs": kwargs, "limit": self.request.timelimit})
    with open(os.environ["OUT"], "a") as out:
        out.write(line + "\\n")
    if kwargs.get("fail"):
        raise ValueError(kwargs["fail"])
    time.sleep(kwargs.get("sleep", 0))
"""


@pytest.fixture
def target(redis_url: str) -> CeleryTarget:
    return opened(redis_url)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as client:
        yield client


@pytest.fixture(params=["redis", "sqlite", "postgres", "mariadb"])
def broker_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "redis":
            return str(request.getfixturevalue("redis_url"))
        case "sqlite":
            return f"sqla+sqlite:///{tmp_path / 'broker.sqlite'}"
        case _:
            return f"sqla+{request.getfixturevalue(request.param + '_url')}"


def opened(
    url: str, results: str | None = None, spec: ScannerJobSpec | None = None
) -> CeleryTarget:
    return Brokers().open(url, results, spec or celery_spec())


def launch(target: CeleryTarget, sends: Sequence[Send], seconds: float = 30) -> Any:
    return asyncio.run(target.launch(sends, soon(seconds)))


def at(url: str, place: str) -> str:
    """The same URL, leading elsewhere."""
    return f"redis://{place}/0"


class Worker:
    """A worker that writes down what it runs."""

    def __init__(self, folder: Path, broker: str, results: str | None = None) -> None:
        (folder / "docs.py").write_text(WORKER)
        self._out = folder / "out"
        env = {"BROKER": broker, "OUT": str(self._out)} | ({"RESULTS": results} if results else {})
        self.process = CeleryWorker(folder / "docs.py", env=env)

    def __enter__(self) -> "Worker":
        self.process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()

    def ran(self) -> list[dict[str, Any]]:
        if not self._out.exists():
            return []
        return [json.loads(line) for line in self._out.read_text().splitlines()]


# Ordinary days


def test_each_send_runs_once_with_its_row_as_keyword_arguments(
    broker_url: str, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"pdf_id": 1, "title": "Ünïcode ✓", "size": 1.5, "tags": ["a", {"b": None}], "ok": True},
        {"pdf_id": 2, "title": "quotes ' \" \\ %s {x} :noon"},
        *({"pdf_id": number} for number in range(3, 21)),
    ]
    sends = [make_send(row, expires_in=3600, time_limit=120) for row in rows]

    assert facts(launch(opened(broker_url), sends)) == ACCEPTED

    with Worker(tmp_path, broker_url) as worker:
        eventually(lambda: len(worker.ran()) >= len(sends), message="all tasks have run")
        ran = {each["id"]: each for each in worker.ran()}
    assert len(ran) == len(sends)
    for send in sends:
        assert ran[send.item.id]["kwargs"] == send.row.values
        assert ran[send.item.id]["limit"][0] == 120


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"queue": "pdf"},
        {"priority": 0},
        {"priority": 4},
        {"priority": 9},
        {"headers": {"tenant": "acme"}},
        {"queue": "pdf", "exchange": "docs", "routing_key": "pdf.new"},
    ],
)
@pytest.mark.parametrize("expires_in", [None, 3600])
def test_messages_are_what_a_celery_producer_writes(
    redis_url: str, client: redis.Redis, options: dict[str, Any], expires_in: float | None
) -> None:
    with Connection(redis_url) as connection:
        Queue("bound", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
    send = make_send({"pdf_id": 7, "title": "x"}, expires_in=expires_in, time_limit=5)
    app = Celery(broker=redis_url, set_as_current=False)
    with Connection(redis_url) as connection:
        app.send_task(
            "docs.tasks.record",
            kwargs=dict(send.row.values),
            task_id=send.item.id,
            expires=send.expires_at,
            time_limit=5,
            connection=connection,
            **options,
        )
    expected, names = drain(client), set(client.keys("_kombu*"))
    spec = {"routingKey" if k == "routing_key" else k: v for k, v in options.items()}

    assert facts(launch(opened(redis_url, spec=celery_spec(**spec)), [send])) == ACCEPTED

    assert drain(client) == expected
    assert len(expected) == 1
    assert set(client.keys("_kombu*")) == names


def drain(client: redis.Redis) -> dict[str, Any]:
    """All messages by queue, without what differs from message to message; removes them."""
    found = {}
    for key in client.keys("*"):
        if client.type(key) == "list":
            (message,) = (json.loads(each) for each in client.lrange(key, 0, -1))
            message["body"] = json.loads(base64.b64decode(message["body"]))
            for changing in ("delivery_tag", "reply_to", "expiration"):
                message["properties"].pop(changing, None)
            found[str(key)] = message
            client.delete(key)
    return found


def test_an_exchange_that_leads_nowhere_is_named_until_a_worker_declares_it(
    redis_url: str, client: redis.Redis
) -> None:
    target = opened(redis_url, spec=celery_spec(exchange="docs", routingKey="pdf.new"))

    async def scenario() -> None:
        sends = make_sends(2)
        seen = await target.launch(sends, soon())
        assert facts(seen) == NOT_SENT
        assert "exchange 'docs' with routing key 'pdf.new' leads to 0 queues" in reasons(seen)

        with Connection(redis_url) as connection:
            Queue("one", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
        assert facts(await target.launch(sends, soon())) == ACCEPTED
        assert client.llen("one") == 2

        with Connection(redis_url) as connection:
            Queue("two", Exchange("docs"), "pdf.new")(connection.default_channel).declare()
        seen = await target.launch(make_sends(2), soon())
        assert facts(seen) == NOT_SENT
        assert "leads to 2 queues" in reasons(seen)

    asyncio.run(scenario())


def test_a_task_that_no_worker_knows_is_accepted_and_stays_unknown(
    redis_url: str, tmp_path: Path
) -> None:
    target = opened(redis_url, redis_url, celery_spec(task="docs.tasks.no_such"))
    known = opened(redis_url, redis_url)
    unknown, after = make_sends(2), make_sends(1)

    with Worker(tmp_path, redis_url, redis_url) as worker:
        assert facts(launch(target, unknown)) == ACCEPTED
        launch(known, after)
        eventually(worker.ran, message="the worker goes on with what it knows")
        seen = asyncio.run(target.observe(ids_of(unknown)))

    assert facts(seen) <= {Fact.FAILED}
    assert [each["id"] for each in worker.ran()] == ids_of(after)


# Sending again


def test_sending_again_puts_no_second_message(target: CeleryTarget, client: redis.Redis) -> None:
    async def scenario() -> None:
        sends = make_sends(200)
        for _ in range(3):
            assert facts(await target.launch(sends, soon())) == ACCEPTED
        assert target.traits.resend_within == RECORDS

    asyncio.run(scenario())
    assert client.llen("celery") == 200


def test_sending_again_after_a_worker_took_the_message_puts_no_second_one(
    target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        sends = make_sends(5)
        await target.launch(sends, soon())
        client.delete("celery")
        assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 0


def test_a_record_outlives_the_time_in_which_a_launch_may_be_sent_again(
    target: CeleryTarget, client: redis.Redis
) -> None:
    send = make_send()
    launch(target, [send])

    (record,) = client.keys("scannerjob:launch:*")

    assert record == f"scannerjob:launch:{send.item.id}"
    assert client.hgetall(record) == {"state": "queued", "sends": "1"}
    assert int(client.ttl(record)) > RECORDS.total_seconds() + 3000


def test_a_lost_reply_is_uncertain_and_sending_again_is_harmless(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    sends = make_sends(20)
    with LossyProxy(redis_server.port, b"EVALSHA") as place:
        seen = launch(opened(at(redis_url, place)), sends, seconds=3)

    assert facts(seen) == UNCERTAIN
    assert place in reasons(seen)
    eventually(lambda: client.llen("celery") == 20, message="the messages have arrived")
    assert facts(launch(opened(redis_url), sends)) == ACCEPTED
    assert client.llen("celery") == 20


PUBLISHER = """
import asyncio, json, sys
from scannerjob.targets.celery import Brokers
from tests.support.celery_target import celery_spec, make_send, soon

url, seconds, size, ids = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
sends = [make_send({"pdf_id": 1, "title": "x" * size}, id=each) for each in ids]
target = Brokers().open(url, None, celery_spec())
deadline = soon(seconds)
print("ready", flush=True)
seen = asyncio.run(target.launch(sends, deadline))
print(json.dumps({each: known.fact.value for each, known in seen.items()}), flush=True)
"""


def publisher(
    folder: Path, url: str, sends: Sequence[Send], seconds: float = 30, size: int = 10
) -> Process:
    root = Path(__file__).parents[2]
    env = {**os.environ, "PYTHONPATH": f"{root}:{root / 'operator'}"}
    command = [sys.executable, "-c", PUBLISHER, url, str(seconds), str(size), *ids_of(sends)]
    return Process(command, log=folder / "publisher.log", env=env)


def test_a_publisher_killed_in_the_middle_is_made_good_by_sending_again(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    sends = make_sends(600)
    with publisher(tmp_path, redis_url, sends, size=30_000) as process:
        eventually(lambda: client.llen("celery"), interval=0.001, message="a first message")
        process.kill()
        put = client.llen("celery")
    assert 0 < int(put) < 600, "killed too late to be in the middle"

    assert facts(launch(opened(redis_url), sends)) == ACCEPTED

    assert client.llen("celery") == 600
    messages = [json.loads(each) for each in client.lrange("celery", 0, -1)]
    assert {message["headers"]["id"] for message in messages} == set(ids_of(sends))


# Superseding


def test_what_was_superseded_is_never_sent(target: CeleryTarget, client: redis.Redis) -> None:
    sent, unsent = make_sends(2), make_sends(2)

    async def scenario() -> None:
        await target.launch(sent, soon())
        for _ in range(2):
            seen = await target.supersede(ids_of([*sent, *unsent]))
            assert {seen[each].fact for each in ids_of(sent)} == ACCEPTED
            assert {seen[each].fact for each in ids_of(unsent)} == {Fact.SUPERSEDED}
        late = await target.launch(unsent, soon())
        assert facts(late) == {Fact.SUPERSEDED}
        assert reasons(late) == "superseded"

    asyncio.run(scenario())
    assert client.llen("celery") == 2


def test_nothing_can_be_superseded_where_no_records_are_kept(tmp_path: Path) -> None:
    target = opened(f"sqla+sqlite:///{tmp_path / 'broker'}")

    assert asyncio.run(target.supersede(["a"])) == {}
    assert asyncio.run(opened(at("", "127.0.0.1:1")).supersede([])) == {}


def test_superseding_on_a_broker_that_is_down_is_an_error() -> None:
    place = f"127.0.0.1:{free_port()}"

    with pytest.raises(TargetError, match=place):
        asyncio.run(opened(at("", place)).supersede(["a"]))


# What is known of the broker


def test_a_process_that_starts_anew_learns_what_can_be_repeated_from_its_first_look(
    target: CeleryTarget,
) -> None:
    assert target.traits.resend_within is None

    assert asyncio.run(target.observe(["a"])) == {}

    assert target.traits.resend_within == RECORDS


def test_a_redis_that_evicts_keeps_no_promise() -> None:
    with RedisServer(maxmemory="50mb", maxmemory_policy="allkeys-lru") as server:
        target = opened(server.url)
        assert facts(launch(target, make_sends(3))) == ACCEPTED
        assert target.traits.resend_within is None
        assert asyncio.run(target.supersede(["a"])) == {}
        repeated = opened(server.url, spec=celery_spec(onUncertainPublish="Republish"))
        assert repeated.traits.resend_within == timedelta.max


def test_a_redis_that_does_not_let_us_know_keeps_no_promise(
    redis_server: RedisServer, redis_url: str, client: redis.Redis
) -> None:
    client.execute_command("ACL SETUSER app on >pw ~* &* +@all -info -config")
    target = opened(f"redis://app:pw@127.0.0.1:{redis_server.port}/0")

    assert facts(launch(target, make_sends(3))) == ACCEPTED

    assert target.traits.resend_within is None
    client.execute_command("ACL DELUSER app")


# Bad weather


def test_a_refused_connection_proves_that_nothing_was_sent() -> None:
    place = f"127.0.0.1:{free_port()}"

    seen = launch(opened(at("", place)), make_sends(3))

    assert facts(seen) == NOT_SENT
    assert place in reasons(seen)
    assert "refused" in reasons(seen)


def test_an_unknown_host_proves_that_nothing_was_sent() -> None:
    seen = launch(opened("redis://no-such-host.invalid/0"), make_sends(3))

    assert facts(seen) == NOT_SENT
    assert "no-such-host.invalid" in reasons(seen)


@pytest.mark.parametrize("user", ["", "c4n4ry-user"])
def test_a_wrong_password_is_shown_nowhere(user: str, caplog: pytest.LogCaptureFixture) -> None:
    with RedisServer(requirepass=True) as server:
        url = f"redis://{user}:c4n4ry%2Fpw@127.0.0.1:{server.port}/0"
        target = opened(url, url)
        seen = launch(target, make_sends(3))
        with pytest.raises(TargetError) as caught:
            asyncio.run(target.observe(["a"]))
        assert facts(launch(opened(server.url), make_sends(3))) == ACCEPTED

    assert facts(seen) == NOT_SENT
    assert f"127.0.0.1:{server.port}" in reasons(seen)
    assert caught.value.reason == "ResultBackendUnreachable"
    shown = reasons(seen) + str(caught.value) + caplog.text + repr(target.__dict__)
    assert "c4n4ry/pw" not in shown
    assert "c4n4ry%2Fpw" not in shown


def test_a_black_hole_holds_up_neither_the_loop_nor_another_broker(
    redis_url: str, client: redis.Redis
) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        healthy = brokers.open(redis_url, None, celery_spec())
        with BlackHole() as place:
            stuck = brokers.open(at(redis_url, place), None, celery_spec())
            async with watched_loop(longest=1):
                hanging = asyncio.create_task(stuck.launch(make_sends(3), soon(2)))
                await asyncio.sleep(0.1)
                assert facts(await healthy.launch(make_sends(3), soon(1.5))) == ACCEPTED
                assert not hanging.done()
                seen = await hanging
        assert facts(seen) == NOT_SENT
        assert f"{place}/0 did not answer in time" in reasons(seen)

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def test_threads_that_hang_do_not_pile_up_however_often_a_target_is_opened(
    redis_url: str,
) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        with BlackHole() as place:
            for _ in range(10):
                target = brokers.open(at(redis_url, place), None, celery_spec())
                assert facts(await target.launch(make_sends(1), soon(0.05))) == NOT_SENT
                del target
                gc.collect()
            hanging = [each for each in threading.enumerate() if place in each.name]
            assert 0 < len(hanging) <= 5
            # Their own timeout brings each of them back, black hole or not.
            await asyncio.to_thread(eventually, lambda: have_ended(hanging))

    asyncio.run(scenario())


def have_ended(threads: Sequence[threading.Thread]) -> bool:
    gc.collect()  # what an error's traceback refers to goes late
    return not any(each.is_alive() for each in threads)


def test_a_workers_environment_does_not_change_how_we_publish(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = at("", f"127.0.0.1:{free_port()}")
    for name in ("CELERY_BROKER_URL", "CELERY_BROKER_WRITE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.setenv(name, dead)
    monkeypatch.setenv("CELERY_LOADER", "default")
    monkeypatch.setenv("CELERY_CONFIG_MODULE", "no_such_module")

    assert facts(launch(opened(redis_url), make_sends(3))) == ACCEPTED
    assert client.llen("celery") == 3


def test_a_frozen_redis_gets_nothing_late_and_all_of_it_once_it_answers(
    redis_server: RedisServer, target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        first, second = make_sends(3), make_sends(3)
        await target.launch(first, soon())
        redis_server.pause()
        assert facts(await target.launch(second, soon(1))) == NOT_SENT
        redis_server.resume()
        # What hung goes on now, and must find that it is too late.
        assert facts(await target.launch(first, soon())) == ACCEPTED
        assert client.llen("celery") == 3
        assert facts(await target.launch(second, soon())) == ACCEPTED
        assert client.llen("celery") == 6

    asyncio.run(scenario())


def test_a_redis_that_was_restarted_is_found_again(
    redis_server: RedisServer, target: CeleryTarget, client: redis.Redis
) -> None:
    async def scenario() -> None:
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED
        redis_server.kill()
        assert facts(await target.launch(make_sends(3), soon())) == NOT_SENT
        redis_server.start()
        sends = make_sends(3)
        for _ in range(2):
            assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def test_nothing_is_sent_after_the_deadline(target: CeleryTarget, client: redis.Redis) -> None:
    assert facts(launch(target, make_sends(3), seconds=-1)) == NOT_SENT
    assert client.llen("celery") == 0


def test_a_process_that_was_frozen_sends_nothing_late(
    redis_server: RedisServer, redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    sends = make_sends(3)
    redis_server.pause()  # holds the publisher between its claim and its write
    with publisher(tmp_path, redis_url, sends, seconds=3) as process:
        eventually(lambda: "ready" in process.log(), message="the publisher is at work")
        deadline = soon(3)
        process.pause()
        redis_server.resume()
        eventually(lambda: soon(0) > deadline + 0.5, message="its deadline has passed")
        process.resume()
        process.wait()

    seen = json.loads(process.log().splitlines()[-1])
    assert set(seen.values()) == {"not sent"}
    assert client.llen("celery") == 0


@pytest.mark.parametrize(
    ("spoil", "repair", "expected"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM|maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only"),
        ("SET celery x", "DEL celery", "wrong kind"),
        (
            "ACL SETUSER default -lpush",
            "ACL SETUSER default +lpush",
            "permission|can't run this command",
        ),
    ],
)
def test_what_redis_refuses_was_not_sent_and_can_be_sent_later(
    target: CeleryTarget, client: redis.Redis, spoil: str, repair: str, expected: str
) -> None:
    async def scenario() -> None:
        sends = make_sends(3)
        await target.launch(make_sends(1), soon())
        client.delete("celery")
        client.execute_command(*spoil.split())
        try:
            seen = await target.launch(sends, soon())
        finally:
            client.execute_command(*repair.split())
        assert facts(seen) == NOT_SENT
        assert any(word in reasons(seen) for word in expected.split("|")), reasons(seen)
        assert facts(await target.launch(sends, soon())) == ACCEPTED

    asyncio.run(scenario())
    assert client.llen("celery") == 3


def test_scannerjobs_with_the_same_broker_share_its_connection(
    redis_url: str, client: redis.Redis
) -> None:
    brokers = Brokers()
    targets = [brokers.open(redis_url, None, celery_spec(queue=str(n))) for n in range(5)]

    async def scenario() -> None:
        before = len(client.client_list())
        await asyncio.gather(*(target.launch(make_sends(20), soon()) for target in targets))
        assert len(client.client_list()) - before <= 2
        brokers.close()
        eventually(lambda: len(client.client_list()) == before, message="they are closed")

    asyncio.run(scenario())
    assert {client.llen(str(number)) for number in range(5)} == {20}


def test_a_connection_goes_with_the_last_target_that_uses_it(
    redis_url: str, client: redis.Redis
) -> None:
    brokers = Brokers()
    before = len(client.client_list())
    targets = [brokers.open(redis_url, redis_url, celery_spec()) for _ in range(2)]

    async def scenario() -> None:
        for target in targets:
            await target.launch(make_sends(3), soon())
            await target.observe(["a"])

    asyncio.run(scenario())
    targets.pop()
    gc.collect()
    assert len(client.client_list()) > before
    targets.pop()
    gc.collect()

    eventually(lambda: len(client.client_list()) == before, message="all connections are closed")


# The broker in a database


def test_a_broker_in_a_database_is_never_sent_to_twice_unless_the_author_wants_it(
    tmp_path: Path,
) -> None:
    url = f"sqla+sqlite:///{tmp_path / 'broker'}"
    target = opened(url)
    assert facts(launch(target, make_sends(3))) == ACCEPTED
    assert target.traits.resend_within is None

    republishing = opened(url, spec=celery_spec(onUncertainPublish="Republish"))
    assert republishing.traits.resend_within == timedelta.max


@pytest.mark.parametrize("lock", ["BEGIN IMMEDIATE", "BEGIN; SELECT * FROM kombu_message"])
def test_a_locked_sqlite_broker_gets_all_or_nothing(tmp_path: Path, lock: str) -> None:
    file = tmp_path / "broker"
    target = opened(f"sqla+sqlite:///{file}")

    async def scenario() -> None:
        await target.launch(make_sends(1), soon())
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            for statement in lock.split("; "):
                cursor = other.execute(statement)
                cursor.fetchone()
            seen = await target.launch(make_sends(3), soon())
        assert facts(seen) == NOT_SENT
        assert "locked" in reasons(seen)
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    with contextlib.closing(sqlite3.connect(file)) as reader:
        assert reader.execute("SELECT count(*) FROM kombu_message").fetchone() == (4,)


def test_a_short_lock_of_a_sqlite_broker_is_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "broker"
    target = opened(f"sqla+sqlite:///{file}")

    async def scenario() -> None:
        await target.launch(make_sends(1), soon())
        other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.5, other.close).start()
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())


def test_a_frozen_database_holds_up_neither_the_loop_nor_another_broker(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
) -> None:
    async def scenario() -> None:
        brokers = Brokers()
        frozen = brokers.open(f"sqla+{postgres_url}", None, celery_spec())
        healthy = brokers.open(f"sqla+sqlite:///{tmp_path / 'broker'}", None, celery_spec())
        assert facts(await frozen.launch(make_sends(1), soon())) == ACCEPTED
        postgres_server.pause()
        async with watched_loop(longest=1):
            hanging = asyncio.create_task(frozen.launch(make_sends(3), soon(2)))
            await asyncio.sleep(0.1)
            assert facts(await healthy.launch(make_sends(3), soon(1.5))) == ACCEPTED
            assert facts(await hanging) == NOT_SENT
        postgres_server.resume()
        assert facts(await frozen.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())
    with postgres_server.connect() as connection:
        assert connection.info.dbname  # the server itself goes on


def test_a_database_that_was_restarted_is_found_again(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    target = opened(f"sqla+{postgres_url}")

    async def scenario() -> None:
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED
        postgres_server.stop()
        seen = await target.launch(make_sends(3), soon())
        assert facts(seen) == NOT_SENT
        assert str(postgres_server.port) in reasons(seen)
        assert postgres_server.password not in reasons(seen)
        postgres_server.start()
        assert facts(await target.launch(make_sends(3), soon())) == ACCEPTED

    asyncio.run(scenario())


# Outcomes


@pytest.mark.parametrize("backend", ["redis", "sqlite", "postgres", "mariadb"])
def test_outcomes_come_from_the_result_backend(
    backend: str, redis_url: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if backend == "redis":
        results = redis_url
    elif backend == "sqlite":
        results = f"db+sqlite:///{tmp_path / 'results'}"
    else:
        results = f"db+{request.getfixturevalue(backend + '_url')}"
    target = opened(redis_url, results)
    good, bad = make_sends(3), make_send({"fail": "no page 7\nin this file"})
    expired, unsent = make_send({"pdf_id": 9}, expires_in=-5), make_send()

    async def scenario() -> None:
        assert await target.observe(ids_of([*good, bad, unsent])) == {}
        await target.launch([*good, bad, expired], soon())
        with Worker(tmp_path, redis_url, results) as worker:
            seen: dict[str, Observation] = {}
            while len(seen) < 5:
                await asyncio.sleep(0.05)
                seen = dict(await target.observe(ids_of([*good, bad, expired, unsent])))
            ran = worker.ran()

        assert {seen[each].fact for each in ids_of(good)} == {Fact.SUCCEEDED}
        assert seen[bad.item.id].fact is Fact.FAILED
        reason = seen[bad.item.id].reason or ""
        assert reason.endswith("in this file")
        assert "\n" not in reason
        assert seen[expired.item.id].fact is Fact.NOT_STARTED
        assert expired.item.id not in {each["id"] for each in ran}

    asyncio.run(asyncio.wait_for(scenario(), 90))


def test_one_result_that_is_garbage_hides_no_other(redis_url: str, client: redis.Redis) -> None:
    target = opened(redis_url, redis_url)
    client.set("celery-task-meta-good", json.dumps({"status": "SUCCESS", "task_id": "good"}))
    client.set("celery-task-meta-bad", "\x00 garbage")
    client.set("celery-task-meta-forged", json.dumps({"status": "SUCCESS", "task_id": "good"}))
    client.hset("celery-task-meta-hash", "status", "SUCCESS")

    seen = asyncio.run(target.observe(["good", "bad", "forged", "hash", "none"]))

    assert seen == {"good": Observation(Fact.SUCCEEDED)}


def test_a_thousand_outcomes_are_one_question(redis_url: str, client: redis.Redis) -> None:
    target = opened(redis_url, redis_url)
    ids = [f"task-{number}" for number in range(1000)]
    client.mset({f"celery-task-meta-{each}": json.dumps({"status": "SUCCESS"}) for each in ids})
    asyncio.run(target.observe(ids))
    before = client.info("stats")["total_commands_processed"]

    assert len(asyncio.run(target.observe(ids))) == 1000

    # This one, and the two looks at the statistics' own cost.
    assert client.info("stats")["total_commands_processed"] - before <= 3


def test_a_result_backend_that_cannot_be_asked_is_an_error(redis_url: str) -> None:
    place = f"127.0.0.1:{free_port()}"
    for results in (f"redis://:c4n4ry@{place}/0", f"db+postgresql://app:c4n4ry@{place}/app"):
        with pytest.raises(TargetError, match=place) as caught:
            asyncio.run(opened(redis_url, results).observe(["a"]))
        assert caught.value.reason == "ResultBackendUnreachable"
        assert "c4n4ry" not in str(caught.value)


def test_without_a_result_backend_nothing_is_known_and_a_dead_broker_is_no_error() -> None:
    target = opened(at("", f"127.0.0.1:{free_port()}"))

    assert asyncio.run(target.observe(["a"])) == {}
    assert asyncio.run(target.observe([])) == {}


def test_an_expired_message_is_not_run(redis_url: str, tmp_path: Path) -> None:
    launch(opened(redis_url), [make_send({"pdf_id": 1}, expires_in=-1)])
    after = make_send({"pdf_id": 2}, expires_in=3600)
    launch(opened(redis_url), [after])

    with Worker(tmp_path, redis_url) as worker:
        eventually(worker.ran, message="the worker runs what has not expired")
        assert [each["id"] for each in worker.ran()] == [after.item.id]
