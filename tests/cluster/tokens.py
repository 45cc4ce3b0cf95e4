"""Tokens of an operator that can be revoked, and the places where it finds them."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from tests.support.controlplane import ControlPlane
from tests.support.helm import RELEASE
from tests.support.processes import Process


class BoundToken:
    """A token of the operator's service account that is good as long as a Secret of its own is."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._namespace = namespace
        self._secret = f"token-{secrets.token_hex(4)}"
        self._kubectl("create", "secret", "generic", self._secret)
        bound = ("--bound-object-kind=Secret", f"--bound-object-name={self._secret}")
        self.value = self._kubectl("create", "token", RELEASE, *bound).strip()

    def revoke(self) -> None:
        """The API server remembers for some seconds that it was good."""
        self._kubectl("delete", "secret", self._secret)

    def _kubectl(self, *args: str) -> str:
        return self._plane.kubectl("-n", self._namespace, *args)


class Kubeconfig:
    """The place of a token outside of a cluster."""

    def __init__(self, original: Path, folder: Path) -> None:
        self._document: dict[str, Any] = yaml.safe_load(original.read_text())
        self._path = folder / "rotated.kubeconfig"

    def put(self, token: str) -> None:
        self._document["users"][0]["user"] = {"token": token}
        write_at_once(self._path, yaml.safe_dump(self._document))

    def operator(self, *options: str) -> Process:
        """One that finds it here, not yet started."""
        env = {**os.environ, "KUBECONFIG": str(self._path), "PYTHONPATH": "operator"}
        command = [sys.executable, "-m", "scannerjob", "operator", *options]
        return Process(command, log=self._path.with_name("operator.log"), env=env)


class Pod:
    """The place of a token in a pod."""

    def __init__(self, original: Path, folder: Path) -> None:
        cluster = yaml.safe_load(original.read_text())["clusters"][0]["cluster"]
        self._server = urlsplit(cluster["server"])
        self._folder = folder
        (folder / "ca.crt").write_text(Path(cluster["certificate-authority"]).read_text())

    def put(self, token: str) -> None:
        write_at_once(self._folder / "token", token)

    def operator(self, *options: str) -> Process:
        """One that finds it here, not yet started."""
        env = {
            **{name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
            "KUBERNETES_SERVICE_HOST": str(self._server.hostname),
            "KUBERNETES_SERVICE_PORT": str(self._server.port),
            "HOME": str(self._folder),
            "PYTHONPATH": "operator",
        }
        module = [sys.executable, "-m", "tests.cluster.in_pod"]
        command = [*module, str(self._folder), "operator", *options]
        return Process(command, log=self._folder / "operator.log", env=env)


def write_at_once(path: Path, text: str) -> None:
    """As the kubelet does: nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)
