# kombu is typed in part only.
# mypy: allow-untyped-calls

import signal
import time
from pathlib import Path

import pytest
import redis
from amqp.exceptions import NotFound
from kombu.connection import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError, ProgrammingError

from tests.support.celery_worker import CeleryWorker
from tests.support.processes import lives
from tests.support.rabbitmq import RabbitServer
from tests.support.servers import DatabaseServer, RedisServer
from tests.support.waiting import eventually

TASKS = """
import os, time
from celery import Celery
app = Celery("tasks", broker=os.environ["URL"], backend=os.environ["URL"])

@app.task
def nap(seconds):
    time.sleep(seconds)
    return seconds
"""


@pytest.fixture(params=["postgres_server", "mariadb_server"])
def database_server(request: pytest.FixtureRequest) -> DatabaseServer:
    server: DatabaseServer = request.getfixturevalue(request.param)
    return server


def ask(url: str, statement: str, **options: object) -> object:
    engine = create_engine(url, connect_args=options)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def test_every_new_database_is_empty(database_server: DatabaseServer) -> None:
    first, second = database_server.create_database(), database_server.create_database()
    ask(first, "CREATE TABLE pdf (id INTEGER)")
    ask(second, "CREATE TABLE pdf (id INTEGER)")
    assert ask(second, "SELECT count(*) FROM pdf") == 0


def test_the_application_is_no_administrator(database_server: DatabaseServer) -> None:
    with pytest.raises((OperationalError, ProgrammingError)):
        ask(database_server.url, "CREATE ROLE another")
    assert ask(database_server.as_admin(database_server.url), "SELECT 1") == 1


def test_a_wrong_password_is_refused(database_server: DatabaseServer) -> None:
    url = database_server.url.replace(database_server.password, "wrong")
    with pytest.raises(OperationalError):
        ask(url, "SELECT 1")


def test_a_paused_database_accepts_and_never_answers(database_server: DatabaseServer) -> None:
    timeouts = {"connect_timeout": 2}
    if database_server.drivername == "mysql+pymysql":
        timeouts["read_timeout"] = 2  # its connect_timeout ends before the server's greeting
    database_server.pause()
    started = time.monotonic()
    with pytest.raises(OperationalError):
        ask(database_server.url, "SELECT 1", **timeouts)
    assert time.monotonic() - started > 1
    database_server.resume()
    assert ask(database_server.url, "SELECT 1") == 1


def test_a_killed_database_comes_back_with_its_rows(database_server: DatabaseServer) -> None:
    url = database_server.create_database()
    ask(url, "CREATE TABLE pdf (id INTEGER)")
    ask(url, "INSERT INTO pdf VALUES (1)")
    database_server.kill()
    with pytest.raises(OperationalError):
        ask(url, "SELECT 1")
    database_server.start()
    assert ask(url, "SELECT count(*) FROM pdf") == 1


def test_redis_forgets_everything_when_it_is_killed(redis_server: RedisServer) -> None:
    with redis_server.client() as client:
        client.set("key", "value")
        redis_server.kill()
        redis_server.start()
        assert client.get("key") is None


def test_redis_remembers_when_it_appends_to_a_file() -> None:
    with RedisServer(appendonly=True) as server, server.client() as client:
        client.set("key", "value")
        server.kill()
        server.start()
        assert client.get("key") == "value"


def test_a_paused_redis_never_answers(redis_server: RedisServer) -> None:
    redis_server.pause()
    client = redis.Redis.from_url(redis_server.url, socket_timeout=0.5, retry=None)
    with client, pytest.raises(redis.TimeoutError):
        client.ping()
    redis_server.resume()
    redis_server.ping()


def test_redis_options_are_in_force() -> None:
    server = RedisServer(maxmemory="10mb", maxmemory_policy="allkeys-lru", requirepass=True)
    with server, server.client() as client:
        policy = client.config_get("maxmemory-policy")
        assert policy == {"maxmemory-policy": "allkeys-lru"}
        stranger = redis.Redis(port=server.port, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_a_killed_rabbitmq_comes_back_with_what_it_confirmed(
    rabbit_server: RabbitServer, amqp_url: str
) -> None:
    with Connection(amqp_url, transport_options={"confirm_publish": True}) as connection:
        connection.SimpleQueue("kept").put({"pdf_id": 1})
    rabbit_server.kill()
    rabbit_server.start()
    with Connection(amqp_url) as connection:
        message = connection.SimpleQueue("kept").get(timeout=20)
    assert message.payload == {"pdf_id": 1}


def test_virtual_hosts_of_rabbitmq_know_nothing_of_each_other(rabbit_server: RabbitServer) -> None:
    first, second = rabbit_server.create_vhost(), rabbit_server.create_vhost()
    with Connection(first) as one, Connection(second) as other:
        one.SimpleQueue("tasks").put(1)
        with pytest.raises(NotFound):
            other.default_channel.queue_declare("tasks", passive=True)


def test_a_celery_worker_runs_tasks_and_is_killed_with_its_pool(
    redis_url: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    module = tmp_path / "tasks.py"
    module.write_text(TASKS)
    with CeleryWorker(module, env={"URL": redis_url}) as worker:
        from celery import Celery

        app = Celery(broker=redis_url, backend=redis_url)
        assert app.send_task("tasks.nap", [0.01]).get(timeout=20) == 0.01
        app.send_task("tasks.nap", [600])
        eventually(lambda: worker.log().count("received") == 2)
        family = worker.process.family()
        assert len(family) >= 3
        worker.kill()
        assert not any(map(lives, family))
        assert worker.process.exit_code == -signal.SIGKILL
        worker.start()
        worker.terminate()
        assert worker.process.exit_code == 0
        app.close()
