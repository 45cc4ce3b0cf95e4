from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scannerjob.ports import ConfigurationError
from scannerjob.secrets import DirectorySecrets


def mount(path: Path, **contents: str) -> Path:
    """As Kubernetes mounts a Secret: keys are links into a directory that can be swapped."""
    (path / "..2026_11_23").mkdir(parents=True)
    (path / "..data").symlink_to("..2026_11_23")
    for key, value in contents.items():
        (path / "..data" / key).write_text(value)
        (path / key).symlink_to(f"..data/{key}")
    return path


def test_each_file_is_a_key(tmp_path: Path) -> None:
    mount(tmp_path / "app-db", url="sqlite:///x\n", other="y")
    secret = asyncio.run(DirectorySecrets(tmp_path).get("docs", "app-db"))
    assert secret == {"url": b"sqlite:///x\n", "other": b"y"}


def test_one_that_is_missing_is_named_and_found_once_it_is_there(tmp_path: Path) -> None:
    secrets = DirectorySecrets(tmp_path)
    with pytest.raises(ConfigurationError, match="Secret app-db is not there") as error:
        asyncio.run(secrets.get("docs", "app-db"))
    assert error.value.reason == "SecretNotFound"
    assert str(tmp_path / "app-db") in str(error.value)
    mount(tmp_path / "app-db", url="sqlite:///x")
    assert asyncio.run(secrets.get("docs", "app-db")) == {"url": b"sqlite:///x"}


def test_a_file_in_its_place_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "app-db").write_text("hunter2")
    with pytest.raises(ConfigurationError, match="expected the directory") as error:
        asyncio.run(DirectorySecrets(tmp_path).get("docs", "app-db"))
    assert "hunter2" not in str(error.value)


def test_a_name_that_leads_nowhere_is_no_key(tmp_path: Path) -> None:
    folder = mount(tmp_path / "app-db", url="sqlite:///x")
    (folder / "gone").symlink_to("..data/gone")
    assert set(asyncio.run(DirectorySecrets(tmp_path).get("docs", "app-db"))) == {"url"}
