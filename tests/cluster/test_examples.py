"""The examples in a cluster, by the commands of their READMEs; the workers run beside it."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.operators import Operators
from tests.support.controlplane import ControlPlane
from tests.support.examples import ALONE, IN_A_CLUSTER, Example

# What is done otherwise where there is an operator.
SCANNER = ("mkdir ", "echo ", "scannerjob ")


@pytest.fixture(params=["celery", "django"])
def example(
    request: pytest.FixtureRequest, tmp_path: Path, postgres_url: str, redis_url: str
) -> Iterator[Example]:
    servers = {
        "sqlite:///$PWD/pdfs.sqlite": postgres_url,
        "postgresql://docs:docs@localhost/docs": postgres_url,
        "postgresql+psycopg://docs:docs@db.example/docs": postgres_url,
        "postgresql://docs:docs@db.example/docs": postgres_url,
        "redis://localhost:6379/0": redis_url,
        "redis://redis.example/0": redis_url,
    }
    example = Example(request.param, tmp_path, servers)
    yield example
    example.close()


def _kubectl(cluster: ControlPlane, namespace: str, example: Example, command: str) -> None:
    parts = shlex.split(command)[1:]
    files = [example.folder / part if part.endswith(".yaml") else part for part in parts]
    cluster.kubectl("--namespace", namespace, *files)


@pytest.mark.timeout(400)
def test_every_pdf_is_done_once(
    example: Example, cluster: ControlPlane, namespace: str, operators: Operators
) -> None:
    operators.start()
    example.follow(ALONE, but=SCANNER)
    for command in example.commands(IN_A_CLUSTER):
        if command.startswith(("kubectl create ", "kubectl apply ")):
            _kubectl(cluster, namespace, example, command)
    example.wait_done(30)
    assert example.finished() == list(range(1, 31))
    assert len(example.received()) == 30
