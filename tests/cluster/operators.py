"""Operators of a test: processes of their own, under the rights that they are installed with."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.support.controlplane import ControlPlane, KubectlError
from tests.support.helm import RELEASE, rights
from tests.support.processes import Process
from tests.support.waiting import eventually

# The module that runs an operator which gives up soon on a watch that says nothing.
IMPATIENT = "tests.support.impatient"
# In characters.
_SHOWN_OF_LOG = 6000


def operator_account(plane: ControlPlane, namespace: str) -> Path:
    """A kubeconfig for the service account and the rights that the chart makes for a namespace."""
    plane.apply(*rights(namespace))
    return plane.kubeconfig_for(RELEASE, namespace=namespace)


class Operators:
    """Makes operators for one namespace."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self._namespace = namespace
        self._folder = folder
        self.kubeconfig = operator_account(plane, namespace)
        self.made: list[Process] = []

    def start(
        self, *options: str, kubeconfig: Path | None = None, program: str = "scannerjob"
    ) -> Process:
        """Start one more, with these options; `program` is the module that is run."""
        command = [sys.executable, "-m", program, "operator", "--namespace", self._namespace]
        env = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "PYTHONPATH": "operator",
        }
        log = self._folder / f"operator-{len(self.made)}.log"
        self.made.append(Process([*command, *options], log=log, env=env))
        return self.made[-1].start()

    def close(self) -> None:
        """End them. The ends of their logs are shown by pytest where a test has failed."""
        for process in self.made:
            process.kill()
            print(process.log()[-_SHOWN_OF_LOG:])


def wait_ready(operator: Process, starts: int = 1) -> None:
    """Return when it has been ready for so many times."""

    def ready() -> bool:
        assert operator.running, operator.log()
        return operator.log().count("ready for ScannerJobs") >= starts

    eventually(ready, message="the operator is ready")


def wipe(cluster: ControlPlane, namespace: str) -> None:
    """Empty the status of the ScannerJob pdf-pages.

    Retried, as a person would: the operator writes too.
    """

    def wiped() -> bool:
        found = cluster.get("-n", namespace, "scj", "pdf-pages")
        document = json.dumps({**found, "status": {}})
        cluster.kubectl("replace", "--subresource=status", "-f", "-", input=document)
        return True

    eventually(wiped, ignoring=KubectlError)
