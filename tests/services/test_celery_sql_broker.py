"""The broker in a database: locked, frozen, restarted."""

# kombu and redis are typed in part only.
# mypy: allow-untyped-calls

import asyncio
import contextlib
import sqlite3
import threading
from pathlib import Path

import pytest
from sqlalchemy import make_url

from scannerjob.ports import TargetError
from scannerjob.targets.celery import Brokers
from tests.support.celery_target import (
    ACCEPTED,
    NOT_SENT,
    celery_spec,
    facts,
    launch,
    make_sends,
    opened,
    reasons,
    soon,
    watched_loop,
)
from tests.support.servers import PostgresServer


def test_a_broker_in_a_database_is_never_sent_to_twice_unless_the_author_wants_it(
    tmp_path: Path,
) -> None:
    url = f"sqla+sqlite:///{tmp_path / 'broker'}"
    target = opened(url)
    assert facts(launch(target, make_sends(3))) == ACCEPTED
    assert target.traits.resend_within is None
    assert not target.traits.republish

    republishing = opened(url, spec=celery_spec(onUncertainPublish="Republish"))
    assert republishing.traits.resend_within is None
    assert republishing.traits.republish


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


def test_a_server_that_refuses_is_named_without_user_and_password(
    postgres_server: PostgresServer, postgres_url: str
) -> None:
    wrong = make_url(postgres_url).set(username="c4n4ry-user", password="c4n4ry-pass")
    url = wrong.render_as_string(hide_password=False)

    async def scenario() -> None:
        target = opened(f"sqla+{url}", f"db+{url}")
        said = [reasons(await target.launch(make_sends(3), soon()))]
        for question in (target.check(), target.observe(["a"])):
            with pytest.raises(TargetError) as refused:
                await question
            said.append(str(refused.value))
        for each in said:
            assert str(postgres_server.port) in each
            assert "c4n4ry" not in each
            assert "***" in each

    asyncio.run(scenario())
