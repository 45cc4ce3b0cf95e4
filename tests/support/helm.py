"""Helm and the chart: what it renders, and what it installs in a control plane."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.controlplane import ControlPlane

CHART = Path(__file__).resolve().parents[2] / "charts" / "scannerjob-operator"
RELEASE = "scannerjob-operator"
SETUP = Path(__file__).resolve().parents[1] / "setup"

Manifest = Mapping[str, Any]
Values = Mapping[str, Any]


class HelmError(RuntimeError):
    """Helm failed; the message holds its arguments and what it wrote to stderr."""


def helm(
    *args: str | Path,
    values: Values | None = None,
    kubeconfig: Path | None = None,
    version: str = "helm",
) -> str:
    """Run Helm, which knows nothing of the user's own settings, and return what it printed.

    Without a kubeconfig it finds no cluster. `version` is `helm` (4) or `helm3`. Raises HelmError
    if it fails.
    """
    inherited = {name: value for name, value in os.environ.items() if "HELM" not in name}
    with tempfile.TemporaryDirectory(prefix="helm-") as home:
        places = dict.fromkeys(("HOME", *_HOMES), home)
        done = subprocess.run(
            [program(version), *args, *(("--values", "-") if values else ())],
            check=False,
            input=yaml.safe_dump(values) if values else "",
            capture_output=True,
            text=True,
            env={**inherited, **places, "KUBECONFIG": str(kubeconfig or Path(home, "none"))},
            timeout=60,
        )
    if done.returncode != 0:
        raise HelmError(f"helm {' '.join(map(str, args))}: {done.stderr.strip()}")
    return done.stdout


_HOMES = ("HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME")


@cache
def program(version: str = "helm") -> Path:
    """Helm itself, built beforehand by tests/setup."""
    where = [str(SETUP / version), "--where"]
    done = subprocess.run(where, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return Path(done.stdout.strip(), version)


def template(
    values: Values | None = None, *options: str, namespace: str = "default"
) -> list[Manifest]:
    """The objects that the chart makes of these values, for a release in this namespace."""
    options = ("--namespace", namespace, *options)
    rendered = helm("template", RELEASE, CHART, *options, values=values)
    return [manifest for manifest in yaml.safe_load_all(rendered) if manifest]


def rights(namespace: str | None, *, release_namespace: str | None = None) -> list[Manifest]:
    """The service account `scannerjob-operator` that the chart makes, and all that gives it rights.

    They are those of an operator that serves `namespace`, or all namespaces if it is None. The
    account, and the right to its Lease, are in `release_namespace`: if not given, in the namespace
    that is served, or in `default`.
    """
    only = [f"--show-only=templates/{name}.yaml" for name in _RIGHTS]
    return template(
        {"watchNamespaces": [namespace]} if namespace else None,
        *only,
        namespace=release_namespace or namespace or "default",
    )


_RIGHTS = ("serviceaccount", "rbac", "leader-election")


class Release:
    """The chart in one namespace of a control plane, as its administrator installs it."""

    def __init__(
        self, plane: ControlPlane, namespace: str, name: str = RELEASE, version: str = "helm"
    ) -> None:
        self.plane = plane
        self.namespace = namespace
        self.name = name
        self._version = version

    def install(self, values: Values | None = None, *options: str) -> str:
        """`helm install`; returns what a person reads then."""
        return self._helm("install", self.name, CHART, *options, values=values)

    def upgrade(self, values: Values | None = None, chart: Path = CHART) -> str:
        """`helm upgrade`, with the chart's defaults where `values` say nothing."""
        return self._helm("upgrade", self.name, chart, "--reset-values", values=values)

    def rollback(self, revision: int) -> str:
        """`helm rollback`, to what the release was then."""
        return self._helm("rollback", self.name, str(revision))

    def test(self) -> str:
        """`helm test`: raises HelmError where it does not pass."""
        return self._helm("test", self.name, "--timeout=50s")

    def uninstall(self, *options: str) -> str:
        """`helm uninstall`."""
        return self._helm("uninstall", self.name, *options)

    def _helm(self, *args: str | Path, values: Values | None = None) -> str:
        return helm(
            *(*args, "--namespace", self.namespace),
            values=values,
            kubeconfig=self.plane.kubeconfig(),
            version=self._version,
        )
