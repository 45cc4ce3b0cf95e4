"""What a person types or writes in a wrong place is told without the passwords of URLs."""

import asyncio
import os
import threading
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from scannerjob.cli.commands import app
from scannerjob.model.spec import parse_spec
from scannerjob.ports import TargetError
from scannerjob.targets.celery import Brokers
from tests.support.bad_urls import malformed
from tests.support.canary import ODD, QUOTED, USER, encoded, songs, userinfo
from tests.unit.test_cli_documents import GOOD


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a good document in it."""
    (tmp_path / "pages.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("scannerjob.logs.set_up_logging", lambda: None)
    return tmp_path


def _typed(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})


def test_no_url_of_a_state_that_cannot_be_read_is_shown() -> None:
    for scheme in ("postgresql", "mysql", "sqlite"):
        for each in malformed("database", scheme):
            url = each.url if isinstance(each.url, str) else os.fsdecode(each.url)
            done = _typed("run", "-f", "pages.yaml", "--secrets", ".", "--state", url)
            assert done.exit_code == 2, (each.name, done.output)
            assert done.output.startswith("--state: "), (each.name, done.output)
            assert songs(done.output) == []


# What a person types in a wrong place.

_URL = f"postgresql://app:{encoded(QUOTED)}@db.example/app"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-f", _URL, "--secrets", "."],
        ["run", "-f", "pages.yaml", "--secrets", _URL],
        ["run", "-f", "pages.yaml", "--secrets", ".", "--namespace", _URL],
        ["run", "-f", "pages.yaml", "--secrets", ".", "--stat", _URL],
        ["run", "-f", "pages.yaml", "--secrets", ".", f"--stat={_URL}"],
        ["run", "-f", "pages.yaml", "--secrets", ".", "--state", _URL.replace("@", "%40")],
        ["run", "-f", "pages.yaml", "--secrets", ".", _URL],
        ["run", "--state", _URL],
        ["--state", _URL, "run"],
        ["operator", _URL],
        ["operator", "--health-port", _URL],
        ["operator", "--leader-election", _URL],
        ["validate", _URL],
        ["validate", "pages.yaml", _URL],
        ["demo", "--output", _URL],
        [_URL],
    ],
)
def test_no_url_that_is_typed_in_a_wrong_place_is_shown(
    arguments: list[str],
) -> None:
    done = _typed(*arguments)
    assert done.exit_code == 2
    assert isinstance(done.exception, SystemExit)
    assert done.output
    assert songs(done.output) == []


@pytest.mark.parametrize(
    "field",
    [
        "apiVersion",
        "kind",
        "metadata.name",
        "metadata.namespace",
        "spec",
        "spec.interval",
        "spec.concurrency",
        "spec.database",
        "spec.database.url",
        "spec.database.urlSecretRef",
        "spec.database.urlSecretRef.name",
        "spec.database.urlSecretRef.key",
        "spec.celery.broker",
        "spec.celery.broker.url",
        "spec.celery.onUncertainPublish",
    ],
)
def test_no_url_that_is_written_in_a_wrong_field_is_shown(field: str, folder: Path) -> None:
    document = yaml.safe_load(GOOD)
    *parents, last = field.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    part[last] = _URL
    (folder / "pages.yaml").write_text(yaml.safe_dump(document))
    done = _typed("validate", "pages.yaml")
    assert done.exit_code == 2
    assert f": {field}: " in done.output
    assert songs(done.output) == []


def test_no_name_of_a_thread_shows_a_password() -> None:
    broker = Brokers()
    spec = parse_spec(yaml.safe_load(GOOD)["spec"])
    url = f"redis://{userinfo(USER, ODD)}@127.0.0.1:1/0"
    target = broker.open(url, None, spec)
    with pytest.raises(TargetError, match=r"127\.0\.0\.1:1/0"):
        asyncio.run(target.check())
    names = [thread.name for thread in threading.enumerate()]
    assert "broker 127.0.0.1:1/0" in names
    assert songs(" ".join(names)) == []
    broker.close()
