"""The two ways to run ScannerJobs, an operator and `scannerjob run`, each as its user starts it."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import urllib3
import yaml

from tests.harness.record import REPOSITORY
from tests.harness.stage import Stage
from tests.support.api import ApiError, Json
from tests.support.processes import Process
from tests.support.waiting import eventually

Status = Mapping[str, Any]
NAMESPACE = "soak"
_MERGE = "application/merge-patch+json"


class System(Protocol):
    """A process that runs ScannerJobs, and their Secrets and statuses."""

    name: str
    process: Process

    def put_secret(self, name: str, url: str) -> None:
        """Let a Secret have this URL."""

    def statuses(self) -> Mapping[str, Status]:
        """By name of the ScannerJob."""


class Cluster:
    """An operator on the stage's control plane, with the rights that the chart gives it."""

    name = "operator"

    def __init__(self, stage: Stage, folder: Path) -> None:
        kubeconfig = stage.create_namespace(NAMESPACE)
        self._stage = stage
        self._secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
        self._scannerjobs = f"/apis/scannerjob.dev/v1alpha1/namespaces/{NAMESPACE}/scannerjobs"
        options = ["operator", "--namespace", NAMESPACE]
        self.process = _process(folder / "operator.log", options, {"KUBECONFIG": str(kubeconfig)})

    def put_secret(self, name: str, url: str) -> None:
        """See System."""
        content = {"metadata": {"name": name}, "stringData": {"url": url}}
        try:
            self._ask("PATCH", f"{self._secrets}/{name}", content)
        except ApiError as error:
            if error.status != 404:
                raise
            self._ask("POST", self._secrets, content)

    def delete_secret(self, name: str) -> None:
        """Delete a Secret."""
        self._ask("DELETE", f"{self._secrets}/{name}")

    def create(self, document: Json) -> None:
        """Create a ScannerJob."""
        self._ask("POST", self._scannerjobs, document)

    def change(self, name: str, spec: Mapping[str, Any]) -> None:
        """Change a ScannerJob, as a person does."""
        self._ask("PATCH", f"{self._scannerjobs}/{name}", {"spec": spec})

    def delete(self, name: str) -> None:
        """Delete a ScannerJob."""
        self._ask("DELETE", f"{self._scannerjobs}/{name}")

    def statuses(self) -> Mapping[str, Status]:
        """See System."""
        found = self._ask("GET", self._scannerjobs)
        return {each["metadata"]["name"]: each.get("status", {}) for each in found["items"]}

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """The answer, even if the API server was started anew since the last one."""
        content = _MERGE if method == "PATCH" else "application/json"

        def ask() -> Json:
            return self._stage.api.request(method, path, body, content=content)

        return eventually(_passing(ask), 60, ignoring=urllib3.exceptions.HTTPError)


class Standalone:
    """`scannerjob run`, with its state in a file and its Secrets in a directory."""

    name = "scannerjob run"

    def __init__(self, folder: Path, documents: Sequence[Json]) -> None:
        self._secrets = folder / "secrets"
        self._state = folder / "state.sqlite"
        self._secrets.mkdir()
        file = folder / "scannerjobs.yaml"
        file.write_text(yaml.safe_dump_all(documents))
        options = ["run", "--file", str(file), "--secrets", str(self._secrets)]
        options += ["--state", f"sqlite:///{self._state}"]
        self.process = _process(folder / "standalone.log", options, {})

    def put_secret(self, name: str, url: str) -> None:
        """See System. Whoever reads it meanwhile has the old one or the new one."""
        folder = self._secrets / name
        folder.mkdir(exist_ok=True)
        new = folder / ".url"
        new.write_text(url)
        new.replace(folder / "url")

    def statuses(self) -> Mapping[str, Status]:
        """See System; none before the process has made its table."""
        with closing(sqlite3.connect(self._state, timeout=30)) as state:
            tables = state.execute("SELECT 1 FROM sqlite_master WHERE name = 'scannerjob_ledger'")
            query = "SELECT name, status FROM scannerjob_ledger"
            rows = list(state.execute(query)) if tables.fetchone() else []
        return {name: json.loads(status) for name, status in rows}


def _process(log: Path, options: Sequence[str], env: Mapping[str, str]) -> Process:
    command = [sys.executable, "-m", "scannerjob", *options]
    here = {"PYTHONPATH": str(REPOSITORY / "operator"), "PYTHONUNBUFFERED": "1"}
    return Process(command, log=log, env={**os.environ, **here, **env}, cwd=log.parent)


def _passing(ask: Callable[[], Json]) -> Callable[[], Json]:
    """An error of the API server's own is as good as no answer."""

    def asked() -> Json:
        try:
            return ask()
        except ApiError as error:
            if error.passing:
                raise AssertionError(error) from error
            raise

    return asked
