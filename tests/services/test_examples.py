"""The examples, each run by the commands of its own README."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.examples import ALONE, WORKER_DIES, Example
from tests.support.waiting import eventually


@pytest.fixture
def plain(tmp_path: Path, redis_url: str) -> Iterator[Example]:
    """The plain example on SQLite, as its README has it."""
    example = Example("celery", tmp_path, {"redis://localhost:6379/0": redis_url})
    yield example
    example.close()


@pytest.fixture
def plain_on_postgresql(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Example]:
    """The plain example on PostgreSQL, as it is in a cluster."""
    servers = {
        "sqlite:///$PWD/pdfs.sqlite": postgres_url,
        "redis://localhost:6379/0": redis_url,
    }
    example = Example("celery", tmp_path, servers)
    yield example
    example.close()


@pytest.fixture
def django(tmp_path: Path, postgres_url: str, redis_url: str) -> Iterator[Example]:
    """The Django example."""
    servers = {
        "postgresql://docs:docs@localhost/docs": postgres_url,
        "redis://localhost:6379/0": redis_url,
    }
    example = Example("django", tmp_path, servers)
    yield example
    example.close()


ALL = pytest.mark.parametrize("name", ["plain", "plain_on_postgresql", "django"])


@ALL
@pytest.mark.timeout(400)
def test_every_pdf_is_done_once(name: str, request: pytest.FixtureRequest) -> None:
    example: Example = request.getfixturevalue(name)
    assert "0 of 20 PDFs have their pages" in example.follow(ALONE)
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 30
    assert " raised " not in example.log("celery")


@ALL
@pytest.mark.timeout(400)
def test_what_a_killed_worker_was_at_is_done_again(
    name: str, request: pytest.FixtureRequest, redis_url: str
) -> None:
    example: Example = request.getfixturevalue(name)
    example.follow(ALONE)
    eventually(lambda: example.freeze_at_work(redis_url), timeout=120)
    example.follow(WORKER_DIES)
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 32
    assert " raised " not in example.log("celery")


@pytest.mark.timeout(400)
def test_what_a_dead_container_was_at_is_done_again(plain: Example, redis_url: str) -> None:
    plain.follow(ALONE)
    eventually(lambda: plain.freeze_at_work(redis_url), timeout=120)
    plain.process("celery").kill()  # with all its descendants, so that nobody can tell
    plain.follow(WORKER_DIES, but=("kill ",))
    plain.wait_done(30)
    assert plain.finished() == list(range(1, 31))
    assert len(plain.received()) == 32
