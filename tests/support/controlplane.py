"""A real Kubernetes control plane: etcd, kube-apiserver and kube-controller-manager.

There is no kubelet and no scheduler: Jobs make pod objects, and nothing runs them.
"""

import json
import os
import secrets
import shutil
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.ports import free_port
from tests.support.processes import Process
from tests.support.waiting import eventually

Rule = Mapping[str, Sequence[str]]
"""A rule of a Role, as in YAML: apiGroups, resources, resourceNames, verbs."""

SETUP = Path(__file__).resolve().parents[1] / "setup" / "control-plane"


class ControlPlane:
    """One control plane on free ports of the loopback, with its data in a temporary folder."""

    def __init__(
        self,
        *,
        apiserver_options: Sequence[str] = (),
        controller_manager_options: Sequence[str] = (),
    ) -> None:
        self.binaries = binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="control-plane-"))
        self.port = free_port()
        self._etcd_ports = (free_port(), free_port())
        self._tokens = {
            "admin": secrets.token_hex(16),
            "system:kube-controller-manager": secrets.token_hex(16),
        }
        self._prepare()
        self.etcd = self._process("etcd", self._etcd_options())
        self.apiserver = self._process(
            "kube-apiserver", [*self._apiserver_options(), *apiserver_options]
        )
        self.controller_manager = self._process(
            "kube-controller-manager",
            [*self._controller_manager_options(), *controller_manager_options],
        )

    @property
    def server(self) -> str:
        """The API server's URL."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that the API server made for itself when it first started."""
        return self.folder / "certificates" / "apiserver.crt"

    def start(self) -> Self:
        """Start everything, and return when a pod could be created in the namespace default."""
        self.etcd.start()
        self.start_apiserver()
        self.controller_manager.start()
        eventually(
            lambda: self.kubectl("get", "serviceaccount", "default", "--ignore-not-found"),
            timeout=110,
            message="the controller manager made the service account default",
        )
        return self

    def stop(self) -> None:
        """End everything and remove its data."""
        # Killed, since all they could do in an orderly end is to save data that is removed anyway.
        for process in (self.controller_manager, self.apiserver, self.etcd):
            process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_apiserver(self) -> None:
        """SIGKILL the API server; its data stays in etcd."""
        self.apiserver.kill()

    def start_apiserver(self) -> None:
        """Start the API server at its URL, and return when it is ready."""
        self.apiserver.start()
        eventually(self._ready, timeout=90, message="the API server is ready")

    def pause_apiserver(self) -> None:
        """Freeze the API server: connections stay open, and nothing is answered."""
        self.apiserver.pause()

    def resume_apiserver(self) -> None:
        self.apiserver.resume()

    def ensure_answering(self) -> Self:
        """Undo what a test did to it: start what is down, resume what is frozen."""
        for process in (self.etcd, self.apiserver, self.controller_manager):
            process.resume()
            process.start()
        eventually(self._ready, timeout=90, message="the API server is ready")
        return self

    def kubectl(
        self,
        *args: str | Path,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        kubeconfig: Path | None = None,
    ) -> str:
        """Run kubectl, as the administrator unless told otherwise, and return what it printed.

        Raises KubectlError, with what it wrote to stderr, if it fails.
        """
        done = subprocess.run(
            [self.binaries / "kubectl", *args],
            check=False,
            input=input,
            capture_output=True,
            text=True,
            env={
                **os.environ,
                "KUBECONFIG": str(kubeconfig or self.kubeconfig()),
                "HOME": str(self.folder),
            },
            timeout=110,
        )
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """`kubectl apply` of objects given as dictionaries."""
        self.kubectl("apply", "-f", "-", input=yaml.safe_dump_all(manifests))

    def get(self, *args: str) -> Any:
        """What `kubectl get ... -o json` returns."""
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def wait_established(self, crd: str) -> None:
        """Return when the API server knows the kind of this CRD."""
        established = ("wait", "--for=condition=Established", f"crd/{crd}", "--timeout=30s")
        # kubectl fails at once where the new kind has no conditions yet.
        eventually(lambda: self.kubectl(*established), timeout=60, ignoring=KubectlError)

    def delete_crd(self, name: str) -> None:
        """Delete a CRD that may exist, and the objects of its kind.

        It waits until their kind is served: a CRD deleted before can stay for ever, since the API
        server may give up listing its objects while their "storage is (re)initializing".
        """
        if self.kubectl("get", "crd", name, "--ignore-not-found"):
            self.wait_established(name)
            self.kubectl("get", name, "--all-namespaces")
            self.kubectl("delete", "crd", name)

    def create_namespace(self, prefix: str = "test") -> str:
        """Make a namespace with a name of its own, in which pods can be created at once."""
        name = f"{prefix}-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        eventually(
            lambda: self.kubectl("-n", name, "get", "sa", "default", "--ignore-not-found"),
            message=f"the service account default of the namespace {name}",
        )
        return name

    def service_account(
        self,
        name: str,
        rules: Sequence[Rule] = (),
        *,
        namespace: str = "default",
        cluster_rules: Sequence[Rule] = (),
    ) -> Path:
        """Make a service account with these rights, and return a kubeconfig for it.

        `rules` hold in its namespace (a Role), `cluster_rules` everywhere (a ClusterRole).
        """
        metadata = {"name": name, "namespace": namespace}
        subject = {"kind": "ServiceAccount", **metadata}
        manifests: list[Mapping[str, Any]] = [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
        ]
        if rules:
            manifests += _role("Role", metadata, rules, subject)
        if cluster_rules:
            everywhere = {"name": f"{namespace}-{name}"}
            manifests += _role("ClusterRole", everywhere, cluster_rules, subject)
        self.apply(*manifests)
        return self.kubeconfig_for(name, namespace=namespace)

    def token_for(self, service_account: str, *, namespace: str = "default") -> str:
        """A token of an existing service account, good for a day."""
        return self.kubectl(
            "-n", namespace, "create", "token", service_account, "--duration=24h"
        ).strip()

    def kubeconfig_for(self, service_account: str, *, namespace: str = "default") -> Path:
        """A kubeconfig for an existing service account, whatever gave it its rights."""
        token = self.token_for(service_account, namespace=namespace)
        return self.kubeconfig_with(f"{namespace}-{service_account}", token, namespace)

    def kubeconfig(self, user: str = "admin") -> Path:
        """A kubeconfig for a user of the token file; `admin` may do everything."""
        return self.kubeconfig_with(user.replace(":", "-"), self._tokens[user], "default")

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _process(self, name: str, options: Sequence[str]) -> Process:
        log = self.folder / f"{name}.log"
        return Process([self.binaries / name, *options], log=log, cwd=self.folder)

    def _prepare(self) -> None:
        groups = {"admin": "system:masters"}
        lines = [
            f'{token},{user},{user},"{groups.get(user, "system:authenticated")}"\n'
            for user, token in self._tokens.items()
        ]
        (self.folder / "tokens.csv").write_text("".join(lines))
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        (self.folder / "service-accounts.pem").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )

    def _etcd_options(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{port}" for port in self._etcd_ports)
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ]

    def _apiserver_options(self) -> list[str]:
        key = self.folder / "service-accounts.pem"
        return [
            f"--etcd-servers=http://127.0.0.1:{self._etcd_ports[0]}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self.port}",
            f"--cert-dir={self.folder / 'certificates'}",
            f"--token-auth-file={self.folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            # As in most clusters: what forbids it there are policies.
            "--allow-privileged",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Nothing reaches the API server through a Service, and a loopback address is none.
            "--endpoint-reconciler-type=none",
        ]

    def _controller_manager_options(self) -> list[str]:
        return [
            f"--kubeconfig={self.kubeconfig('system:kube-controller-manager')}",
            f"--service-account-private-key-file={self.folder / 'service-accounts.pem'}",
            f"--cert-dir={self.folder / 'certificates'}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--leader-elect=false",
            "--use-service-account-credentials",
        ]

    def _ready(self) -> bool:
        if not self.apiserver.running:
            raise RuntimeError(f"kube-apiserver ended:\n{self.apiserver.log()[-4000:]}")
        if not self.ca_file.exists():
            return False
        request = urllib.request.Request(
            f"{self.server}/readyz", headers={"Authorization": f"Bearer {self._tokens['admin']}"}
        )
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file))
            with urllib.request.urlopen(request, timeout=5, context=context) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def kubeconfig_with(self, name: str, token: str, namespace: str) -> Path:
        """A kubeconfig for whoever has this token.

        Written anew each time: it names the certificate's file, which may not exist yet.
        """
        path = self.folder / f"{name}.kubeconfig"
        cluster = {"server": self.server, "certificate-authority": str(self.ca_file)}
        context = {"cluster": "test", "user": name, "namespace": namespace}
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": context}],
            "current-context": "test",
        }
        path.write_text(yaml.safe_dump(document))
        return path


class KubectlError(RuntimeError):
    """kubectl failed; the message holds its arguments and what it wrote to stderr."""


def binaries() -> Path:
    """The folder with the control plane's programs, built beforehand by tests/setup."""
    done = subprocess.run([SETUP, "--where"], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip())
    return Path(done.stdout.strip())


def _role(
    kind: str, metadata: Mapping[str, str], rules: Sequence[Rule], subject: Mapping[str, str]
) -> list[Mapping[str, Any]]:
    api = "rbac.authorization.k8s.io"
    return [
        {
            "apiVersion": f"{api}/v1",
            "kind": kind,
            "metadata": dict(metadata),
            "rules": [dict(rule) for rule in rules],
        },
        {
            "apiVersion": f"{api}/v1",
            "kind": f"{kind}Binding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": api, "kind": kind, "name": metadata["name"]},
            "subjects": [dict(subject)],
        },
    ]
