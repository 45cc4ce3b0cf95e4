"""The examples, each run by the commands of its own README."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.examples import ALONE, WORKER_DIES, Example
from tests.support.waiting import eventually

# Each example's folder, and what is there in place of the servers that its README names.
REDIS = {"redis://localhost:6379/0": "redis_url"}
EXAMPLES = {
    "plain": ("celery", REDIS),
    "plain_on_postgresql": ("celery", {"sqlite:///$PWD/pdfs.sqlite": "postgres_url", **REDIS}),
    "django": ("django", {"postgresql://docs:docs@localhost/docs": "postgres_url", **REDIS}),
}


@pytest.fixture(params=EXAMPLES)
def example(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Example]:
    """Each example on servers of ours."""
    name, servers = EXAMPLES[request.param]
    there = {theirs: request.getfixturevalue(ours) for theirs, ours in servers.items()}
    with closing(Example(name, tmp_path, there)) as example:
        yield example


@pytest.mark.timeout(400)
def test_every_pdf_is_done_once(example: Example) -> None:
    assert "0 of 20 PDFs have their pages" in example.follow(ALONE)
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 30
    assert " raised " not in example.log("celery")


@pytest.mark.timeout(400)
def test_what_a_killed_worker_was_at_is_done_again(example: Example, redis_url: str) -> None:
    example.follow(ALONE)
    eventually(lambda: example.freeze_at_work(redis_url), timeout=120)
    example.follow(WORKER_DIES)
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 32
    assert " raised " not in example.log("celery")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("example", ["plain"], indirect=True)
def test_what_a_dead_container_was_at_is_done_again(example: Example, redis_url: str) -> None:
    example.follow(ALONE)
    eventually(lambda: example.freeze_at_work(redis_url), timeout=120)
    example.process("celery").kill()  # with all its descendants, so that nobody can tell
    example.follow(WORKER_DIES, but=("kill ",))
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 32
